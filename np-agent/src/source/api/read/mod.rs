//! An object of the API server into the model, totally: none is ever refused.
//!
//! The strict reader of manifests may refuse, because a user stands before it. Here a refused
//! policy would be an open pod, so every policy that has a name becomes one, if need be one that
//! allows nothing. A pod or namespace that cannot be understood is as if it did not exist.

mod notes;
mod objects;
mod policy;
mod selector;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use self::notes::Notes;
use super::prune::{self, Keep};
use super::resource::Resource;
use crate::source::kind::Kind;
use crate::source::narrowed::Narrowed;
use np_policy::model::{NodeName, Object, ObjectKey, PodKey, PolicyKey};

/// An object as it was read.
#[derive(Debug)]
pub struct Read {
    pub key: ObjectKey,
    pub uid: String,
    /// `metadata.resourceVersion`: what comes later has the greater one.
    pub version: u64,
    /// None when it is as if it did not exist.
    pub object: Option<Object>,
    pub narrowed: Vec<Narrowed>,
}

/// An object that does not even say which it is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an object without a name in the answer about {resource}: {problem}")]
pub struct Nameless {
    pub resource: Resource,
    pub problem: String,
}

const METADATA: Keep = Keep::Fields(&[
    ("name", Keep::Whole),
    ("namespace", Keep::Whole),
    ("uid", Keep::Whole),
    ("resourceVersion", Keep::Whole),
    ("creationTimestamp", Keep::Whole),
    ("deletionTimestamp", Keep::Whole),
    ("labels", Keep::Whole),
    ("annotations", Keep::Fields(&[(np_policy::model::SOURCE_PREFIXES, Keep::Whole)])),
]);
const IDENTITY: Keep = Keep::Fields(&[(
    "metadata",
    Keep::Fields(&[
        ("name", Keep::Whole),
        ("namespace", Keep::Whole),
        ("uid", Keep::Whole),
        ("resourceVersion", Keep::Whole),
    ]),
)]);
const PORTS: Keep = Keep::Items(&Keep::Fields(&[
    ("restartPolicy", Keep::Whole),
    (
        "ports",
        Keep::Items(&Keep::Fields(&[
            ("name", Keep::Whole),
            ("protocol", Keep::Whole),
            ("containerPort", Keep::Whole),
        ])),
    ),
]));
const POD: Keep = Keep::Fields(&[
    ("metadata", METADATA),
    (
        "spec",
        Keep::Fields(&[
            ("nodeName", Keep::Whole),
            ("hostNetwork", Keep::Whole),
            ("containers", PORTS),
            ("initContainers", PORTS),
        ]),
    ),
    (
        "status",
        Keep::Fields(&[("phase", Keep::Whole), ("podIP", Keep::Whole), ("podIPs", Keep::Whole)]),
    ),
]);
const NAMESPACE: Keep = Keep::Fields(&[("metadata", METADATA)]);
const NODE: Keep = Keep::Fields(&[
    ("metadata", METADATA),
    ("spec", Keep::Fields(&[("podCIDR", Keep::Whole), ("podCIDRs", Keep::Whole)])),
    ("status", Keep::Fields(&[("addresses", Keep::Whole)])),
]);
/// All but the metadata, where unknown fields say nothing.
const POLICY: Keep = Keep::AllButPartly(&[("metadata", METADATA), ("status", Keep::Fields(&[]))]);

/// Reads the text of an object.
pub fn read(resource: Resource, text: &str) -> Result<Read, Nameless> {
    let keep = match resource.kind() {
        Kind::Pod => &POD,
        Kind::Namespace => &NAMESPACE,
        Kind::Node => &NODE,
        Kind::Policy => &POLICY,
    };
    let (value, unreadable) = match prune::read(text, keep) {
        Ok(value) => (value, None),
        Err(error) => {
            let nameless =
                |problem: serde_json::Error| Nameless { resource, problem: problem.to_string() };
            (prune::read(text, &IDENTITY).map_err(nameless)?, Some(error.to_string()))
        }
    };
    let identity = Identity::of(resource, &value)?;
    let mut notes = Notes::default();
    let object = match (&identity.key, unreadable) {
        (ObjectKey::Policy(key), Some(problem)) => {
            Some(Object::Policy(policy::unreadable(key.clone(), problem, &mut notes)))
        }
        (_, Some(problem)) => {
            notes.add("", &Value::Null, problem, "it is as if it did not exist");
            None
        }
        (key, None) => understood(key, &identity.uid, &value, &mut notes),
    };
    let Identity { key, uid, version } = identity;
    let narrowed = if notes.is_empty() { Vec::new() } else { notes.of(&key.to_string(), &version) };
    Ok(Read { key, uid, version: version.parse().unwrap_or(0), object, narrowed })
}

fn understood(key: &ObjectKey, uid: &str, value: &Value, notes: &mut Notes) -> Option<Object> {
    match key {
        ObjectKey::Pod(key) => objects::pod(key.clone(), uid, value, notes).map(Object::Pod),
        ObjectKey::Namespace(name) => objects::namespace(name, value, notes).map(Object::Namespace),
        ObjectKey::Node(NodeName(name)) => Some(Object::Node(objects::node(name, value, notes))),
        ObjectKey::Policy(key) => {
            let none = Map::new();
            let object = value.as_object().unwrap_or(&none);
            Some(Object::Policy(policy::policy(key.clone(), object, notes)))
        }
    }
}

/// Which object it is, at which version.
struct Identity {
    key: ObjectKey,
    uid: String,
    version: String,
}

impl Identity {
    fn of(resource: Resource, value: &Value) -> Result<Self, Nameless> {
        let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default().to_owned();
        let (name, namespace) = (text("name"), text("namespace"));
        let lacks = |field: &str| Nameless { resource, problem: format!("no metadata.{field}") };
        if name.is_empty() {
            return Err(lacks("name"));
        }
        if resource.kind().namespaced() && namespace.is_empty() {
            return Err(lacks("namespace"));
        }
        let key = match resource.kind() {
            Kind::Pod => ObjectKey::Pod(PodKey::new(namespace, name)),
            Kind::Policy => ObjectKey::Policy(PolicyKey::new(namespace, name)),
            Kind::Namespace => ObjectKey::Namespace(name),
            Kind::Node => ObjectKey::Node(NodeName(name.into())),
        };
        Ok(Self { key, uid: text("uid"), version: text("resourceVersion") })
    }
}
