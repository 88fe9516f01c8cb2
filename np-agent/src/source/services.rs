//! Services, for messages only: whoever asks about a Service's address is told which pods and
//! ports to ask about instead. No verdict rests on them, so what cannot be read is left out.

use std::net::IpAddr;
use std::path::Path;

use super::tree::{self, Node, Value};
use super::{documents, scan};

/// A Service as a user has to know it to name what is behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub namespace: String,
    pub name: String,
    /// `spec.clusterIPs`, `spec.clusterIP`, `spec.externalIPs`, and a load balancer's addresses.
    pub addresses: Vec<IpAddr>,
    pub selector: Vec<(String, String)>,
    /// Port and target port, as written.
    pub ports: Vec<(String, String)>,
}

/// Every Service in a directory of manifests.
pub fn services(dir: &Path) -> Vec<Service> {
    let mut services = Vec::new();
    for file in scan::scan(dir).files {
        let Ok(Some(bytes)) = scan::read(&file) else { continue };
        for document in documents::split(&bytes) {
            let Ok(text) = std::str::from_utf8(document.bytes) else { continue };
            // Most files have none, and a tree takes time.
            if !text.contains("Service") {
                continue;
            }
            if let Ok(node) = tree::parse(text) {
                collect(&node, text, &mut services);
            }
        }
    }
    services
}

fn collect(node: &Node, text: &str, services: &mut Vec<Service>) {
    match field(node, "kind").and_then(plain) {
        Some("Service") => services.extend(service(node, text)),
        Some("List" | "ServiceList") => {
            for item in items(field(node, "items")) {
                collect(item, text, services);
            }
        }
        _ => {}
    }
}

fn service(node: &Node, text: &str) -> Option<Service> {
    let metadata = field(node, "metadata")?;
    let spec = field(node, "spec")?;
    let shown = |node: &Node| match &node.value {
        Value::Text(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Number | Value::List(_) | Value::Map(_) => {
            text.get(node.bytes.0..node.bytes.1).map(|text| text.trim().to_owned())
        }
    };
    // A headless Service has "None" here.
    let mut addresses: Vec<IpAddr> =
        field(spec, "clusterIP").and_then(address).into_iter().collect();
    for list in ["clusterIPs", "externalIPs"] {
        addresses.extend(items(field(spec, list)).iter().filter_map(address));
    }
    let balancer = field(node, "status").and_then(|status| field(status, "loadBalancer"));
    let ingress = balancer.and_then(|balancer| field(balancer, "ingress"));
    addresses.extend(items(ingress).iter().filter_map(|one| field(one, "ip")).filter_map(address));
    addresses.sort_unstable();
    addresses.dedup();
    let selector = match field(spec, "selector").map(|node| &node.value) {
        Some(Value::Map(entries)) => entries
            .iter()
            .filter_map(|entry| Some((entry.key.clone(), shown(&entry.value)?)))
            .collect(),
        _ => Vec::new(),
    };
    let ports = items(field(spec, "ports")).iter().filter_map(|port| {
        let number = field(port, "port").and_then(shown)?;
        let target = field(port, "targetPort").and_then(shown).unwrap_or_else(|| number.clone());
        Some((number, target))
    });
    Some(Service {
        namespace: field(metadata, "namespace").and_then(plain).unwrap_or("default").to_owned(),
        name: field(metadata, "name").and_then(plain)?.to_owned(),
        addresses,
        selector,
        ports: ports.collect(),
    })
}

fn field<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
}

fn items(node: Option<&Node>) -> &[Node] {
    match node.map(|node| &node.value) {
        Some(Value::List(items)) => items,
        _ => &[],
    }
}

fn plain(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

fn address(node: &Node) -> Option<IpAddr> {
    plain(node)?.parse().ok()
}
