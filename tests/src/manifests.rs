//! The cluster's objects as the manifests an agent reads: Nodes, Namespaces, Pods.

use std::fmt::Write;

use crate::address::{Family, twin_block};
use crate::topology::{NamespaceSpec, PodSpec, Spec};

/// The files of the cluster, by name.
pub fn files(spec: &Spec) -> Vec<(&'static str, String)> {
    vec![
        ("nodes.yaml", nodes(spec)),
        (NAMESPACES, namespaces(&spec.namespaces, &[])),
        ("pods.yaml", pods(spec)),
    ]
}

/// The file that holds the Namespaces.
pub const NAMESPACES: &str = "namespaces.yaml";

/// A label taken off a Namespace: its name and the label's key.
pub type Unlabel = (&'static str, &'static str);

/// The Namespaces, each with the label the API server adds, without some of their own.
pub fn namespaces(namespaces: &[NamespaceSpec], without: &[Unlabel]) -> String {
    let mut out = String::new();
    for NamespaceSpec { name, labels } in namespaces {
        out += &format!(
            "---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels:\n    kubernetes.io/metadata.name: {name}\n"
        );
        for (key, value) in labels.iter().filter(|(key, _)| !without.contains(&(name, key))) {
            put(&mut out, format_args!("    {key}: {value}"));
        }
    }
    out
}

fn nodes(spec: &Spec) -> String {
    let mut out = String::new();
    for node in &spec.nodes {
        let block6 = twin_block(node.pod_block);
        out += &format!(
            "---\napiVersion: v1\nkind: Node\nmetadata:\n  name: {}\nspec:\n  podCIDR: {block}\n  podCIDRs:\n    - {block}\n    - {block6}\nstatus:\n  addresses:\n",
            node.name,
            block = node.pod_block,
        );
        for family in Family::BOTH {
            put(
                &mut out,
                format_args!(
                    "    - type: InternalIP\n      address: {}",
                    family.address(node.address)
                ),
            );
        }
        put(&mut out, format_args!("    - type: Hostname\n      address: {}", node.name));
    }
    out
}

fn pods(spec: &Spec) -> String {
    let mut out = String::new();
    for pod in &spec.pods {
        let PodSpec { name, namespace, node, labels, address, host_ports } = pod;
        out += &format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}\n"
        );
        if !labels.is_empty() {
            out += "  labels:\n";
            for (key, value) in *labels {
                put(&mut out, format_args!("    {key}: {value}"));
            }
        }
        out += &format!("spec:\n  nodeName: {node}\n");
        if address.is_none() {
            out += "  hostNetwork: true\n";
        }
        out += "  containers:\n    - name: main\n      image: example.org/main:1\n";
        if !host_ports.is_empty() {
            out += "      ports:\n";
            for (host_port, port) in *host_ports {
                put(
                    &mut out,
                    format_args!(
                        "        - containerPort: {port}\n          hostPort: {host_port}\n          protocol: TCP"
                    ),
                );
            }
        }
        out += "status:\n  phase: Running\n";
        if let Some(address) = spec.address(name) {
            let [v4, v6] = Family::BOTH.map(|family| family.address(address));
            out += &format!("  podIP: {v4}\n  podIPs:\n    - ip: {v4}\n    - ip: \"{v6}\"\n");
        }
    }
    out
}

/// Appends one line. Writing to a string cannot fail.
fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(out, "{line}").expect("a string takes every write");
}
