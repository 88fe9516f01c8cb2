//! What to say about an end besides the verdict: that an address is a Service's, that a node's
//! address proves nothing, that an address may be a node's without its object saying so, that a
//! namespace has no object.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::net::IpAddr;

use super::Asked;
use np_policy::explain::{End, EndError, Explain, Family, Judgement, Probe, Standing};
use np_policy::model::{Endpoints, Pod, Service};

pub struct Hints {
    services: Vec<Service>,
    endpoints: Vec<Endpoints>,
    /// Which Service has an address: asked for every probe that leaves the cluster.
    by_address: OnceCell<HashMap<IpAddr, usize>>,
}

impl Hints {
    pub fn new(services: Vec<Service>, endpoints: Vec<Endpoints>) -> Self {
        Self { services, endpoints, by_address: OnceCell::new() }
    }

    /// The error, with what the name is if it is no pod's.
    pub fn explained(
        &self,
        error: EndError,
        asked: &Asked<'_>,
        explain: &Explain<'_>,
    ) -> anyhow::Error {
        let named = |key: &str| {
            self.services
                .iter()
                .find(|service| format!("{}/{}", service.namespace, service.name) == key)
        };
        match &error {
            EndError::UnknownPod(key) => match named(key) {
                Some(service) => anyhow::anyhow!(self.behind(service, key, explain)),
                None => error.into(),
            },
            _ => anyhow::Error::from(error)
                .context(format!("--from {} --to {}", asked.from, asked.to)),
        }
    }

    /// Why a destination cannot be judged: packets to a Service's address never leave a node.
    pub fn service(&self, probe: &Probe<'_>, explain: &Explain<'_>) -> Option<String> {
        let End::Outside(address) = probe.to else { return None };
        let by_address = self.by_address.get_or_init(|| {
            let numbered = self.services.iter().enumerate();
            numbered
                .flat_map(|(number, service)| service.addresses.iter().map(move |a| (*a, number)))
                .collect()
        });
        let service = self.services.get(*by_address.get(&address)?)?;
        Some(self.behind(service, &address.to_string(), explain))
    }

    pub fn notes(
        &self,
        probe: &Probe<'_>,
        judgement: &Judgement<'_>,
        explain: &Explain<'_>,
    ) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(unless) = explain.unless(probe, judgement) {
            notes.push(format!(
                "{} may be an address of node {} that its object does not name, such as a bridge's \
                 or the one that a node-local DNS cache listens on. A pod and its own node always \
                 reach each other: for that, give node:{} instead.",
                unless.address, unless.node, unless.node
            ));
        }
        notes.extend(overlay(probe, judgement, explain));
        if let End::Outside(address) = probe.to
            && private(address)
            && self.service(probe, explain).is_none()
        {
            notes.push(format!(
                "{address} is no pod's and no node's here. If it is a Service's: policy is judged \
                 after DNAT, so give a pod behind it and its targetPort."
            ));
        }
        if let End::Outside(address) = probe.from
            && let Some(node) = explain.node_of(address)
        {
            notes.push(format!(
                "{address} is node {node}'s. This is judged as traffic that bears the address, \
                 such as a masqueraded client; for what the node itself sends give node:{node}."
            ));
        }
        for (side, other) in [(&judgement.egress, probe.to), (&judgement.ingress, probe.from)] {
            if let (Standing::Denied, End::Pod { subject, .. }) = (side.standing, other)
                && explain.index().namespace(&subject.pod.key.namespace).is_none()
            {
                let namespace = &subject.pod.key.namespace;
                notes.push(format!(
                    "Namespace {namespace} has no object here: no namespaceSelector matches its \
                     pods."
                ));
            }
            if let (Standing::Denied, End::Node { pod: Some(pod), .. }) = (side.standing, other) {
                notes.push(format!(
                    "{} has hostNetwork: it is its node to policy, and no podSelector or \
                     namespaceSelector matches it.",
                    pod.key
                ));
            }
        }
        notes
    }

    fn behind(&self, service: &Service, named: &str, explain: &Explain<'_>) -> String {
        let Service { namespace, name, ports, selector, .. } = service;
        let head = format!(
            "{named} is Service {namespace}/{name}: policy is judged after DNAT, never on a Service's \
             address or port; "
        );
        if selector.is_none() {
            return head + &self.endpoints_of(service);
        }
        let pods: Vec<String> = explain
            .index()
            .pods()
            .filter(|pod| pod.enforceable() && selects(service, pod))
            .map(|pod| pod.key.to_string())
            .collect();
        let pods = some(&pods).unwrap_or_else(|| "none is known here".to_owned());
        let ports: Vec<String> =
            ports.iter().map(|port| format!("{} for {}", port.target, port.port)).collect();
        let ports = if ports.is_empty() { "none is given".to_owned() } else { ports.join(", ") };
        format!("{head}give a pod behind it ({pods}) and its targetPort ({ports})")
    }

    /// What to give for a Service whose endpoints are not pods that it selects.
    fn endpoints_of(&self, service: &Service) -> String {
        let own = self.endpoints.iter().filter(|endpoints| {
            (&endpoints.namespace, &endpoints.service) == (&service.namespace, &service.name)
        });
        let (mut addresses, mut ports) = (Vec::<IpAddr>::new(), Vec::<u16>::new());
        for endpoints in own {
            addresses.extend(&endpoints.addresses);
            ports.extend(&endpoints.ports);
        }
        addresses.sort_unstable();
        addresses.dedup();
        ports.sort_unstable();
        ports.dedup();
        let shown = |items: Vec<String>| some(&items);
        let addresses = shown(addresses.iter().map(ToString::to_string).collect());
        let ports = shown(ports.iter().map(ToString::to_string).collect());
        match addresses {
            Some(addresses) => format!(
                "it has no selector: give the address of an endpoint ({addresses}) and its port ({})",
                ports.unwrap_or_else(|| "none is given".to_owned())
            ),
            None => "it has no selector: give the address and the port of one of its endpoints, \
                     which `kubectl get endpoints,endpointslices` shows, also as a manifest to put here"
                .to_owned(),
        }
    }
}

/// As many as a reader takes in; none when there are none.
fn some(items: &[String]) -> Option<String> {
    const MOST: usize = 5;
    match items.len() {
        0 => None,
        n if n <= MOST => Some(items.join(", ")),
        n => Some(format!("{} and {} more", items[..MOST].join(", "), n - MOST)),
    }
}

/// What a node's traffic to a pod of another node looks like there when it went through a tunnel.
fn overlay(probe: &Probe<'_>, judgement: &Judgement<'_>, explain: &Explain<'_>) -> Option<String> {
    let End::Pod { subject, .. } = probe.to else { return None };
    match probe.from {
        End::Node { node: Some(node), .. } if subject.pod.node.as_ref() != Some(node) => {
            let family = Family::of(probe.to.address());
            let first = explain.overlay_address(node, family)?;
            let tunnelled = Probe { from: End::Outside(first), ..*probe };
            let other = explain.judge(&tunnelled);
            let too = if other.allowed == judgement.allowed { " too" } else { "" };
            Some(format!(
                "Through an overlay (VXLAN, IP-in-IP, WireGuard) node {node} sends from the address \
                 of its tunnel device; flannel gives that one the first of the node's podCIDR, \
                 {first}. Judged by it, the verdict is {}{too}.",
                other.verdict().to_uppercase()
            ))
        }
        End::Outside(address) => {
            let node = explain.overlay_node(address)?;
            Some(format!(
                "{address} is the first address of node {node}'s podCIDR: through an overlay, such \
                 as flannel's, it is what node {node} itself sends from."
            ))
        }
        _ => None,
    }
}

fn selects(service: &Service, pod: &Pod) -> bool {
    *pod.key.namespace == *service.namespace
        && service.selector.as_ref().is_some_and(|selector| {
            selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
        })
}

/// Where clusters take their Services' addresses from.
fn private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private(),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}
