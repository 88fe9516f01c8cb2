//! Which pods policy knows, and which of them an address belongs to.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod};

use super::cidr::address_of;

/// Whether the pod is a subject and a peer: it has an address of its own which has not gone back
/// to the pool.
pub fn enforceable(pod: &Pod) -> bool {
    !host_network(pod) && !finished(pod) && addresses(pod).next().is_some()
}

/// The pod that an address belongs to. Two objects may show the same one for a while: the one that
/// is not finished has it, then the one that is not terminating, then the younger.
pub fn owner(pods: &[Pod], address: IpAddr) -> Option<&Pod> {
    pods.iter()
        .filter(|pod| !host_network(pod) && addresses(pod).any(|own| own == address))
        .max_by_key(|pod| (!finished(pod), !terminating(pod), created(pod), &pod.metadata.uid))
        .filter(|pod| enforceable(pod))
}

pub fn named<'a>(pods: &'a [Pod], name: &str) -> Option<&'a Pod> {
    let (home, name) = name.split_once('/')?;
    pods.iter().find(|pod| namespace(pod) == home && pod.metadata.name.as_deref() == Some(name))
}

pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

pub fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

pub fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true)
}

/// The ports of containers and of sidecars, which are init containers that keep running.
pub fn named_ports(pod: &Pod) -> impl Iterator<Item = &ContainerPort> {
    let sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let spec = pod.spec.iter();
    let sidecars = spec.clone().flat_map(|spec| &spec.init_containers).flatten().filter(sidecar);
    spec.flat_map(|spec| &spec.containers).chain(sidecars).flat_map(|one| &one.ports).flatten()
}

/// `status.podIPs`; older objects have only `status.podIP`.
pub fn addresses(pod: &Pod) -> impl Iterator<Item = IpAddr> {
    let status = pod.status.iter();
    let all = status.clone().flat_map(|status| &status.pod_ips).flatten().map(|one| &one.ip);
    let first = status.flat_map(|status| &status.pod_ip);
    all.chain(first).filter_map(|text| address_of(text)).map(|address| address.to_canonical())
}

fn finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

fn created(pod: &Pod) -> i64 {
    pod.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    use super::*;

    const SHARED: &str = "10.0.0.1";

    fn pod(name: &str, created: i64, phase: &str, terminating: bool) -> Pod {
        let time = |second| Time(Timestamp::from_second(second).unwrap());
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {"namespace": "x", "name": name},
            "spec": {"containers": []},
            "status": {"phase": phase, "podIPs": [{"ip": SHARED}]},
        }))
        .unwrap();
        pod.metadata.creation_timestamp = Some(time(created));
        pod.metadata.deletion_timestamp = terminating.then(|| time(100));
        pod
    }

    fn owner_name(pods: &[Pod]) -> Option<String> {
        owner(pods, SHARED.parse().unwrap()).and_then(|pod| pod.metadata.name.clone())
    }

    /// Each rule decides only when the rules before it do not, whatever the order of the objects.
    #[test]
    fn a_shared_address_belongs_to_one_pod_by_rank() {
        for (winner, loser) in [
            (pod("w", 1, "Running", true), pod("l", 2, "Succeeded", false)),
            (pod("w", 1, "Running", false), pod("l", 2, "Running", true)),
            (pod("w", 1, "Pending", false), pod("l", 2, "Failed", false)),
            (pod("w", 2, "Running", false), pod("l", 1, "Running", false)),
            (pod("w", 2, "Running", true), pod("l", 1, "Running", true)),
        ] {
            let both = [winner, loser];
            assert_eq!(owner_name(&both).as_deref(), Some("w"));
            let [winner, loser] = both;
            assert_eq!(owner_name(&[loser, winner]).as_deref(), Some("w"));
        }
    }

    #[test]
    fn nobody_owns_the_address_of_a_finished_or_a_host_network_pod() {
        assert_eq!(owner_name(&[pod("p", 1, "Succeeded", false)]), None);
        let mut host = pod("p", 1, "Running", false);
        host.spec.as_mut().unwrap().host_network = Some(true);
        assert_eq!(owner_name(&[host.clone()]), None);
        let other = pod("q", 0, "Running", false);
        assert_eq!(owner_name(&[host, other]).as_deref(), Some("q"));
    }
}
