//! kube-proxy's nftables mode: its one table `kube-proxy`, as `nft -f` reads it.

use super::{AFFINITY, EndpointView, PortView, View, put};
use crate::address::Family;

pub(super) fn rules(view: &View) -> String {
    let (family, kind) = match view.family {
        Family::V4 => ("ip", "ipv4_addr"),
        Family::V6 => ("ip6", "ipv6_addr"),
    };
    let View { node_address, .. } = view;
    let cluster_ips = listed(view.ports.iter().map(|p| p.cluster_ip.clone()));
    let service_ips = listed(view.ports.iter().flat_map(|p| {
        let to = |ip: &str, chain| format!("{ip} . {} . {} : goto {chain}", p.protocol, p.port);
        let outer = p.external_ip.as_ref().map(|ip| to(ip, external(p)));
        [to(&p.cluster_ip, service(p))].into_iter().chain(outer)
    }));
    let node_ports =
        listed(view.ports.iter().filter_map(|p| {
            Some(format!("{} . {} : goto {}", p.protocol, p.node_port?, external(p)))
        }));
    let no_endpoint_node_ports = listed(view.ports.iter().filter_map(|p| {
        let without = p.local_only && p.local_endpoints().is_empty();
        without.then_some(())?;
        Some(format!("{} . {} : drop", p.protocol, p.node_port?))
    }));
    let ports: String = view.ports.iter().map(|port| chains_of(port, view, family, kind)).collect();
    format!(
        "add table {family} kube-proxy
table {family} kube-proxy {{
  comment \"rules for kube-proxy\"
  set cluster-ips {{
    type {kind}
    comment \"Active ClusterIPs\"
    {cluster_ips}
  }}
  set nodeport-ips {{
    type {kind}
    comment \"IPs that accept NodePort traffic\"
    elements = {{ {node_address} }}
  }}
  map no-endpoint-nodeports {{
    type inet_proto . inet_service : verdict
    comment \"vmap to drop or reject packets to service nodeports with no endpoints\"
    {no_endpoint_node_ports}
  }}
  map no-endpoint-services {{
    type {kind} . inet_proto . inet_service : verdict
    comment \"vmap to drop or reject packets to services with no endpoints\"
  }}
  map firewall-ips {{
    type {kind} . inet_proto . inet_service : verdict
    comment \"destinations that are subject to LoadBalancerSourceRanges\"
  }}
  map service-ips {{
    type {kind} . inet_proto . inet_service : verdict
    comment \"ClusterIP, ExternalIP and LoadBalancer IP traffic\"
    {service_ips}
  }}
  map service-nodeports {{
    type inet_proto . inet_service : verdict
    comment \"NodePort traffic\"
    {node_ports}
  }}
  chain mark-for-masquerade {{
    meta mark set meta mark | 0x4000
  }}
{ports}
  chain filter-prerouting {{
    type filter hook prerouting priority -110; policy accept;
    ct state new jump firewall-check
  }}
  chain filter-input {{
    type filter hook input priority -110; policy accept;
    ct state new jump nodeport-endpoints-check
    ct state new jump service-endpoints-check
  }}
  chain filter-forward {{
    type filter hook forward priority -110; policy accept;
    ct state new jump service-endpoints-check
    ct state new jump cluster-ips-check
  }}
  chain filter-output {{
    type filter hook output priority -110; policy accept;
    ct state new jump service-endpoints-check
    ct state new jump firewall-check
  }}
  chain filter-output-post-dnat {{
    type filter hook output priority -90; policy accept;
    ct state new jump cluster-ips-check
  }}
  chain nat-prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    jump services
  }}
  chain nat-output {{
    type nat hook output priority -100; policy accept;
    jump services
  }}
  chain nat-postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    jump masquerading
  }}
  chain nodeport-endpoints-check {{
    {family} daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports
  }}
  chain service-endpoints-check {{
    {family} daddr . meta l4proto . th dport vmap @no-endpoint-services
  }}
  chain firewall-check {{
    {family} daddr . meta l4proto . th dport vmap @firewall-ips
  }}
  chain services {{
    {family} daddr . meta l4proto . th dport vmap @service-ips
    {family} daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
  }}
  chain masquerading {{
    meta mark & 0x4000 == 0 return
    meta mark set meta mark ^ 0x4000
    masquerade fully-random
  }}
  chain cluster-ips-check {{
    {family} daddr @cluster-ips reject comment \"Reject traffic to invalid ports of ClusterIPs\"
  }}
}}
"
    )
}

/// The chains of one port of a Service. They come before what refers to them only in the file:
/// `nft` reads it as one transaction.
fn chains_of(port: &PortView, view: &View, family: &str, kind: &str) -> String {
    let View { cluster_block, .. } = view;
    let PortView { protocol, cluster_ip, port: number, .. } = port;
    let mut out = String::new();
    if port.endpoints.is_empty() {
        return out;
    }
    for endpoint in &port.endpoints {
        let EndpointView { ip, ip_port, .. } = endpoint;
        let mut remember = String::new();
        if port.affinity {
            let set = affinity(port, endpoint);
            put(
                &mut out,
                format_args!(
                    "  set {set} {{\n    type {kind}\n    flags dynamic,timeout\n    timeout {AFFINITY}s\n  }}"
                ),
            );
            remember = format!("    update @{set} {{ {family} saddr }}\n");
        }
        put(
            &mut out,
            format_args!(
                "  chain {} {{\n    {family} saddr {ip} jump mark-for-masquerade\n{remember}    meta l4proto {protocol} dnat to {ip_port}\n  }}",
                chain_of(port, endpoint)
            ),
        );
    }
    let all: Vec<_> = port.endpoints.iter().collect();
    put(
        &mut out,
        format_args!(
            "  chain {} {{\n    {family} daddr {cluster_ip} {protocol} dport {number} {family} saddr != {cluster_block} jump mark-for-masquerade\n    {}\n  }}",
            service(port),
            spread(port, &all, family)
        ),
    );
    if port.is_external() {
        let body = if port.local_only {
            let local = port.local_endpoints();
            let to_local =
                if local.is_empty() { String::from("drop") } else { spread(port, &local, family) };
            format!(
                "    {family} saddr {cluster_block} goto {service} comment \"short-circuit pod traffic\"\n    \
                     fib saddr type local jump mark-for-masquerade comment \"masquerade local traffic\"\n    \
                     fib saddr type local goto {service} comment \"short-circuit local traffic\"\n    {to_local}",
                service = service(port)
            )
        } else {
            format!("    jump mark-for-masquerade\n    goto {}", service(port))
        };
        put(&mut out, format_args!("  chain {} {{\n{body}\n  }}", external(port)));
    }
    out
}

fn spread(port: &PortView, endpoints: &[&EndpointView], family: &str) -> String {
    let known = endpoints.iter().filter(|_| port.affinity).map(|endpoint| {
        let (set, chain) = (affinity(port, endpoint), chain_of(port, endpoint));
        format!("{family} saddr @{set} goto {chain}\n    ")
    });
    let known: String = known.collect();
    let verdicts = endpoints
        .iter()
        .enumerate()
        .map(|(index, endpoint)| format!("{index} : goto {}", chain_of(port, endpoint)));
    format!(
        "{known}numgen random mod {} vmap {{ {} }}",
        endpoints.len(),
        verdicts.collect::<Vec<_>>().join(", ")
    )
}

fn service(port: &PortView) -> String {
    format!("service-{}-{}", &port.hash[..8], port.path)
}

fn external(port: &PortView) -> String {
    format!("external-{}-{}", &port.hash[..8], port.path)
}

fn chain_of(port: &PortView, endpoint: &EndpointView) -> String {
    let ip = endpoint.ip.replace(':', ".");
    format!("endpoint-{}-{}__{ip}/{}", &endpoint.hash[..8], port.path, endpoint.port)
}

fn affinity(port: &PortView, endpoint: &EndpointView) -> String {
    chain_of(port, endpoint).replacen("endpoint", "affinity", 1)
}

/// An `elements` line, or nothing: nft takes no empty list.
fn listed(elements: impl Iterator<Item = String>) -> String {
    let mut elements: Vec<_> = elements.collect();
    elements.sort();
    elements.dedup();
    if elements.is_empty() {
        return String::new();
    }
    format!("elements = {{ {} }}", elements.join(",\n      "))
}
