//! Domain types: what the agent knows about the cluster, parsed once at the border.
//!
//! A value of these types cannot be wrong: sources turn wire objects into them (or into an error),
//! and the layers above (`index`, `compile`, `plan`) never re-check. Words follow
//! `networking.k8s.io/v1`.

mod background;
mod device;
mod ids;
mod namespace;
mod node;
mod pod;
mod policy;
mod selector;
mod sources;

use serde::{Deserialize, Serialize};

pub use background::{
    Background, DeclaredPort, Endpoints, Service, ServicePort, TargetPort, Workload, Written,
};
pub use device::{Device, DeviceChange, HostRoute, IfIndex, Lower, Peer as DevicePeer};
pub use ids::{NodeName, ObjectKey, PodKey, PodUid, PolicyKey};
pub use namespace::Namespace;
pub use node::Node;
pub use np_common::direction::Direction;
pub use np_common::source::MOST_SOURCES;
pub use np_common::tunnel::{self, Encapsulation};
pub use pod::{ContainerPort, Labels, Phase, Pod};
pub use policy::{IpBlock, Peer, Policy, PortMatch, Ports, Protocol, Rule};
pub use selector::{Requirement, Selector, Values};
pub use sources::{RefusedPrefix, SOURCE_PREFIXES, SourcePrefixes};

/// One object of the cluster, whatever its kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Object {
    Pod(Pod),
    Namespace(Namespace),
    Policy(Policy),
    Node(Node),
}

impl Object {
    pub fn key(&self) -> ObjectKey {
        match self {
            Object::Pod(pod) => ObjectKey::Pod(pod.key.clone()),
            Object::Namespace(namespace) => ObjectKey::Namespace(namespace.name.clone()),
            Object::Policy(policy) => ObjectKey::Policy(policy.key.clone()),
            Object::Node(node) => ObjectKey::Node(node.name.clone()),
        }
    }
}

/// One change of the cluster, as a source reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Apply(Object),
    /// With a uid only that pod goes: another may have taken its name since.
    Delete(ObjectKey, Option<PodUid>),
    /// All that a collection consists of now: what is not among it is gone.
    Replace(Collection, Vec<Object>),
}

impl Change {
    /// Deletes whatever has the name.
    pub fn delete(key: ObjectKey) -> Self {
        Self::Delete(key, None)
    }
}

/// Objects that a source lists together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Collection {
    Namespaces,
    Policies,
    Nodes,
    /// The pods of one node.
    PodsOn(NodeName),
    /// All pods but those of one node.
    PodsNotOn(NodeName),
}
