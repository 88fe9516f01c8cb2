//! What a user names: a pod, or an end of a connection.

use std::net::IpAddr;

use crate::agents::Pod;
use crate::args::is_name;
use crate::error::Error;
use crate::kubectl::Kubectl;

/// A pod as it was named, perhaps without its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodName {
    pub namespace: Option<String>,
    pub name: String,
}

/// An end of a connection, in np-agent's own forms and by the name of a pod alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Pod(PodName),
    /// What a node itself sends.
    Node(String),
    Address(IpAddr),
}

impl PodName {
    /// Reads `name` or `namespace/name`.
    ///
    /// # Errors
    /// If it can be neither.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::read(text).ok_or_else(|| Error::Pod { value: text.to_owned() })
    }

    fn read(text: &str) -> Option<Self> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        let valid = is_name(name) && namespace.is_none_or(is_name);
        valid.then(|| Self { namespace: namespace.map(str::to_owned), name: name.to_owned() })
    }

    /// Gets the pod; kubectl says if there is none.
    ///
    /// # Errors
    /// If kubectl fails.
    pub fn find(&self, kubectl: &Kubectl, field: &str) -> Result<Pod, Error> {
        let Self { namespace, name } = self;
        let mut words = vec!["pod", name];
        let namespace = namespace.as_ref().or(kubectl.namespace.as_ref());
        words.extend(namespace.into_iter().flat_map(|namespace| ["--namespace", namespace]));
        let all = match namespace {
            Some(namespace) => format!("`kubectl get pods --namespace {namespace}`"),
            None => "`kubectl get pods`".to_owned(),
        };
        let remedy = format!(
            "{field} must be a pod, never a Service or a Deployment: {all} lists them; NAMESPACE/NAME or \
             --namespace names one of another namespace"
        );
        kubectl.get_json(&words, &remedy)
    }
}

impl End {
    /// Reads an end; `field` is the flag that gives it.
    ///
    /// # Errors
    /// If it has none of the forms.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, Error> {
        let node = text.strip_prefix("node:");
        let end = match (node, text.parse()) {
            (Some(node), _) => is_name(node).then(|| Self::Node(node.to_owned())),
            (None, Ok(address)) => Some(Self::Address(address)),
            (None, Err(_)) => PodName::read(text).map(Self::Pod),
        };
        end.ok_or_else(|| Error::End { field, value: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(text: &str) -> Option<End> {
        End::parse("--to", text).ok()
    }

    fn pod(namespace: Option<&str>, name: &str) -> Option<End> {
        let namespace = namespace.map(str::to_owned);
        Some(End::Pod(PodName { namespace, name: name.to_owned() }))
    }

    #[test]
    fn each_form_of_an_end_is_distinguished() {
        assert_eq!(end("shop/web-0"), pod(Some("shop"), "web-0"));
        assert_eq!(end("web-0"), pod(None, "web-0"));
        assert_eq!(end("node:n1"), Some(End::Node("n1".to_owned())));
        for address in ["10.0.0.1", "fd00::1", "::ffff:10.0.0.1"] {
            assert!(matches!(end(address), Some(End::Address(_))), "{address}");
        }
    }

    #[test]
    fn what_kubectl_would_read_as_something_else_is_refused() {
        for text in
            ["", "-A", "--all", "shop/", "/web", "a/b/c", "node:", "node:-x", "Web", "web 0"]
        {
            let error = End::parse("--from", text).expect_err(text).to_string();
            assert!(error.contains("--from") && error.contains("namespace/pod"), "{error}");
        }
        assert!(PodName::parse("10.0.0.1").is_ok(), "a pod may be called so");
        assert!(PodName::parse("node:n1").is_err());
    }
}
