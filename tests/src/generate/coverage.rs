//! What a run of random cases has met: a property that never sees the hard part proves nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::{NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Cluster;
use super::probes::{key, shown};
use crate::oracle::{Conn, End, Protocol, Side, Verdict};

/// What every run must meet.
const WANTED: [&str; 19] = [
    "an address with two owners",
    "between pods of two nodes",
    "both directions isolated",
    "denied by egress",
    "denied by ingress",
    "excepted by one block, covered by another",
    "finished pod's address",
    "from the pod's own node",
    "hostNetwork pod",
    "ICMP echo",
    "in two excepts of one block",
    "IPv6",
    "named port of the destination, other protocol",
    "named port of the destination",
    "namespace without object",
    "NotIn on a missing key",
    "outside the cluster",
    "SCTP",
    "terminating pod",
];

/// How often things were met.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    pub cases: u64,
    pub probes: u64,
    pub allowed: u64,
    met: BTreeMap<&'static str, u64>,
}

/// Counts for one cluster.
#[derive(Debug)]
pub struct Seen<'a> {
    coverage: &'a mut Coverage,
    cluster: &'a Cluster,
    blocks: Vec<Block>,
    named: Vec<(&'a str, &'a str)>,
    not_in: Vec<&'a str>,
}

#[derive(Debug)]
pub struct Block {
    pub cidr: IpNet,
    pub except: Vec<IpNet>,
}

impl Coverage {
    pub fn case<'a>(&'a mut self, cluster: &'a Cluster) -> Seen<'a> {
        self.cases += 1;
        let named = ports(cluster)
            .filter_map(|port| match &port.port {
                Some(IntOrString::String(name)) => {
                    Some((name.as_str(), port.protocol.as_deref().unwrap_or("TCP")))
                }
                _ => None,
            })
            .collect();
        let not_in = peers(cluster)
            .filter_map(|peer| peer.pod_selector.as_ref())
            .flat_map(|selector| selector.match_expressions.iter().flatten())
            .filter(|requirement| requirement.operator == "NotIn")
            .map(|requirement| requirement.key.as_str())
            .collect();
        Seen { blocks: blocks(cluster), coverage: self, cluster, named, not_in }
    }

    /// The share of allowed connections, from 0 to 1.
    pub fn allowed_share(&self) -> f64 {
        self.allowed as f64 / self.probes.max(1) as f64
    }

    /// What a run should have met and has not, at least this often.
    pub fn missed(&self, least: u64) -> Vec<&'static str> {
        let met = |what: &str| self.met.get(what).copied().unwrap_or(0);
        WANTED.into_iter().filter(|what| met(what) < least).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Coverage { cases, probes, allowed: _, met } = self;
        let share = 100.0 * self.allowed_share();
        writeln!(f, "{cases} cases, {probes} connections, {share:.1} % allowed")?;
        met.iter().try_for_each(|(what, count)| writeln!(f, "{count:>9} {what}"))
    }
}

impl Seen<'_> {
    pub fn probe(&mut self, conn: &Conn, verdict: &Verdict) {
        self.coverage.probes += 1;
        self.coverage.allowed += u64::from(verdict.allowed());
        let ends = [&conn.src, &conn.dst];
        let pods = ends.map(|end| self.pod(end));
        let addresses = ends.map(|end| end.address());
        let isolated = [&verdict.egress, &verdict.ingress].map(Side::isolated);
        let nodes = pods.map(|pod| pod?.spec.as_ref()?.node_name.as_deref());
        let named = pods[1].map_or((false, false), |pod| self.named(pod, conn));
        let any_pod = |test: &dyn Fn(&Pod) -> bool| pods.iter().flatten().any(|pod| test(pod));
        let facts = [
            ("an address with two owners", addresses.iter().any(|address| self.shared(address))),
            ("between pods of two nodes", nodes[0].zip(nodes[1]).is_some_and(|(a, b)| a != b)),
            ("both directions isolated", isolated == [true, true]),
            ("denied by egress", !verdict.egress.allows()),
            ("denied by ingress", !verdict.ingress.allows()),
            (
                "excepted by one block, covered by another",
                addresses.iter().any(|address| self.excepted_and_covered(address)),
            ),
            ("finished pod's address", addresses.iter().any(|address| self.finished(address))),
            ("from the pod's own node", verdict.ingress == Side::OwnNode),
            ("hostNetwork pod", any_pod(&host_network)),
            ("ICMP echo", conn.protocol == Protocol::IcmpEcho),
            (
                "in two excepts of one block",
                addresses.iter().any(|address| self.in_two_excepts(address)),
            ),
            ("IPv6", addresses[0].is_ipv6()),
            ("named port of the destination", named.0),
            ("named port of the destination, other protocol", named.1),
            ("namespace without object", any_pod(&|pod| self.homeless(pod))),
            ("NotIn on a missing key", any_pod(&|pod| self.lacks_key(pod))),
            ("outside the cluster", ends.iter().any(|end| matches!(end, End::Address(_)))),
            ("SCTP", conn.protocol == Protocol::Sctp),
            ("terminating pod", any_pod(&|pod| pod.metadata.deletion_timestamp.is_some())),
        ];
        for (what, met) in facts {
            *self.coverage.met.entry(what).or_default() += u64::from(met);
        }
    }

    fn pod(&self, end: &End) -> Option<&Pod> {
        match end {
            End::Pod { pod, .. } => self.cluster.pods.iter().find(|one| key(one) == *pod),
            End::Node { .. } | End::Address(_) => None,
        }
    }

    fn shared(&self, address: &IpAddr) -> bool {
        let owners = self.cluster.pods.iter().filter(|pod| !host_network(pod));
        owners.filter(|pod| shown(pod).any(|own| own == *address)).count() > 1
    }

    fn finished(&self, address: &IpAddr) -> bool {
        self.cluster.pods.iter().any(|pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            matches!(phase, Some("Succeeded" | "Failed")) && shown(pod).any(|own| own == *address)
        })
    }

    fn in_two_excepts(&self, address: &IpAddr) -> bool {
        self.blocks
            .iter()
            .any(|block| block.except.iter().filter(|except| except.contains(address)).count() > 1)
    }

    fn excepted_and_covered(&self, address: &IpAddr) -> bool {
        let excepted = |block: &Block| block.except.iter().any(|except| except.contains(address));
        let blocks = self.blocks.iter().filter(|block| block.cidr.contains(address));
        blocks.clone().any(excepted) && !blocks.clone().all(excepted)
    }

    /// Whether the destination port has a name that some policy uses, with the same protocol and
    /// with another one.
    fn named(&self, pod: &Pod, conn: &Conn) -> (bool, bool) {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let names = containers
            .flat_map(|container| container.ports.iter().flatten())
            .filter(|port| port.container_port == i32::from(conn.port))
            .filter_map(|port| Some((port.name.as_deref()?, port.protocol.as_deref())));
        let uses = names.flat_map(|(name, protocol)| {
            let protocol = protocol.unwrap_or("TCP");
            let same_name = self.named.iter().filter(move |(used, _)| *used == name);
            same_name.map(move |(_, used)| *used == protocol)
        });
        uses.fold((false, false), |(same, other), fits| (same || fits, other || !fits))
    }

    fn homeless(&self, pod: &Pod) -> bool {
        let home = &pod.metadata.namespace;
        !self.cluster.namespaces.iter().any(|namespace| namespace.metadata.name == *home)
    }

    fn lacks_key(&self, pod: &Pod) -> bool {
        let labels = pod.metadata.labels.as_ref();
        self.not_in.iter().any(|key| labels.is_none_or(|labels| !labels.contains_key(*key)))
    }
}

fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true)
}

/// All blocks of all policies.
pub fn blocks(cluster: &Cluster) -> Vec<Block> {
    let net = |text: &str| text.parse::<IpNet>().ok().map(|net| net.trunc());
    peers(cluster)
        .filter_map(|peer| peer.ip_block.as_ref())
        .filter_map(|block| {
            let except = block.except.iter().flatten().filter_map(|except| net(except)).collect();
            Some(Block { cidr: net(&block.cidr)?, except })
        })
        .collect()
}

fn peers(cluster: &Cluster) -> impl Iterator<Item = &NetworkPolicyPeer> {
    let specs = cluster.policies.iter().filter_map(|policy| policy.spec.as_ref());
    specs.flat_map(|spec| {
        let ingress = spec.ingress.iter().flatten().flat_map(|rule| rule.from.iter().flatten());
        ingress.chain(spec.egress.iter().flatten().flat_map(|rule| rule.to.iter().flatten()))
    })
}

fn ports(cluster: &Cluster) -> impl Iterator<Item = &NetworkPolicyPort> {
    let specs = cluster.policies.iter().filter_map(|policy| policy.spec.as_ref());
    specs.flat_map(|spec| {
        let ingress = spec.ingress.iter().flatten().flat_map(|rule| rule.ports.iter().flatten());
        ingress.chain(spec.egress.iter().flatten().flat_map(|rule| rule.ports.iter().flatten()))
    })
}
