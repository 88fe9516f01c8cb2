//! `kubectl np endpoints`: the pods that are enforced, with their nodes.

use serde::Deserialize;
use serde_json::Value;

use crate::agents::Pod;
use crate::args::{EndpointsArgs, Output};
use crate::ask::{self, Answer};
use crate::ends::PodName;
use crate::error::{Error, Silence};
use crate::kubectl::Kubectl;
use crate::print::{self, table};

/// An endpoint of np-agent's list, as far as it is shown here.
#[derive(Clone, Debug, Deserialize)]
pub struct Endpoint {
    pub id: u16,
    /// "namespace/name"
    pub pod: String,
    pub addresses: Vec<String>,
    #[serde(default)]
    pub source_prefixes: Vec<String>,
    pub device: String,
    pub ingress: Side,
    pub egress: Side,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Side {
    pub isolated: bool,
    /// "namespace/name" each
    pub policies: Vec<String>,
}

/// An endpoint as np-agent wrote it, and what is read of it.
#[derive(Clone, Debug)]
pub struct Told {
    document: Value,
    pub endpoint: Endpoint,
}

/// Which pods are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Of {
    All,
    Namespace(String),
    Pod(String),
}

/// Runs the command and returns its exit code.
///
/// # Errors
/// If kubectl does not list what is needed, or the answer cannot be written.
pub fn run(kubectl: &Kubectl, args: &EndpointsArgs) -> Result<u8, Error> {
    let named = args.pod.as_deref().map(PodName::parse).transpose()?;
    let pod = named.map(|named| named.find(kubectl, "POD")).transpose()?;
    let of = match (&pod, &kubectl.namespace) {
        (Some(pod), _) => Of::Pod(pod.key()),
        (None, Some(namespace)) => Of::Namespace(namespace.clone()),
        (None, None) => Of::All,
    };
    let node = match (&args.on.node, &pod) {
        (Some(node), _) => Some(node.clone()),
        (None, Some(pod)) => Some(pod.node()?),
        (None, None) => None,
    };
    let answers = ask::ask(kubectl, node.as_deref(), &words(args), |name, said| {
        let all: Vec<Value> = ask::read_json(kubectl, name, said)?;
        read(all, &of).map_err(|problem| Silence::Unreadable { pod: name.to_owned(), problem })
    })?;
    match args.output {
        Output::Table => print::show(&render(&answers))?,
        Output::Json => print::show(&ask::to_json(&answers, "endpoints", |all| {
            all.iter().map(|told| told.document.clone()).collect()
        }))?,
    }
    let code = ask::complain_of_all(&answers);
    match (pod, answers.first()) {
        (Some(pod), Some(Answer { node, said: Ok(told), .. })) if told.is_empty() => {
            print::complain(&not_there(&pod, &node.name));
            Ok(1)
        }
        _ => Ok(code),
    }
}

/// What np-agent is asked.
pub fn words(args: &EndpointsArgs) -> Vec<String> {
    ["endpoints", "-o", "json"]
        .map(str::to_owned)
        .into_iter()
        .chain(args.on.further.clone())
        .collect()
}

/// Reads np-agent's list, as far as it is asked for.
fn read(all: Vec<Value>, of: &Of) -> Result<Vec<Told>, serde_json::Error> {
    let mut told = Vec::new();
    for document in all {
        let endpoint = Endpoint::deserialize(&document)?;
        if of.contains(&endpoint.pod) {
            told.push(Told { document, endpoint });
        }
    }
    Ok(told)
}

impl Of {
    fn contains(&self, pod: &str) -> bool {
        match self {
            Of::All => true,
            Of::Namespace(namespace) => pod.split_once('/').is_some_and(|(of, _)| of == namespace),
            Of::Pod(key) => pod == key,
        }
    }
}

fn render(answers: &[Answer<Vec<Told>>]) -> String {
    let side = |side: &Side| match side.isolated {
        // As np-agent shows them: the namespace is the pod's.
        true => side.policies.iter().map(|key| name_of(key)).collect::<Vec<_>>().join(","),
        false => "-".to_owned(),
    };
    let mut rows = Vec::new();
    for Answer { node, said, .. } in answers {
        for Told { endpoint, .. } in said.iter().flatten() {
            let addresses = endpoint.addresses.iter().chain(&endpoint.source_prefixes);
            let addresses: Vec<&str> = addresses.map(String::as_str).collect();
            let (namespace, name) = endpoint.pod.split_once('/').unwrap_or(("", &endpoint.pod));
            rows.push([
                node.name.clone(),
                endpoint.id.to_string(),
                namespace.to_owned(),
                name.to_owned(),
                addresses.join(","),
                endpoint.device.clone(),
                side(&endpoint.ingress),
                side(&endpoint.egress),
            ]);
        }
    }
    let header = [
        "NODE",
        "ID",
        "NAMESPACE",
        "POD",
        "ADDRESSES",
        "DEVICE",
        "INGRESS POLICIES",
        "EGRESS POLICIES",
    ];
    table(header, &rows)
}

fn name_of(key: &str) -> &str {
    key.split_once('/').map_or(key, |(_, name)| name)
}

/// Says why a pod that exists has no endpoint on the node that was asked.
fn not_there(pod: &Pod, node: &str) -> String {
    let key = pod.key();
    if pod.spec.host_network {
        return format!(
            "kubectl np: Pod {key}: it has hostNetwork: it is its node to policy, and no policy selects \
             it\n"
        );
    }
    format!(
        "kubectl np: Pod {key}: np-agent on node {node} does not enforce it; `kubectl np status --node \
         {node}` says what is missing there\n"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keys(of: &Of) -> Vec<String> {
        let side = json!({"isolated": false, "policies": []});
        let endpoint = |pod: &str| json!({"id": 1, "pod": pod, "addresses": [], "device": "v", "ingress": side, "egress": side});
        let all = vec![endpoint("shop/web"), endpoint("shop/web-0"), endpoint("shop-2/web")];
        let told = read(all, of).expect("they are endpoints");
        told.into_iter().map(|told| told.endpoint.pod).collect()
    }

    #[test]
    fn a_namespace_or_a_pod_is_compared_as_a_whole() {
        assert_eq!(keys(&Of::All).len(), 3);
        assert_eq!(keys(&Of::Namespace("shop".into())), ["shop/web", "shop/web-0"]);
        assert_eq!(keys(&Of::Pod("shop/web".into())), ["shop/web"]);
    }

    #[test]
    fn an_endpoint_of_another_make_is_refused() {
        assert!(read(vec![json!({"id": 1})], &Of::All).is_err());
    }
}
