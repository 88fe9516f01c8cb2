//! kube-proxy's iptables mode: the tables `filter` and `nat`, as `iptables-restore` reads them.

use super::{AFFINITY, EndpointView, PortView, View, put};
use crate::address::Family;

pub(super) fn rules(view: &View) -> String {
    format!("{}{}", filter(view), nat(view))
}

fn filter(view: &View) -> String {
    let mut rules = String::from(
        "*filter\n\
         :KUBE-EXTERNAL-SERVICES - [0:0]\n\
         :KUBE-FIREWALL - [0:0]\n\
         :KUBE-FORWARD - [0:0]\n\
         :KUBE-NODEPORTS - [0:0]\n\
         :KUBE-PROXY-FIREWALL - [0:0]\n\
         :KUBE-SERVICES - [0:0]\n\
         -A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL\n\
         -A INPUT -m comment --comment \"kubernetes health check service ports\" -j KUBE-NODEPORTS\n\
         -A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES\n\
         -A INPUT -j KUBE-FIREWALL\n\
         -A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL\n\
         -A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD\n\
         -A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES\n\
         -A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL\n\
         -A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A OUTPUT -j KUBE-FIREWALL\n\
         -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n\
         -A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT\n\
         -A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n",
    );
    if view.family == Family::V4 {
        rules += "-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment \"block incoming localnet connections\" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP\n";
    }
    for port in &view.ports {
        let PortView { title, protocol, .. } = port;
        if let (Some(node_port), true, []) =
            (port.node_port, port.local_only, port.local_endpoints().as_slice())
        {
            put(
                &mut rules,
                format_args!(
                    "-A KUBE-EXTERNAL-SERVICES -p {protocol} -m comment --comment \"{title} has no local endpoints\" -m addrtype --dst-type LOCAL -m {protocol} --dport {node_port} -j DROP"
                ),
            );
        }
    }
    rules + "COMMIT\n"
}

fn nat(view: &View) -> String {
    let View { cluster_block, .. } = view;
    let mut chains = String::from(
        "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n",
    );
    let mut rules = String::from(
        "-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000\n\
         -A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully\n\
         -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n",
    );
    let full = match view.family {
        Family::V4 => 32,
        Family::V6 => 128,
    };
    for port in &view.ports {
        let PortView { title, hash, protocol, cluster_ip, port: number, .. } = port;
        for endpoint in &port.endpoints {
            put(&mut chains, format_args!(":KUBE-SEP-{} - [0:0]", endpoint.hash));
            put(
                &mut rules,
                format_args!(
                    "-A KUBE-SEP-{} -m comment --comment {title} -s {}/{full} -j KUBE-MARK-MASQ",
                    endpoint.hash, endpoint.ip
                ),
            );
            let remember = if port.affinity {
                format!("-m recent --name KUBE-SEP-{} --set ", endpoint.hash)
            } else {
                String::new()
            };
            put(
                &mut rules,
                format_args!(
                    "-A KUBE-SEP-{} -m comment --comment {title} {remember}-m {protocol} -p {protocol} -j DNAT --to-destination {}",
                    endpoint.hash, endpoint.ip_port
                ),
            );
        }
        put(&mut chains, format_args!(":KUBE-SVC-{hash} - [0:0]"));
        put(
            &mut rules,
            format_args!(
                "-A KUBE-SERVICES -m comment --comment \"{title} cluster IP\" -m {protocol} -p {protocol} -d {cluster_ip}/{full} --dport {number} -j KUBE-SVC-{hash}"
            ),
        );
        put(
            &mut rules,
            format_args!(
                "-A KUBE-SVC-{hash} -m comment --comment \"{title} cluster IP\" -m {protocol} -p {protocol} -d {cluster_ip}/{full} --dport {number} ! -s {cluster_block} -j KUBE-MARK-MASQ"
            ),
        );
        let all: Vec<_> = port.endpoints.iter().collect();
        spread(&mut rules, &format!("KUBE-SVC-{hash}"), port, &all);

        if !port.is_external() {
            continue;
        }
        put(&mut chains, format_args!(":KUBE-EXT-{hash} - [0:0]"));
        if let Some(external_ip) = &port.external_ip {
            put(
                &mut rules,
                format_args!(
                    "-A KUBE-SERVICES -m comment --comment \"{title} loadbalancer IP\" -m {protocol} -p {protocol} -d {external_ip}/{full} --dport {number} -j KUBE-EXT-{hash}"
                ),
            );
        }
        if let Some(node_port) = port.node_port {
            put(
                &mut rules,
                format_args!(
                    "-A KUBE-NODEPORTS -m comment --comment {title} -m {protocol} -p {protocol} --dport {node_port} -j KUBE-EXT-{hash}"
                ),
            );
        }
        if port.local_only {
            put(&mut chains, format_args!(":KUBE-SVL-{hash} - [0:0]"));
            put(
                &mut rules,
                format_args!(
                    "-A KUBE-EXT-{hash} -m comment --comment \"pod traffic for {title} external destinations\" -s {cluster_block} -j KUBE-SVC-{hash}"
                ),
            );
            put(
                &mut rules,
                format_args!(
                    "-A KUBE-EXT-{hash} -m comment --comment \"masquerade LOCAL traffic for {title} external destinations\" -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ"
                ),
            );
            put(
                &mut rules,
                format_args!(
                    "-A KUBE-EXT-{hash} -m comment --comment \"route LOCAL traffic for {title} external destinations\" -m addrtype --src-type LOCAL -j KUBE-SVC-{hash}"
                ),
            );
            put(&mut rules, format_args!("-A KUBE-EXT-{hash} -j KUBE-SVL-{hash}"));
            spread(&mut rules, &format!("KUBE-SVL-{hash}"), port, &port.local_endpoints());
        } else {
            put(
                &mut rules,
                format_args!(
                    "-A KUBE-EXT-{hash} -m comment --comment \"masquerade traffic for {title} external destinations\" -j KUBE-MARK-MASQ"
                ),
            );
            put(&mut rules, format_args!("-A KUBE-EXT-{hash} -j KUBE-SVC-{hash}"));
        }
    }
    let loopback = match view.family {
        Family::V4 => "",
        Family::V6 => "! -d ::1/128 ",
    };
    put(
        &mut rules,
        format_args!(
            "-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\" -m addrtype --dst-type LOCAL {loopback}-j KUBE-NODEPORTS"
        ),
    );
    format!("{chains}{rules}COMMIT\n")
}

/// The endpoint that a client had last, where there is affinity; else the random choice: each rule
/// takes its share of what the ones before left.
fn spread(rules: &mut String, chain: &str, port: &PortView, endpoints: &[&EndpointView]) {
    let title = &port.title;
    for EndpointView { hash, ip_port, .. } in endpoints.iter().filter(|_| port.affinity) {
        put(
            rules,
            format_args!(
                "-A {chain} -m comment --comment \"{title} -> {ip_port}\" -m recent --name KUBE-SEP-{hash} --rcheck --seconds {AFFINITY} --reap -j KUBE-SEP-{hash}"
            ),
        );
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        let left = endpoints.len() - index;
        let share = if left > 1 {
            format!("-m statistic --mode random --probability {:.10} ", 1.0 / left as f64)
        } else {
            String::new()
        };
        put(
            rules,
            format_args!(
                "-A {chain} -m comment --comment \"{title} -> {}\" {share}-j KUBE-SEP-{}",
                endpoint.ip_port, endpoint.hash
            ),
        );
    }
}
