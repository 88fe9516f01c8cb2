//! What stands around the policies: read for advice about them, never to enforce them.
//!
//! Policies are judged on pods' addresses and ports, after service DNAT. Services, workloads and
//! the wording of a manifest decide no verdict; they tell what its author probably meant.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::ids::{PodKey, PolicyKey};
use super::policy::Protocol;

/// What the manifests say besides the objects that are enforced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Background {
    pub services: Vec<Service>,
    /// Ranges that Services get their addresses from: `spec.cidrs` of ServiceCIDR objects.
    pub service_ranges: Vec<IpNet>,
    pub workloads: Vec<Workload>,
    /// Container ports without a name, which no policy can refer to but by number.
    pub unnamed_ports: BTreeMap<PodKey, Vec<DeclaredPort>>,
    pub policies: BTreeMap<PolicyKey, Written>,
    /// Of Services, those without a selector above all.
    pub endpoints: Vec<Endpoints>,
}

/// Addresses behind a Service: an Endpoints object, or an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    pub namespace: String,
    pub service: String,
    pub addresses: Vec<IpAddr>,
    pub ports: Vec<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub namespace: String,
    pub name: String,
    /// Empty for headless ones.
    pub addresses: Vec<IpAddr>,
    /// None when it has none: somebody else says who its endpoints are.
    pub selector: Option<BTreeMap<String, String>>,
    pub ports: Vec<ServicePort>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub name: Option<String>,
    pub protocol: Protocol,
    pub port: u16,
    pub target: TargetPort,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    Number(u16),
    Named(String),
}

/// A template of pods: what a Deployment, StatefulSet, DaemonSet, ReplicaSet, Job or CronJob makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
    pub ports: Vec<DeclaredPort>,
    pub host_network: bool,
}

/// One of `containers[*].ports[*]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeclaredPort {
    pub name: Option<String>,
    pub protocol: Protocol,
    pub port: u16,
}

/// How a policy stands in its manifest: what defaults and sorting take away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub file: PathBuf,
    /// Where the object names itself.
    pub place: (u32, u32),
    /// Line and column of each field; empty when nobody asked for them.
    pub places: BTreeMap<String, (u32, u32)>,
    /// `policyTypes` is there and names a type.
    pub policy_types: bool,
    /// None when the list is absent, else how many rules it has.
    pub ingress: Option<usize>,
    pub egress: Option<usize>,
    /// Requirements that their selector has already, by field.
    pub repeated: Vec<String>,
}

impl fmt::Display for TargetPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TargetPort::Number(number) => number.fmt(f),
            TargetPort::Named(name) => f.write_str(name),
        }
    }
}

impl Background {
    /// Adds what another file says. Of two manifests of one object the first counts.
    pub fn merge(&mut self, other: Background) {
        let Background { services, service_ranges, workloads, unnamed_ports, policies, endpoints } =
            other;
        self.services.extend(services);
        self.endpoints.extend(endpoints);
        self.service_ranges.extend(service_ranges);
        self.workloads.extend(workloads);
        for (key, ports) in unnamed_ports {
            self.unnamed_ports.entry(key).or_insert(ports);
        }
        for (key, written) in policies {
            self.policies.entry(key).or_insert(written);
        }
    }

    /// Drops what is only needed to point into a file, and what nothing can be compared with.
    pub fn condense(&mut self) {
        for written in self.policies.values_mut() {
            written.places.clear();
        }
        if self.services.is_empty() {
            self.unnamed_ports.clear();
        }
    }
}

impl Written {
    /// Where a field stands, or what is nearest above it when the field itself is not there.
    pub fn place(&self, field: &str) -> (u32, u32) {
        let mut path = field;
        loop {
            if let Some(place) = self.places.get(path) {
                return *place;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return self.place,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_is_not_there_is_looked_for_above() {
        let places = [("spec", (3, 1)), ("spec.ingress[0]", (5, 7))];
        let places = places.map(|(path, place)| (path.to_owned(), place));
        let written = Written { place: (2, 9), places: places.into(), ..Written::default() };
        assert_eq!(written.place("spec.ingress[0].from[1].ipBlock"), (5, 7));
        assert_eq!(written.place("spec.policyTypes"), (3, 1));
        assert_eq!(written.place("metadata"), (2, 9));
    }
}
