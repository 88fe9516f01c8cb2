//! Keys and identities as newtypes, so that a pod's name is never taken for its UID.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! namespaced {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name {
            /// Many objects have the same: the index holds equal ones once.
            pub namespace: Arc<str>,
            pub name: Box<str>,
        }

        impl $name {
            pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Box<str>>) -> Self {
                Self { namespace: namespace.into(), name: name.into() }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}/{}", self.namespace, self.name)
            }
        }

        impl From<$name> for String {
            fn from(key: $name) -> Self {
                key.to_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                match text.split_once('/') {
                    Some((namespace, name)) => Ok(Self::new(namespace, name)),
                    None => Err(format!("{text:?} is not of the form namespace/name")),
                }
            }
        }
    };
}

namespaced! {
    /// A pod's namespace and name. Kubernetes reuses it: not an identity, see [`PodUid`].
    PodKey
}
namespaced! {
    /// A NetworkPolicy's namespace and name.
    PolicyKey
}

/// What Kubernetes never reuses: `metadata.uid`. Manifests may lack one; sources then give the
/// object a uid made of its namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodUid(pub Box<str>);

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A node's name, as in `spec.nodeName`. Held once for all pods of the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeName(pub Arc<str>);

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names an object of any kind the agent reads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKey {
    Pod(PodKey),
    Namespace(String),
    Policy(PolicyKey),
    Node(NodeName),
}

impl ObjectKey {
    /// The object's kind, as written in manifests.
    pub fn kind(&self) -> &'static str {
        match self {
            ObjectKey::Pod(_) => "Pod",
            ObjectKey::Namespace(_) => "Namespace",
            ObjectKey::Policy(_) => "NetworkPolicy",
            ObjectKey::Node(_) => "Node",
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ObjectKey::Pod(key) => write!(f, "Pod {key}"),
            ObjectKey::Namespace(name) => write!(f, "Namespace {name}"),
            ObjectKey::Policy(key) => write!(f, "NetworkPolicy {key}"),
            ObjectKey::Node(name) => write!(f, "Node {name}"),
        }
    }
}
