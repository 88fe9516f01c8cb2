//! What is asked of the API server: five collections, each listed and watched by itself.
//!
//! Pods come by two ways. Those of the own node are few, and have no address yet when their rules
//! are to be compiled. Others are peers only, and without an address of their own they are none.

use std::fmt;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::{Deserialize, Serialize};

use crate::source::kind::Kind;
use np_policy::model::{Collection, NodeName};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resource {
    Namespaces,
    Policies,
    OwnNode,
    OwnPods,
    OtherPods,
}

impl Resource {
    pub const ALL: [Resource; 5] = [
        Resource::Namespaces,
        Resource::Policies,
        Resource::OwnNode,
        Resource::OwnPods,
        Resource::OtherPods,
    ];

    pub(super) fn kind(self) -> Kind {
        match self {
            Resource::Namespaces => Kind::Namespace,
            Resource::Policies => Kind::Policy,
            Resource::OwnNode => Kind::Node,
            Resource::OwnPods | Resource::OtherPods => Kind::Pod,
        }
    }

    /// The other way by which pods come.
    pub(super) fn other_pods(self) -> Option<Self> {
        match self {
            Resource::OwnPods => Some(Resource::OtherPods),
            Resource::OtherPods => Some(Resource::OwnPods),
            Resource::Namespaces | Resource::Policies | Resource::OwnNode => None,
        }
    }

    /// The path of the collection at the server.
    pub(super) fn path(self) -> String {
        match self.kind() {
            Kind::Namespace => <Namespace as kube::Resource>::url_path(&(), None),
            Kind::Policy => <NetworkPolicy as kube::Resource>::url_path(&(), None),
            Kind::Node => <Node as kube::Resource>::url_path(&(), None),
            Kind::Pod => <Pod as kube::Resource>::url_path(&(), None),
        }
    }

    /// Which of the collection's objects are asked for. Servers before 1.28 do not know how to
    /// select by `spec.hostNetwork`; `plain` does without, and the model passes such pods over.
    pub(super) fn fields(self, node: &NodeName, plain: bool) -> Option<String> {
        match self {
            Resource::Namespaces | Resource::Policies => None,
            Resource::OwnNode => Some(format!("metadata.name={node}")),
            Resource::OwnPods => Some(format!("spec.nodeName={node}")),
            Resource::OtherPods => {
                let host = if plain { "" } else { "spec.hostNetwork=false," };
                Some(format!(
                    "spec.nodeName!={node},status.podIP!=,{host}status.phase!=Succeeded,\
                     status.phase!=Failed"
                ))
            }
        }
    }

    pub(super) fn collection(self, node: &NodeName) -> Collection {
        match self {
            Resource::Namespaces => Collection::Namespaces,
            Resource::Policies => Collection::Policies,
            Resource::OwnNode => Collection::Nodes,
            Resource::OwnPods => Collection::PodsOn(node.clone()),
            Resource::OtherPods => Collection::PodsNotOn(node.clone()),
        }
    }

    /// The rule of RBAC without which the server answers 403.
    pub(super) fn rule(self) -> &'static str {
        match self.kind() {
            Kind::Namespace => "apiGroups [\"\"], resources [namespaces], verbs [list, watch]",
            Kind::Node => "apiGroups [\"\"], resources [nodes], verbs [list, watch]",
            Kind::Pod => "apiGroups [\"\"], resources [pods], verbs [list, watch]",
            Kind::Policy => {
                "apiGroups [networking.k8s.io], resources [networkpolicies], verbs [list, watch]"
            }
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Resource::Namespaces => "namespaces",
            Resource::Policies => "networkpolicies",
            Resource::OwnNode => "the own node",
            Resource::OwnPods => "pods of the own node",
            Resource::OtherPods => "pods of other nodes",
        })
    }
}
