//! The kinds of objects that policy knows.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Pod,
    Namespace,
    Node,
    Policy,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Policy, Kind::Pod, Kind::Namespace, Kind::Node];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Pod => "Pod",
            Kind::Namespace => "Namespace",
            Kind::Node => "Node",
            Kind::Policy => "NetworkPolicy",
        }
    }

    pub fn named(name: &str) -> Option<Kind> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub fn namespaced(self) -> bool {
        matches!(self, Kind::Pod | Kind::Policy)
    }

    pub fn api_version(self) -> &'static str {
        match self {
            Kind::Pod | Kind::Namespace | Kind::Node => "v1",
            Kind::Policy => "networking.k8s.io/v1",
        }
    }
}
