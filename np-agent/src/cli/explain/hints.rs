//! What to say about an end beside the verdict: that an address is a Service's, that a node's
//! address proves nothing, that a namespace has no object.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::net::IpAddr;

use super::Asked;
use crate::explain::{End, EndError, Explain, Judgement, Probe, Standing};
use crate::model::{Pod, Service};

pub struct Hints {
    services: Vec<Service>,
    /// Which Service has an address: asked for every probe that leaves the cluster.
    by_address: OnceCell<HashMap<IpAddr, usize>>,
}

impl Hints {
    pub fn new(services: Vec<Service>) -> Self {
        Self { services, by_address: OnceCell::new() }
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
                Some(service) => anyhow::anyhow!(behind(service, key, explain)),
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
        Some(behind(service, &address.to_string(), explain))
    }

    pub fn notes(
        &self,
        probe: &Probe<'_>,
        judgement: &Judgement<'_>,
        explain: &Explain<'_>,
    ) -> Vec<String> {
        let mut notes = Vec::new();
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
}

fn selects(service: &Service, pod: &Pod) -> bool {
    *pod.key.namespace == *service.namespace
        && service.selector.as_ref().is_some_and(|selector| {
            selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
        })
}

fn behind(service: &Service, named: &str, explain: &Explain<'_>) -> String {
    const MOST: usize = 5;
    let Service { namespace, name, ports, .. } = service;
    let pods: Vec<String> = explain
        .index()
        .pods()
        .filter(|pod| pod.enforceable() && selects(service, pod))
        .map(|pod| pod.key.to_string())
        .collect();
    let pods = match pods.len() {
        0 => "none is known here".to_owned(),
        n if n <= MOST => pods.join(", "),
        n => format!("{} and {} more", pods[..MOST].join(", "), n - MOST),
    };
    let ports: Vec<String> =
        ports.iter().map(|port| format!("{} for {}", port.target, port.port)).collect();
    format!(
        "{named} is Service {namespace}/{name}: policy is judged after DNAT, never on a Service's \
         address or port; give a pod behind it ({pods}) and its targetPort ({})",
        if ports.is_empty() { "none is given".to_owned() } else { ports.join(", ") }
    )
}

/// Where clusters take their Services' addresses from.
fn private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private(),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}
