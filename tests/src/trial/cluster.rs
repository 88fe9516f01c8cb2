//! The cluster of the trials, its policies, and what they must do.

use crate::probe::server::Listen;
use crate::proxy::ExternalTrafficPolicy::{self, Cluster, Local};
use crate::proxy::Service;
use crate::topology::plan::{address, block, node};
use crate::topology::{Labels, NamespaceSpec, OutsideSpec, PodSpec, Shape, Spec};

/// Two nodes; clients and servers on both; two hosts outside.
pub(super) fn spec(shape: Shape) -> Spec {
    let pod_range = block("10.244.0.0/16");
    // Where the network routes pods it routes them to nodes as well; else they leave as their node.
    let unmasqueraded = if shape.fabric_knows_pods {
        vec![block("10.0.0.0/8"), block("192.168.0.0/16")]
    } else {
        vec![pod_range]
    };
    Spec {
        node_network: block("192.168.64.0/19"),
        router: address("192.168.64.1"),
        pod_range,
        unmasqueraded,
        namespaces: [("alpha", &[("team", "alpha")] as Labels), ("beta", &[]), ("gamma", &[])]
            .map(|(name, labels)| NamespaceSpec { name, labels })
            .to_vec(),
        nodes: [
            ("node-1", "192.168.65.10", "10.244.1.0/24"),
            ("node-2", "192.168.65.11", "10.244.2.0/24"),
        ]
        .map(|(name, ip, pods)| node(name, ip, pods))
        .to_vec(),
        pods: [
            ("client", "alpha", "node-1", "10.244.1.10", &[("app", "client")] as Labels),
            ("server-1", "beta", "node-1", "10.244.1.20", &[("app", "server")]),
            ("server-2", "beta", "node-2", "10.244.2.20", &[("app", "server")]),
            ("other", "alpha", "node-2", "10.244.2.30", &[("app", "other")]),
            ("stranger", "gamma", "node-2", "10.244.2.40", &[("app", "client")]),
        ]
        .map(|(name, namespace, node, ip, labels)| PodSpec {
            name,
            namespace,
            node,
            labels,
            address: Some(address(ip)),
            host_ports: &[],
        })
        .to_vec(),
        outside: [("internet", "203.0.113.50"), ("elsewhere", "203.0.113.60")]
            .map(|(name, ip)| OutsideSpec { name, address: address(ip) })
            .to_vec(),
        services: vec![
            service("svc", "10.96.0.10", 30443, Cluster, &["server-1", "server-2"]),
            service("solo", "10.96.0.11", 30444, Cluster, &["server-1"]),
            service("local", "10.96.0.12", 30445, Local, &["server-1"]),
        ],
        pod_ports: Listen { tcp: &[8443, 9443], udp: &[8443], dns: false },
        node_ports: Listen { tcp: &[10250], udp: &[], dns: false },
        outside_ports: Listen { tcp: &[443, 5978], udp: &[], dns: false },
        shape,
    }
}

fn service(
    name: &'static str,
    ip: &str,
    node_port: u16,
    external_traffic_policy: ExternalTrafficPolicy,
    endpoints: &[&'static str],
) -> Service {
    let service = Service::new(name, "beta", address(ip), (443, 8443), endpoints);
    Service { external_traffic_policy, ..service.with_node_port(node_port) }
}

/// Without policies. `via-service` is a connection to the own node's pod by its Service.
pub(super) const OPEN: &str = "
          server-1:8443 server-2:8443 server-2:8443/udp server-1:icmp server-2:icmp svc:443     solo:443    node-1:30443 node-2:30443 node-1:10250 node-2:10250 internet:443
client    yes@client    yes@client    yes@client        yes           yes           via-service via-service yes          yes          yes@client   yes          yes@node-1
other     yes@other     yes@other     yes@other         yes           yes           .           yes@other   yes          yes          yes          yes@other    yes@node-2
server-1  .             yes@server-1  yes@server-1      .             yes           yes         yes         yes          yes          yes          yes          yes@node-1
internet  .             .             .                 .             .             .           .           yes          yes          .            .            .
node-1    yes           yes           yes               yes           yes           yes         yes         .            yes          .            yes          yes@node-1
node-2    yes           yes           yes               yes           yes           yes         yes         yes          .            yes          .            yes@node-2
";

/// Servers are closed but for the clients of one team; clients reach those and, outside, one block
/// but for a hole.
pub(super) const POLICIES: &str = r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: beta}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: servers, namespace: beta}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
  ingress:
    - from:
        - namespaceSelector: {matchLabels: {team: alpha}}
          podSelector: {matchLabels: {app: client}}
        - ipBlock:
            cidr: 203.0.113.50/32
      ports: [{port: 8443}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: clients, namespace: alpha}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
  egress:
    - to:
        - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: beta}}
          podSelector: {matchLabels: {app: server}}
      ports: [{port: 8443}]
    - to:
        - ipBlock:
            cidr: 203.0.113.0/24
            except:
              - 203.0.113.60/32
      ports: [{port: 443}]
"#;

/// With them. Node ports: 30444 leads to server-1 and shows it the node instead of the client, 30445
/// leads there and shows the client. `not-service` is a no that without policies is `via-service`.
pub(super) const POLICED: &str = "
          server-1:8443 server-2:8443 server-1:9443 server-2:8443/udp server-2:icmp svc:443     solo:443    node-1:30444 node-2:30444 node-1:30445 node-1:10250 node-2:10250 other:8443   internet:443 elsewhere:443 internet:5978
client    yes@client    yes@client    no            no                no            via-service via-service no           no           .            yes          no           no           yes@node-1   no            no
other     no            no            no            no                no            not-service no          no           no           .            yes          yes          .            yes@node-2   yes           yes
stranger  no            no            no            no                no            not-service no          no           no           .            yes          yes          yes@stranger yes@node-2   yes           yes
server-1  .             no            .             no                no            .           yes         .            no           .            yes          no           no           no           no            no
internet  .             .             .             .                 .             .           .           no           no           yes@internet .            .            .            .            .             .
elsewhere .             .             .             .                 .             .           .           no           no           no           .            .            .            .            .             .
node-1    yes           no            yes           no                no            .           yes         .            .            .            .            yes          yes          yes          yes           yes
node-2    no            yes           no            yes               yes           .           no          .            .            .            yes          .            yes          yes          yes           yes
";
