//! Which documents the agent reads, which it may ignore, and which only look as if.

use super::hints;
use crate::source::kind::Kind;

/// What to do with a document of some apiVersion and kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    One(Item),
    /// Its items are objects; those of a typed list may leave out their kind.
    List(Option<Item>),
    /// Another kind of Kubernetes, or a custom one.
    Ignored,
}

/// What is read of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Object(Kind),
    /// Tells about policies, and is not enforced.
    Background(Extra),
}

impl Item {
    fn sort(self, list: bool) -> Sort {
        if list { Sort::List(Some(self)) } else { Sort::One(self) }
    }
}

/// Kinds that are read for advice only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extra {
    Service,
    ServiceCidr,
    /// Has a template of pods.
    Workload,
    /// Endpoints or EndpointSlice.
    Endpoints,
}

/// Why a document's kind is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    /// "apiVersion" or "kind".
    pub field: &'static str,
    pub problem: String,
    pub remedy: String,
    /// The kind it probably is.
    pub meant: Option<Kind>,
}

impl Extra {
    fn of(api_version: &str, kind: &str) -> Option<Self> {
        Some(match (api_version, kind) {
            ("v1", "Service") => Extra::Service,
            ("v1", "Endpoints") | ("discovery.k8s.io/v1", "EndpointSlice") => Extra::Endpoints,
            ("networking.k8s.io/v1" | "networking.k8s.io/v1beta1", "ServiceCIDR") => {
                Extra::ServiceCidr
            }
            ("apps/v1", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
            | ("batch/v1", "Job" | "CronJob")
            | ("v1", "ReplicationController") => Extra::Workload,
            _ => return None,
        })
    }
}

pub(super) fn sort(api_version: &str, kind: &str) -> Result<Sort, Unreadable> {
    if kind == "List" {
        return Ok(Sort::List(None));
    }
    let (base, list) = kind.strip_suffix("List").map_or((kind, false), |base| (base, true));
    if let Some(ours) = Kind::named(base) {
        return own(ours, api_version, list);
    }
    if let Some(extra) = Extra::of(api_version, base) {
        return Ok(Item::Background(extra).sort(list));
    }
    if custom(api_version) {
        return Ok(Sort::Ignored);
    }
    let suffix = if list { "List" } else { "" };
    if let Some(near) = hints::nearest(base, Kind::ALL.map(Kind::name)) {
        return Err(Unreadable {
            field: "kind",
            problem: "no such kind".to_owned(),
            remedy: format!("did you mean \"{near}{suffix}\"?"),
            meant: Kind::named(near).filter(|_| !list),
        });
    }
    let formed = kind.starts_with(|c: char| c.is_ascii_uppercase())
        && kind.bytes().all(|c| c.is_ascii_alphanumeric());
    if !formed {
        return Err(Unreadable {
            field: "kind",
            problem: "no kind has such a name".to_owned(),
            remedy: "write the kind as Kubernetes does, such as \"NetworkPolicy\"".to_owned(),
            meant: None,
        });
    }
    Ok(Sort::Ignored)
}

fn own(kind: Kind, api_version: &str, list: bool) -> Result<Sort, Unreadable> {
    let expected = kind.api_version();
    if api_version == expected {
        return Ok(Item::Object(kind).sort(list));
    }
    // Another product's kind of the same name, such as Calico's NetworkPolicy.
    if custom(api_version) && hints::nearest(api_version, [expected]).is_none() {
        return Ok(Sort::Ignored);
    }
    Err(Unreadable {
        field: "apiVersion",
        problem: format!("{} is not served under this apiVersion", kind.name()),
        remedy: format!("write \"apiVersion: {expected}\""),
        meant: Some(kind).filter(|_| !list),
    })
}

/// Whether the group belongs to custom resources: Kubernetes' own groups have no dot, or end in
/// `k8s.io`.
fn custom(api_version: &str) -> bool {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    group.contains('.') && !group.ends_with(".k8s.io")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_kinds_are_read_and_strangers_ignored() {
        assert_eq!(sort("v1", "Pod"), Ok(Sort::One(Item::Object(Kind::Pod))));
        assert_eq!(
            sort("networking.k8s.io/v1", "NetworkPolicy"),
            Ok(Sort::One(Item::Object(Kind::Policy)))
        );
        assert_eq!(sort("v1", "List"), Ok(Sort::List(None)));
        assert_eq!(sort("v1", "NodeList"), Ok(Sort::List(Some(Item::Object(Kind::Node)))));
        for (version, kind, extra) in [
            ("v1", "Service", Extra::Service),
            ("networking.k8s.io/v1", "ServiceCIDR", Extra::ServiceCidr),
            ("apps/v1", "Deployment", Extra::Workload),
            ("batch/v1", "CronJob", Extra::Workload),
            ("v1", "Endpoints", Extra::Endpoints),
            ("discovery.k8s.io/v1", "EndpointSlice", Extra::Endpoints),
        ] {
            let item = Item::Background(extra);
            assert_eq!(sort(version, kind), Ok(Sort::One(item)), "{version} {kind}");
            assert_eq!(sort(version, &format!("{kind}List")), Ok(Sort::List(Some(item))));
        }
        for (version, kind) in [
            ("v1", "ConfigMap"),
            ("batch/v1", "JobsList"),
            ("serving.knative.dev/v1", "Service"),
            ("rbac.authorization.k8s.io/v1", "RoleList"),
            ("projectcalico.org/v3", "NetworkPolicy"),
            ("cilium.io/v2", "CiliumNetworkPolicy"),
            ("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy"),
            ("example.com/v1", "Mode"),
        ] {
            assert_eq!(sort(version, kind), Ok(Sort::Ignored), "{version} {kind}");
        }
    }

    #[test]
    fn near_misses_are_refused() {
        for (version, kind, field, remedy) in [
            ("networking.k8s.io/v1", "NetworPolicy", "kind", "NetworkPolicy"),
            ("networking.k8s.io/v1", "networkpolicy", "kind", "NetworkPolicy"),
            ("extensions/v1beta1", "NetworkPolicy", "apiVersion", "networking.k8s.io/v1"),
            ("v1", "NetworkPolicy", "apiVersion", "networking.k8s.io/v1"),
            ("networking.k8s.oi/v1", "NetworkPolicy", "apiVersion", "networking.k8s.io/v1"),
            ("networking.k8s.io/v1", "Pod", "apiVersion", "\"apiVersion: v1\""),
            ("v1", "pod", "kind", "\"Pod\""),
            ("v1", "Pods", "kind", "\"Pod\""),
            ("apps/v1", "deployment", "kind", "as Kubernetes does"),
        ] {
            let refused = sort(version, kind).unwrap_err();
            assert_eq!(refused.field, field, "{version} {kind}");
            assert!(refused.remedy.contains(remedy), "{version} {kind}: {}", refused.remedy);
        }
    }
}
