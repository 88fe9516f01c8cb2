//! The rules on a node that are not kube-proxy's: host ports as the portmap plugin writes them,
//! and the masquerading of pods towards the internet as ip-masq-agent writes it.

use std::fmt::Write;

use super::hash;
use crate::address::Family;
use crate::topology::{NodeSpec, Spec};

pub(super) fn rules(spec: &Spec, node: &NodeSpec, family: Family) -> String {
    let mut chains = String::from(
        "*nat\n:CNI-HOSTPORT-DNAT - [0:0]\n:CNI-HOSTPORT-MASQ - [0:0]\n:CNI-HOSTPORT-SETMARK - [0:0]\n:IP-MASQ - [0:0]\n",
    );
    let mut rules = String::from(
        "-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT\n\
         -A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT\n\
         -A POSTROUTING -m comment --comment \"CNI portfwd requiring masquerade\" -j CNI-HOSTPORT-MASQ\n\
         -A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE\n\
         -A CNI-HOSTPORT-SETMARK -m comment --comment \"CNI portfwd masquerade mark\" -j MARK --set-xmark 0x2000/0x2000\n",
    );
    let localhost = match family {
        Family::V4 => "127.0.0.1/32",
        Family::V6 => "::1/128",
    };
    for pod in spec.pods.iter().filter(|pod| pod.node == node.name) {
        let Some(address) = pod.address else { continue };
        for (host_port, port) in pod.host_ports {
            let chain =
                format!("CNI-DN-{}", hash(&format!("{}{host_port}", pod.name)).to_lowercase());
            let target = std::net::SocketAddr::new(family.address(address), *port);
            writeln!(chains, ":{chain} - [0:0]").expect("a string takes every write");
            rules += &format!(
                "-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment \"dnat name: \\\"ptp\\\" id: \\\"{}\\\"\" -m multiport --dports {host_port} -j {chain}\n\
                 -A {chain} -s {} -p tcp -m tcp --dport {host_port} -j CNI-HOSTPORT-SETMARK\n\
                 -A {chain} -s {localhost} -p tcp -m tcp --dport {host_port} -j CNI-HOSTPORT-SETMARK\n\
                 -A {chain} -p tcp -m tcp --dport {host_port} -j DNAT --to-destination {target}\n",
                pod.name,
                family.block(node.pod_block),
            );
        }
    }
    rules += "-A POSTROUTING -m comment --comment \"ip-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom IP-MASQ chain\" -m addrtype ! --dst-type LOCAL -j IP-MASQ\n";
    for block in &spec.unmasqueraded {
        rules += &format!(
            "-A IP-MASQ -d {} -m comment --comment \"ip-masq-agent: local traffic is not subject to MASQUERADE\" -j RETURN\n",
            family.block(*block)
        );
    }
    // Link-local traffic (neighbour discovery among it) is nobody's to masquerade.
    if family == Family::V6 {
        rules += "-A IP-MASQ -d fe80::/10 -j RETURN\n-A IP-MASQ -d ff00::/8 -j RETURN\n";
    } else {
        rules += "-A IP-MASQ -d 169.254.0.0/16 -j RETURN\n";
    }
    rules += "-A IP-MASQ -m comment --comment \"ip-masq-agent: outbound traffic is subject to MASQUERADE\" -j MASQUERADE --random-fully\n";
    format!("{chains}{rules}COMMIT\n")
}
