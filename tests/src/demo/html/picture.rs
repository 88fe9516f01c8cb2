//! The topology as an SVG picture: the fabric, the nodes below it with their pods, the outside
//! above.

use std::fmt::Write;

use crate::topology::Spec;

const NODE_WIDTH: usize = 372;
const GAP: usize = 20;
const POD_HEIGHT: usize = 36;
const OUTSIDE_TOP: usize = 20;
const FABRIC_TOP: usize = 108;
const NODE_TOP: usize = 196;

/// Draws the cluster.
pub(super) fn svg(spec: &Spec) -> String {
    let width = spec.nodes.len() * (NODE_WIDTH + GAP) - GAP;
    let rows = |node: &str| spec.pods.iter().filter(|pod| pod.node == node).count().div_ceil(2);
    let deepest = spec.nodes.iter().map(|node| rows(node.name)).max().unwrap_or(0);
    let node_height = 54 + deepest * (POD_HEIGHT + 6) + 6;
    let height = NODE_TOP + node_height + 2;
    let mut out = format!(
        "<svg viewBox=\"-1 0 {} {height}\" role=\"img\" aria-label=\"Three nodes on a routed fabric, pods on the nodes, hosts outside\">\n",
        width + 2
    );
    let middle = width / 2;
    let hosts: Vec<String> = spec
        .outside
        .iter()
        .map(|host| match host.name.starts_with(|c: char| c.is_ascii_digit()) {
            true => host.name.to_string(),
            false => format!("{} {}", host.name, host.address),
        })
        .collect();
    line(&mut out, middle, OUTSIDE_TOP + 52, middle, FABRIC_TOP);
    frame(&mut out, "pod", 0, OUTSIDE_TOP, width, 52);
    text(&mut out, "name", 14, OUTSIDE_TOP + 21, "outside");
    text(&mut out, "sub", 14, OUTSIDE_TOP + 39, &hosts.join(" · "));
    frame(&mut out, "node", 0, FABRIC_TOP, width, 40);
    text(&mut out, "name", 14, FABRIC_TOP + 24, "fabric");
    let routes = format!(
        "router {} in {}, routes every pod block to its node, translates nothing",
        spec.router, spec.node_network
    );
    text(&mut out, "sub", 66, FABRIC_TOP + 24, &routes);
    for (index, node) in spec.nodes.iter().enumerate() {
        let left = index * (NODE_WIDTH + GAP);
        line(&mut out, left + NODE_WIDTH / 2, FABRIC_TOP + 40, left + NODE_WIDTH / 2, NODE_TOP);
        frame(&mut out, "node", left, NODE_TOP, NODE_WIDTH, node_height);
        text(&mut out, "name", left + 14, NODE_TOP + 23, node.name);
        let sub = format!("eth0 {} · pods {}", node.address, node.pod_block);
        text(&mut out, "sub", left + 14, NODE_TOP + 41, &sub);
        let pods = spec.pods.iter().filter(|pod| pod.node == node.name);
        for (place, pod) in pods.enumerate() {
            let pod_width = (NODE_WIDTH - 34) / 2;
            let x = left + 14 + place % 2 * (pod_width + 6);
            let y = NODE_TOP + 54 + place / 2 * (POD_HEIGHT + 6);
            frame(&mut out, "pod", x, y, pod_width, POD_HEIGHT);
            text(&mut out, "name", x + 8, y + 15, pod.name);
            text(&mut out, "sub", x + 8, y + 29, pod.namespace);
            let address = match pod.address {
                Some(address) => address.to_string(),
                None => "host's network".into(),
            };
            text(&mut out, "sub end", x + pod_width - 8, y + 29, &address);
        }
    }
    out + "</svg>"
}

fn frame(out: &mut String, class: &str, x: usize, y: usize, width: usize, height: usize) {
    put(
        out,
        format_args!(
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"6\"/>"
        ),
    );
}

fn text(out: &mut String, class: &str, x: usize, y: usize, text: &str) {
    put(out, format_args!("<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{text}</text>"));
}

fn line(out: &mut String, x1: usize, y1: usize, x2: usize, y2: usize) {
    put(
        out,
        format_args!("<line class=\"wire\" x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"/>"),
    );
}

/// Appends one line. Writing to a string cannot fail.
fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(out, "{line}").expect("a string takes every write");
}
