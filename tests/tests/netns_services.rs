//! Every way by which traffic comes to a pod through kube-proxy's rules: one table without agents and
//! with, then one under policies that name pods, ports of pods, and addresses outside. No policy
//! names a Service's address or port.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use np_tests::address::{Family, twin_manifest};
use np_tests::agent::{Agents, POLICIES};
use np_tests::demo::terminal::Terminal;
use np_tests::matrix::{self, Row};
use np_tests::probe::server::Listen;
use np_tests::probe::{IMPATIENCE, Kind, Outcome, Reply, probe};
use np_tests::proxy::ExternalTrafficPolicy::{Cluster as Everywhere, Local};
use np_tests::proxy::{Mode, Protocol, Service, ServicePort};
use np_tests::story::matrix::Table;
use np_tests::topology::{
    Cluster, Labels, NamespaceSpec, NodeSpec, OutsideSpec, PodSpec, Shape, Spec,
};

fn address(text: &str) -> Ipv4Addr {
    text.parse().expect("a valid address")
}

fn spec() -> Spec {
    let block = |text: &str| text.parse().expect("a valid block");
    let node = |name, ip, pods| NodeSpec { name, address: address(ip), pod_block: block(pods) };
    let pod = |name, node, ip: Option<&str>, app: Labels| PodSpec {
        name,
        namespace: "default",
        node,
        labels: app,
        address: ip.map(address),
        host_ports: if name == "web-1" { &[(8081, 8080)] } else { &[] },
    };
    let service = |name, ip, port: u16, target_port, endpoints| Service {
        name,
        namespace: "default",
        address: address(ip),
        ports: vec![ServicePort {
            name: "port",
            protocol: Protocol::Tcp,
            port,
            target_port,
            node_port: None,
        }],
        external_traffic_policy: Everywhere,
        external: None,
        affinity: false,
        endpoints,
    };
    let outer = |mut service: Service, external, node_port| {
        service.external = Some(address(external));
        for port in &mut service.ports {
            port.node_port = Some(node_port);
        }
        service
    };
    let web = vec!["web-1", "web-2"];
    Spec {
        node_network: block("192.168.64.0/19"),
        router: address("192.168.64.1"),
        pod_range: block("100.68.0.0/14"),
        unmasqueraded: ["100.64.0.0/10", "192.168.0.0/16"].map(block).to_vec(),
        namespaces: vec![NamespaceSpec { name: "default", labels: &[] }],
        nodes: vec![
            node("node-1", "192.168.65.10", "100.68.1.0/24"),
            node("node-2", "192.168.65.11", "100.68.2.0/24"),
        ],
        pods: vec![
            pod("client", "node-1", Some("100.68.1.10"), &[("app", "client")]),
            pod("web-1", "node-1", Some("100.68.1.20"), &[("app", "web")]),
            pod("web-2", "node-2", Some("100.68.2.20"), &[("app", "web")]),
            pod("other", "node-2", Some("100.68.2.30"), &[("app", "other")]),
            pod("on-host", "node-2", None, &[("app", "on-host")]),
        ],
        outside: [("internet", "203.0.113.50"), ("database", "203.0.113.60")]
            .map(|(name, ip)| OutsideSpec { name, address: address(ip) })
            .to_vec(),
        services: vec![
            outer(service("svc", "100.64.5.1", 80, 8080, web.clone()), "198.51.100.1", 30080),
            outer(
                Service {
                    external_traffic_policy: Local,
                    ..service("local", "100.64.5.2", 80, 8080, vec!["web-2"])
                },
                "198.51.100.2",
                30081,
            ),
            Service { affinity: true, ..service("sticky", "100.64.5.3", 80, 8080, web) },
            service("mixed", "100.64.5.4", 80, 8080, vec!["web-1", "other"]),
            service("db", "100.64.5.5", 3306, 5432, vec!["database"]),
            service("host", "100.64.5.6", 443, 10250, vec!["on-host"]),
            service("self", "100.64.5.7", 80, 8080, vec!["client"]),
        ],
        pod_ports: Listen { tcp: &[8080, 9090], udp: &[], dns: false },
        node_ports: Listen { tcp: &[10250], udp: &[], dns: false },
        outside_ports: Listen { tcp: &[443, 5432], udp: &[], dns: false },
        shape: Shape::PTP,
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

fn check(cluster: &Cluster, when: &str, table: &str, families: &[Family]) -> Result<()> {
    let table = Table::parse(table)?;
    table.check(&cluster.spec)?;
    let matrix = table.play(cluster, families)?;
    println!("{}: {when}: {} cells", cluster.proxy, matrix.probed());
    let shown = Terminal { colour: false }.matrix(&matrix);
    ensure!(matrix.differing() == 0, "{}: {when}:\n{shown}", cluster.proxy);
    Ok(())
}

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

fn every_way(proxy: Mode) -> Result<()> {
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
        let rules = if family == Family::V4 { RULES.to_owned() } else { twin_manifest(RULES) };
        agents.apply(POLICIES, Some(&rules))?;
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

#[test]
fn every_way_to_a_pod_is_judged_behind_iptables() -> Result<()> {
    every_way(Mode::Iptables)
}

#[test]
fn every_way_to_a_pod_is_judged_behind_nftables() -> Result<()> {
    every_way(Mode::Nftables)
}
