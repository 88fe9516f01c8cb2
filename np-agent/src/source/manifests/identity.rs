//! Which object a refused document speaks of: for the message, and to keep that object's last good
//! version in force.

use super::fields::Fields;
use super::tree::{Entry, Value};
use crate::source::invalid::shortened;
use crate::source::kind::Kind;
use np_policy::model::{NodeName, ObjectKey, PodKey, PolicyKey};

/// What a document says it is, however broken the rest.
#[derive(Debug, Default)]
pub(super) struct Identity<'n> {
    pub kind: Option<&'n str>,
    pub namespace: Option<&'n str>,
    pub name: Option<&'n str>,
    /// Something is said twice: it names no object for certain.
    pub ambiguous: bool,
}

impl<'n> Identity<'n> {
    pub fn of(object: &Fields<'n>) -> Self {
        let text = |entries: &'n [Entry], key: &str| {
            let entry = entries.iter().find(|entry| entry.key == key)?;
            match &entry.value.value {
                Value::Text(text) => Some(text.as_str()),
                _ => None,
            }
        };
        let metadata = object.entries.iter().find(|entry| entry.key == "metadata");
        let metadata = match metadata.map(|entry| &entry.value.value) {
            Some(Value::Map(entries)) => entries.as_slice(),
            _ => &[],
        };
        let twice = |entries: &[Entry], key: &str| {
            entries.iter().filter(|entry| entry.key == key).count() > 1
        };
        let ambiguous = twice(object.entries, "kind")
            || twice(object.entries, "metadata")
            || twice(metadata, "name")
            || twice(metadata, "namespace");
        Self {
            kind: text(object.entries, "kind"),
            namespace: text(metadata, "namespace"),
            name: text(metadata, "name"),
            ambiguous,
        }
    }

    /// "NetworkPolicy default/web", with the kind as written.
    pub fn label(&self, kind: Option<Kind>) -> Option<String> {
        let written = self.kind.or(kind.map(Kind::name)).map(shortened)?;
        let Some(name) = self.name.map(shortened) else { return Some(written) };
        if kind.is_some_and(|kind| !kind.namespaced()) {
            return Some(format!("{written} {name}"));
        }
        let namespace = shortened(self.namespace.unwrap_or("default"));
        Some(format!("{written} {namespace}/{name}"))
    }

    pub fn key(&self, kind: Kind) -> Option<ObjectKey> {
        let name = self.name.filter(|_| !self.ambiguous)?;
        let namespace = self.namespace.filter(|namespace| !namespace.is_empty());
        let namespace = namespace.unwrap_or("default");
        Some(match kind {
            Kind::Pod => ObjectKey::Pod(PodKey::new(namespace, name)),
            Kind::Policy => ObjectKey::Policy(PolicyKey::new(namespace, name)),
            Kind::Namespace => ObjectKey::Namespace(name.to_owned()),
            Kind::Node => ObjectKey::Node(NodeName(name.into())),
        })
    }
}
