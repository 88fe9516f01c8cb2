//! What policies are held against: pods, workloads, namespaces and Services, in the form in which
//! checks ask for them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::index::Index;
use crate::model::{
    Background, Peer, Policy, Protocol, Requirement, Selector, Service, TargetPort,
};

type Labels = BTreeMap<String, String>;

/// Its value is the namespace's name, in every cluster.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Namespaces that are there in every cluster, whether a manifest says so or not.
const ALWAYS: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

pub(super) struct World<'a> {
    /// Pods by namespace. Replicas, which have equal labels, are one group.
    groups: BTreeMap<&'a str, Pods<'a>>,
    /// Labels by name, also of namespaces without an object, which have at least one.
    namespaces: BTreeMap<&'a str, Cow<'a, Labels>>,
    /// Some Namespace objects are known.
    pub namespaces_known: bool,
    services: BTreeMap<&'a str, Vec<&'a Service>>,
    /// What Services send port 53 to, each once: where DNS servers listen.
    pub dns: Vec<&'a TargetPort>,
    pub service_ranges: &'a [IpNet],
    pub pod_ranges: Vec<IpNet>,
    pub pod_addresses: BTreeSet<IpAddr>,
    /// Policies by namespace.
    policies: BTreeMap<&'a str, Vec<&'a Policy>>,
}

/// The pods of one namespace.
#[derive(Default)]
struct Pods<'a> {
    groups: Vec<Group<'a>>,
    /// Which groups have a label: nearly every selector asks for one.
    by_label: BTreeMap<(&'a str, &'a str), Vec<usize>>,
}

/// Pods, or templates of pods, with the same labels.
pub(super) struct Group<'a> {
    pub labels: &'a Labels,
    /// Some have a network namespace of their own.
    pub own_network: bool,
    pub host_network: bool,
    pub ports: BTreeSet<Port<'a>>,
}

/// A port that containers declare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Port<'a> {
    pub protocol: Protocol,
    pub name: Option<&'a str>,
    pub number: u16,
}

impl<'a> World<'a> {
    pub fn new(index: &'a Index, background: &'a Background) -> Self {
        let mut groups = Groups::default();
        let mut pod_addresses = BTreeSet::new();
        for pod in index.pods() {
            let named = pod.named_ports.iter().map(|port| Port {
                protocol: port.protocol,
                name: Some(&port.name),
                number: port.port,
            });
            let unnamed = background.unnamed_ports.get(&pod.key).into_iter().flatten();
            let unnamed =
                unnamed.map(|port| Port { protocol: port.protocol, name: None, number: port.port });
            let ports = named.chain(unnamed);
            groups.add(&pod.key.namespace, &pod.labels, pod.host_network, ports);
            if pod.enforceable() {
                pod_addresses.extend(&pod.addresses);
            }
        }
        for workload in &background.workloads {
            let ports = workload.ports.iter().map(|port| Port {
                protocol: port.protocol,
                name: port.name.as_deref(),
                number: port.port,
            });
            groups.add(&workload.namespace, &workload.labels, workload.host_network, ports);
        }
        let mut services: BTreeMap<&str, Vec<&Service>> = BTreeMap::new();
        let mut dns: Vec<&TargetPort> = Vec::new();
        for service in &background.services {
            let targets = service.ports.iter().filter(|port| port.port == 53);
            for target in targets.map(|port| &port.target) {
                if !dns.contains(&target) {
                    dns.push(target);
                }
            }
            services.entry(&service.namespace).or_default().push(service);
        }
        let mut policies: BTreeMap<&str, Vec<&Policy>> = BTreeMap::new();
        for policy in index.policies() {
            policies.entry(&policy.key.namespace).or_default().push(policy);
        }
        let groups = groups.finished();
        let mut namespaces: BTreeMap<&str, Cow<'_, Labels>> = index
            .namespaces()
            .map(|namespace| (namespace.name.as_str(), Cow::Borrowed(&namespace.labels)))
            .collect();
        let implied = ALWAYS.into_iter().chain(groups.keys().chain(policies.keys()).copied());
        for name in implied {
            let labels = || Cow::Owned([(NAME_LABEL.to_owned(), name.to_owned())].into());
            namespaces.entry(name).or_insert_with(labels);
        }
        Self {
            groups,
            namespaces,
            namespaces_known: index.namespaces().next().is_some(),
            services,
            dns,
            service_ranges: &background.service_ranges,
            pod_ranges: index.nodes().flat_map(|node| node.pod_cidrs.iter().copied()).collect(),
            pod_addresses,
            policies,
        }
    }

    /// All pods of a namespace.
    pub fn pods(&self, namespace: &str) -> &[Group<'a>] {
        self.groups.get(namespace).map_or(&[], |pods| &pods.groups)
    }

    /// The pods of a namespace that have a label.
    pub fn labelled<'s>(
        &'s self,
        namespace: &str,
        key: &'s str,
        value: &'s str,
    ) -> impl Iterator<Item = &'s Group<'a>> + use<'s, 'a> {
        self.groups.get(namespace).into_iter().flat_map(move |pods| {
            let numbers = pods.by_label.get(&(key, value)).into_iter().flatten();
            numbers.filter_map(|number| pods.groups.get(*number))
        })
    }

    pub fn any_pods(&self) -> bool {
        !self.groups.is_empty()
    }

    /// The pods of a namespace that a selector matches.
    pub fn selected<'s>(
        &'s self,
        namespace: &str,
        selector: &'s Selector,
    ) -> Box<dyn Iterator<Item = &'s Group<'a>> + 's> {
        let matches = |group: &&Group<'_>| selector.matches(group.labels);
        let label = selector.requirements().find_map(|requirement| match requirement {
            Requirement::In(key, values) if values.len() == 1 => Some((key, values.first()?)),
            _ => None,
        });
        match label {
            Some((key, value)) => Box::new(self.labelled(namespace, key, value).filter(matches)),
            None => Box::new(self.pods(namespace).iter().filter(matches)),
        }
    }

    /// The namespaces that a peer of a policy in `own` speaks of.
    pub fn namespaces<'s>(
        &'s self,
        own: &'s str,
        selector: Option<&'s Selector>,
    ) -> Box<dyn Iterator<Item = &'s str> + 's> {
        match selector {
            None => Box::new(std::iter::once(own)),
            Some(selector) => Box::new(
                self.namespaces
                    .iter()
                    .filter(|(_, labels)| selector.matches(labels))
                    .map(|(name, _)| *name),
            ),
        }
    }

    /// The pods that a peer of a policy in `own` names: those with a network of their own.
    pub fn peers<'s>(
        &'s self,
        own: &'s str,
        peer: &'s Peer,
    ) -> Box<dyn Iterator<Item = &'s Group<'a>> + 's> {
        match peer {
            Peer::IpBlock(_) => Box::new(std::iter::empty()),
            Peer::Pods { namespaces, pods } => Box::new(
                self.namespaces(own, namespaces.as_ref())
                    .flat_map(move |namespace| self.selected(namespace, pods))
                    .filter(|group| group.own_network),
            ),
        }
    }

    pub fn every_pod(&self) -> impl Iterator<Item = &Group<'a>> {
        self.groups.values().flat_map(|pods| &pods.groups)
    }

    pub fn services(&self) -> impl Iterator<Item = &'a Service> {
        self.services.values().flatten().copied()
    }

    pub fn services_of(&self, namespace: &str) -> &[&'a Service] {
        self.services.get(namespace).map_or(&[], Vec::as_slice)
    }

    pub fn policies_of(&self, namespace: &str) -> &[&'a Policy] {
        self.policies.get(namespace).map_or(&[], Vec::as_slice)
    }
}

impl<'a> Group<'a> {
    pub fn numbers(&self, protocol: Protocol, name: &str) -> impl Iterator<Item = u16> {
        let named = move |port: &&Port<'a>| port.protocol == protocol && port.name == Some(name);
        self.ports.iter().filter(named).map(|port| port.number)
    }

    pub fn declares(&self, protocol: Protocol, number: u16) -> bool {
        self.ports.iter().any(|port| port.protocol == protocol && port.number == number)
    }
}

#[derive(Default)]
struct Groups<'a> {
    by_labels: BTreeMap<(&'a str, &'a Labels), Group<'a>>,
}

impl<'a> Groups<'a> {
    fn add(
        &mut self,
        namespace: &'a str,
        labels: &'a Labels,
        host_network: bool,
        ports: impl Iterator<Item = Port<'a>>,
    ) {
        let group = self.by_labels.entry((namespace, labels)).or_insert_with(|| Group {
            labels,
            own_network: false,
            host_network: false,
            ports: BTreeSet::new(),
        });
        group.own_network |= !host_network;
        group.host_network |= host_network;
        group.ports.extend(ports);
    }

    fn finished(self) -> BTreeMap<&'a str, Pods<'a>> {
        let mut all: BTreeMap<&str, Pods<'_>> = BTreeMap::new();
        for ((namespace, labels), group) in self.by_labels {
            let Pods { groups, by_label } = all.entry(namespace).or_default();
            for (key, value) in labels {
                by_label.entry((key, value)).or_default().push(groups.len());
            }
            groups.push(group);
        }
        all
    }
}
