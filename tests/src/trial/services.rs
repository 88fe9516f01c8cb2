//! Every way by which traffic comes to a pod through kube-proxy's rules: one table without agents and
//! with, then one under policies that name pods, ports of pods, and addresses outside. No policy
//! names a Service's address or port.

use std::collections::BTreeSet;

use super::check;
use crate::address::Family;
use crate::agent::{Agents, POLICIES};
use crate::matrix::{self, Row};
use crate::probe::server::Listen;
use crate::probe::{IMPATIENCE, Kind, Outcome, Reply, probe};
use crate::proxy::ExternalTrafficPolicy::Local;
use crate::proxy::{Mode, Service};
use crate::topology::plan::{address, pod, two_nodes};
use crate::topology::{Cluster, OutsideSpec, PodSpec, Spec};
use anyhow::{Result, ensure};

fn spec() -> Spec {
    let service = |name, ip, ports, endpoints: &[&'static str]| {
        Service::new(name, "default", address(ip), ports, endpoints)
    };
    let outer = |service: Service, external, node_port| {
        let service = service.with_node_port(node_port);
        Service { external: Some(address(external)), ..service }
    };
    let web = ["web-1", "web-2"];
    let pods = vec![
        pod("client", "node-1", "100.68.1.10", &[("app", "client")]),
        PodSpec {
            host_ports: &[(8081, 8080)],
            ..pod("web-1", "node-1", "100.68.1.20", &[("app", "web")])
        },
        pod("web-2", "node-2", "100.68.2.20", &[("app", "web")]),
        pod("other", "node-2", "100.68.2.30", &[("app", "other")]),
        PodSpec {
            address: None,
            ..pod("on-host", "node-2", "192.168.65.11", &[("app", "on-host")])
        },
    ];
    Spec {
        outside: [("internet", "203.0.113.50"), ("database", "203.0.113.60")]
            .map(|(name, ip)| OutsideSpec { name, address: address(ip) })
            .to_vec(),
        services: vec![
            outer(service("svc", "100.64.5.1", (80, 8080), &web), "198.51.100.1", 30080),
            outer(
                Service {
                    external_traffic_policy: Local,
                    ..service("local", "100.64.5.2", (80, 8080), &["web-2"])
                },
                "198.51.100.2",
                30081,
            ),
            Service { affinity: true, ..service("sticky", "100.64.5.3", (80, 8080), &web) },
            service("mixed", "100.64.5.4", (80, 8080), &["web-1", "other"]),
            service("db", "100.64.5.5", (3306, 5432), &["database"]),
            service("host", "100.64.5.6", (443, 10250), &["on-host"]),
            service("self", "100.64.5.7", (80, 8080), &["client"]),
        ],
        pod_ports: Listen { tcp: &[8080, 9090], udp: &[], dns: false },
        node_ports: Listen { tcp: &[10250], udp: &[], dns: false },
        outside_ports: Listen { tcp: &[443, 5432], udp: &[], dns: false },
        ..two_nodes(pods)
    }
}

const RULES: &str = r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: client, namespace: default}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Ingress, Egress]
  egress:
    - to: [{podSelector: {matchLabels: {app: web}}}]
      ports: [{port: 8080}]
    - to: [{ipBlock: {cidr: 203.0.113.60/32}}]
      ports: [{port: 5432}]
    - to: [{ipBlock: {cidr: 192.168.65.11/32}}]
      ports: [{port: 10250}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: default}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress]
  ingress:
    - from:
        - podSelector: {matchLabels: {app: client}}
        - ipBlock: {cidr: 203.0.113.50/32}
      ports: [{port: 8080}]
"#;

/// Headless Services lead to the pods' own addresses: the first three columns.
const OPEN: &str = "
           web-1:8080   web-2:8080   web-2:9090  svc:80      svc/external:80 local/external:80 node-1:30080 node-2:30081 node-1:8081  sticky:80   db:3306      host:443    self:80    internet:443 node-1:10250 node-2:10250
client     yes@client   yes@client   yes@client  yes@client  yes             yes@client        yes          yes@client   yes          yes@client  yes@node-1   yes@client  yes        yes@node-1   yes@client   yes@client
other      yes@other    yes@other    yes@other   yes@other   yes             yes@other         yes          yes@other    yes@other    yes@other   yes@node-2   yes         yes@other  yes@node-2   yes@other    yes@other
internet   .            .            .           .           yes             yes@internet      yes          yes@internet yes@internet .           .            .           .          .            .            .
database   .            .            .           .           yes             yes@database      yes          yes@database yes@database .           .            .           .          .            .            .
node-1     yes          yes          yes         yes         .               .                 .            .            .            yes         yes          yes         yes        yes@node-1   .            yes
node-2     yes          yes          yes         yes         .               .                 .            .            .            yes         yes          yes         yes        yes@node-2   yes          .
";

/// Who comes masqueraded (a Cluster external traffic policy, host ports from the own node) is the
/// node to the pod, and no rule names nodes. Node and external addresses are judged by the pod that
/// is behind them where this node is the one that translates them.
const POLICED: &str = "
           web-1:8080   web-2:8080   web-2:9090  svc:80      svc/external:80 local/external:80 node-1:30080 node-2:30081 node-1:8081  sticky:80   db:3306      host:443    self:80    internet:443 node-1:10250 node-2:10250
client     yes@client   yes@client   no          yes@client  no              yes@client        no           no           no           yes@client  yes@node-1   yes@client  yes        no           yes@client   yes@client
other      no           no           no          no          no              no                no           no           no           no          yes@node-2   yes         no         yes@node-2   yes@other    yes@other
internet   .            .            .           .           no              yes@internet      no           yes@internet yes@internet .           .            .           .          .            .            .
database   .            .            .           .           no              no                no           no           no           .           .            .           .          .            .            .
node-1     yes          no           no          .           .               .                 .            .            .            .           yes          yes         yes        yes@node-1   .            yes
node-2     no           yes          yes         .           .               .                 .            .            .            .           yes          yes         no         yes@node-2   yes          .
";

/// Who answers the client at a Service, probed so often that each endpoint has its turn.
fn who_answers(cluster: &Cluster, service: &str, family: Family) -> Result<BTreeSet<String>> {
    let (client, to) = (cluster.namespace("client")?, cluster.address(service, family)?);
    let answers = (0..16).map(|_| probe(client, to, Kind::Tcp(80), IMPATIENCE));
    Ok(answers
        .map(|outcome| match outcome {
            Outcome::Reply(Reply { server: Some(server), .. }) => server,
            other => other.to_string(),
        })
        .collect())
}

/// Plays every table and reports the rows of the proxy's mode.
pub fn every_way_is_judged(proxy: Mode) -> Result<()> {
    let rows = [
        "ClusterIP, port other than the pod's, endpoints on both nodes",
        "ClusterIP with an endpoint that is denied: the others answer",
        "headless: the pods' own addresses",
        "NodePort and LoadBalancer or external IP, externalTrafficPolicy Cluster",
        "NodePort and LoadBalancer or external IP, externalTrafficPolicy Local",
        "hostPort (portmap's rules)",
        "session affinity",
        "a Service without selector to an address outside",
        "hostNetwork endpoints",
        "hairpin through the own Service",
        "masquerade to the outside and back",
        "node → own pod, node → other node's pod, pod → own node, pod → other node",
    ]
    .map(|name| matrix::row("Services", format!("{name}, {proxy}")));
    let cluster = Cluster::build(spec(), proxy)?;
    check(&cluster, "no agents", OPEN, &Family::BOTH)?;
    let mut agents = Agents::start(&cluster)?;
    check(&cluster, "agents, no policy", OPEN, &Family::BOTH)?;
    for family in Family::BOTH {
        let both = BTreeSet::from(["web-1", "other"].map(str::to_owned));
        ensure!(who_answers(&cluster, "mixed", family)? == both, "both endpoints take part");
    }
    for family in Family::BOTH {
        agents.apply(POLICIES, Some(&family.manifest(RULES)))?;
        check(&cluster, &format!("policies in {}", family.name()), POLICED, &[family])?;
        let mixed = who_answers(&cluster, "mixed", family)?;
        let allowed = BTreeSet::from(["web-1".to_owned(), Outcome::Timeout.to_string()]);
        ensure!(mixed == allowed, "one endpoint is denied, and only it: {mixed:?}");
        let sticky = who_answers(&cluster, "sticky", family)?;
        ensure!(sticky.len() == 1, "affinity holds: {sticky:?}");
    }
    rows.into_iter().for_each(Row::holds);
    Ok(())
}
