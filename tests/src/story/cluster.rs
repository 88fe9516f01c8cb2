//! The cluster of the stories. Addresses that a case names are the case's own.

use crate::probe::server::Listen;
use crate::proxy::ExternalTrafficPolicy::{Cluster, Local};
use crate::proxy::Protocol::{Tcp, Udp};
use crate::proxy::{Service, ServicePort};
use crate::topology::plan::{address, block, node};
use crate::topology::{Labels, NamespaceSpec, OutsideSpec, PodSpec, Shape, Spec};

/// Three nodes of a routes-based GKE cluster, the pods of all stories, and hosts outside.
pub fn spec() -> Spec {
    Spec {
        node_network: block("192.168.64.0/19"),
        router: address("192.168.64.1"),
        pod_range: block("100.68.0.0/14"),
        unmasqueraded: ["100.64.0.0/10", "192.168.0.0/16", "10.0.0.0/8", "172.16.0.0/12"]
            .map(block)
            .to_vec(),
        namespaces: namespaces(),
        nodes: vec![
            node("node-1", "192.168.65.10", "100.68.1.0/24"),
            node("node-2", "192.168.65.11", "100.68.2.0/24"),
            node("node-3", "192.168.65.12", "100.68.3.0/24"),
        ],
        pods: pods(),
        outside: outside(),
        services: services(),
        pod_ports: Listen {
            tcp: &[80, 443, 3306, 5432, 6379, 8080, 8443],
            udp: &[8443],
            dns: true,
        },
        node_ports: Listen { tcp: &[9443, 10250], udp: &[], dns: false },
        outside_ports: Listen { tcp: &[443, 5978, 5979], udp: &[5978], dns: false },
        shape: Shape::PTP,
    }
}

fn namespaces() -> Vec<NamespaceSpec> {
    let all: [(&str, Labels); 8] = [
        ("default", &[]),
        ("kube-system", &[("name", "kube-system")]),
        ("namespace-a", &[]),
        ("namespace-b", &[]),
        ("testing", &[("name", "testing")]),
        ("myproject", &[("project", "myproject")]),
        ("alice", &[("user", "alice")]),
        ("my-namespace", &[]),
    ];
    all.map(|(name, labels)| NamespaceSpec { name, labels }).to_vec()
}

fn pods() -> Vec<PodSpec> {
    let mut pods: Vec<PodSpec> = [
        ("namespace-a", "pod-a", "node-1", "100.68.1.10", &[("app", "a")] as Labels),
        ("namespace-a", "pod-a-2", "node-2", "100.68.2.20", &[("app", "a")]),
        ("namespace-a", "cache-a", "node-3", "100.68.3.54", &[("k8s-app", "kube-dns")]),
        ("namespace-b", "pod-b-1", "node-2", "100.68.2.30", &[("app", "b"), ("version", "blue")]),
        ("namespace-b", "pod-b-2", "node-2", "100.68.2.31", &[("app", "b")]),
        ("namespace-b", "pod-b-3", "node-3", "100.68.3.50", &[("app", "b")]),
        ("kube-system", "coredns", "node-1", "100.68.1.53", &[("k8s-app", "kube-dns")]),
        ("kube-system", "metrics", "node-2", "100.68.2.60", &[("k8s-app", "metrics")]),
        ("default", "myapp-1", "node-1", "100.68.1.80", &[("app", "myapp")]),
        ("default", "myapp-2", "node-2", "100.68.2.80", &[("app", "myapp")]),
        ("default", "tomcat", "node-1", "100.68.1.81", &[("app", "tomcat")]),
        ("default", "nginx", "node-2", "100.68.2.81", &[("app", "nginx")]),
        ("default", "mysql", "node-1", "100.68.1.82", &[("app", "mysql")]),
        ("default", "db", "node-2", "100.68.2.63", &[("role", "db")]),
        ("default", "frontend", "node-1", "100.68.1.64", &[("role", "frontend")]),
        ("default", "client", "node-3", "100.68.3.65", &[("role", "client")]),
        ("default", "other", "node-2", "100.68.2.99", &[("app", "other")]),
        ("myproject", "worker", "node-3", "100.68.3.70", &[("app", "worker")]),
        ("testing", "web", "node-1", "100.68.1.90", &[("app", "web")]),
        ("testing", "job", "node-2", "100.68.2.91", &[("app", "job")]),
        ("alice", "alice-client", "node-1", "100.68.1.40", &[("role", "client")]),
        ("alice", "alice-other", "node-3", "100.68.3.41", &[("role", "other")]),
        ("my-namespace", "quiet-1", "node-1", "100.68.1.70", &[]),
        ("my-namespace", "quiet-2", "node-2", "100.68.2.71", &[]),
    ]
    .map(|(namespace, name, node, ip, labels)| PodSpec {
        name,
        namespace,
        node,
        labels,
        address: Some(address(ip)),
        host_ports: if name == "pod-b-1" { &[(8444, 8443)] } else { &[] },
    })
    .to_vec();
    for (namespace, name, node) in
        [("namespace-a", "host-a", "node-1"), ("namespace-b", "host-b", "node-2")]
    {
        let labels = &[("app", "agent")];
        pods.push(PodSpec { name, namespace, node, labels, address: None, host_ports: &[] });
    }
    pods
}

/// Hosts outside are named by their address, but for the one that stands for the internet.
fn outside() -> Vec<OutsideSpec> {
    let mut hosts = vec![OutsideSpec { name: INTERNET, address: address("203.0.113.50") }];
    hosts.extend(
        [
            "10.244.2.255",
            "10.244.3.1",
            "10.244.3.255",
            "10.244.4.1",
            "172.17.0.9",
            "172.17.1.9",
            "172.17.2.9",
            "10.0.0.10",
            "10.0.1.10",
        ]
        .map(|name| OutsideSpec { name, address: address(name) }),
    );
    hosts
}

/// The external client, and the host on the internet that pods reach masqueraded.
pub const INTERNET: &str = "internet";

fn services() -> Vec<Service> {
    let port = |name, protocol, port, target_port, node_port| ServicePort {
        name,
        protocol,
        port,
        target_port,
        node_port,
    };
    let b = vec!["pod-b-1", "pod-b-2", "pod-b-3"];
    vec![
        Service {
            name: "svc-b",
            namespace: "namespace-b",
            address: address("100.64.5.20"),
            ports: vec![port("https", Tcp, 443, 8443, Some(30443))],
            external_traffic_policy: Cluster,
            external: None,
            affinity: false,
            endpoints: b.clone(),
        },
        Service {
            name: "svc-b-local",
            namespace: "namespace-b",
            address: address("100.64.5.21"),
            ports: vec![port("https", Tcp, 443, 8443, Some(30444))],
            external_traffic_policy: Local,
            external: None,
            affinity: false,
            endpoints: b,
        },
        Service {
            name: "kube-dns",
            namespace: "kube-system",
            address: address("100.64.0.10"),
            ports: vec![port("dns", Udp, 53, 53, None), port("dns-tcp", Tcp, 53, 53, None)],
            external_traffic_policy: Cluster,
            external: None,
            affinity: false,
            endpoints: vec!["coredns"],
        },
        Service {
            name: "svc-db",
            namespace: "default",
            address: address("100.64.5.30"),
            ports: vec![port("redis", Tcp, 6379, 6379, None)],
            external_traffic_policy: Cluster,
            external: None,
            affinity: false,
            endpoints: vec!["db"],
        },
    ]
}
