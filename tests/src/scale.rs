//! Clusters of any size, made by arithmetic: what the benchmarks of the compiler run on.
//!
//! A hundred pods of each namespace-and-application share their labels, as replicas do. Every
//! policy selects an application and allows another, a few blocks with excepts, or DNS.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use np_policy::model::{
    Change, ContainerPort, Device, IpBlock, Namespace, NodeName, Object, Peer, Phase, Pod, PodKey,
    PodUid, Policy, PolicyKey, PortMatch, Ports, Protocol, Requirement, Rule, Selector,
};

use crate::simulation::device;

/// How large a cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    pub pods: usize,
    pub policies: usize,
    /// Pods on the agent's own node.
    pub local: usize,
}

pub const NODE: &str = "node-0";
const PODS_OF_A_NAMESPACE: usize = 500;
const APPS: usize = 10;

impl Scale {
    fn namespaces(&self) -> usize {
        self.pods.div_ceil(PODS_OF_A_NAMESPACE)
    }

    /// All objects, namespaces first.
    pub fn changes(&self) -> Vec<Change> {
        let namespaces = (0..self.namespaces()).map(|n| Object::Namespace(namespace(n)));
        let pods = (0..self.pods).map(|i| Object::Pod(self.pod(i, "v1")));
        let policies = (0..self.policies).map(|i| Object::Policy(self.policy(i)));
        namespaces.chain(pods).chain(policies).map(Change::Apply).collect()
    }

    /// The veths of the local pods.
    pub fn devices(&self) -> Vec<Device> {
        (0..self.pods)
            .map(|i| self.pod(i, "v1"))
            .filter(|pod| pod.node == Some(NodeName(NODE.into())))
            .zip(100..)
            .map(|(pod, ifindex)| device(ifindex, Some(pod.addresses.to_vec())))
            .collect()
    }

    /// Pod `i`; every pod of an application has the same labels, but for the version.
    pub fn pod(&self, i: usize, version: &str) -> Pod {
        let (namespace, app) = (i % self.namespaces(), i / self.namespaces() % APPS);
        // A step without a common factor spreads the local pods over namespaces and applications.
        let node = if i * 7919 % self.pods < self.local { 0 } else { 1 + i % 499 };
        let low = i as u32;
        Pod {
            key: PodKey::new(name_of(namespace), format!("app-{app}-{:08x}-{i:05}", app * 7919)),
            uid: PodUid(format!("{i:08x}-1111-4222-8333-444455556666").into()),
            node: Some(NodeName(format!("node-{node}").into())),
            labels: labels(&[
                ("app", &format!("app-{app}")),
                ("pod-template-hash", &format!("{:08x}", app * 7919)),
                ("version", version),
            ])
            .into(),
            addresses: [
                IpAddr::from(Ipv4Addr::from(0x0a00_0000 + low)),
                IpAddr::from(Ipv6Addr::from((0xfd00_u128 << 112) + u128::from(low))),
            ]
            .into(),
            source_prefixes: None,
            named_ports: vec![ContainerPort {
                name: "http".to_owned(),
                protocol: Protocol::Tcp,
                port: 8080 + (app % 2) as u16,
            }]
            .into(),
            host_network: false,
            phase: Phase::Active,
            terminating: false,
            created: 1_700_000_000,
        }
    }

    fn policy(&self, i: usize) -> Policy {
        let namespaces = self.namespaces();
        let (namespace, app) = (i % namespaces, i / namespaces % APPS);
        let other = (i * 31 + 7) % namespaces;
        let port = |port| PortMatch { protocol: Protocol::Tcp, ports: port };
        let of = |app: usize| selector(&[("app", &format!("app-{app}"))]);
        let ingress = Rule {
            peers: Some(
                [
                    Peer::Pods { namespaces: None, pods: of((app + 1) % APPS) },
                    Peer::Pods {
                        namespaces: Some(selector(&[(
                            "kubernetes.io/metadata.name",
                            &name_of(other),
                        )])),
                        pods: of(i % APPS),
                    },
                ]
                .into(),
            ),
            ports: Some(
                [port(Ports::Named("http".to_owned())), port(Ports::Range(9000, 9100))].into(),
            ),
        };
        let block = IpNet::new(Ipv4Addr::new(203, (i % 250) as u8, 0, 0).into(), 16);
        let except = IpNet::new(Ipv4Addr::new(203, (i % 250) as u8, 7, 0).into(), 24);
        let egress = [
            Rule {
                peers: Some(
                    [Peer::Pods {
                        namespaces: Some(selector(&[("team", &format!("team-{}", i % 20))])),
                        pods: of(i % APPS),
                    }]
                    .into(),
                ),
                ports: Some([port(Ports::Named("http".to_owned()))].into()),
            },
            Rule {
                peers: Some(
                    [Peer::IpBlock(IpBlock {
                        cidr: block.expect("a length that fits"),
                        except: [except.expect("a length that fits")].into(),
                    })]
                    .into(),
                ),
                ports: Some([port(Ports::Range(443, 443))].into()),
            },
        ];
        Policy {
            key: PolicyKey::new(name_of(namespace), format!("policy-{i}")),
            subjects: of(app),
            ingress: Some([ingress].into()),
            egress: (i.is_multiple_of(2)).then(|| egress.into()),
        }
    }
}

fn name_of(namespace: usize) -> String {
    format!("namespace-{namespace}")
}

fn namespace(n: usize) -> Namespace {
    let name = name_of(n);
    let labels =
        labels(&[("kubernetes.io/metadata.name", &name), ("team", &format!("team-{}", n % 20))]);
    Namespace { name, labels }
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn selector(pairs: &[(&str, &str)]) -> Selector {
    pairs.iter().map(|(key, value)| Requirement::equals(*key, *value)).collect()
}
