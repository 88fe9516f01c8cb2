//! kube-proxy's ipvs mode: virtual servers in the kernel, whose addresses a dummy device bears, and
//! a few iptables rules over sets of addresses and ports.

use std::fmt::Arguments;

use anyhow::{Context as _, Result};

use super::{AFFINITY, EndpointView, PortView, View, put, restore};
use crate::address::Family;
use crate::netns::Namespace;

/// The device that makes the Services' addresses the node's own. It stays down, as kube-proxy leaves it:
/// nothing is to be sent from them.
const DEVICE: &str = "kube-ipvs0";

/// What both families share: the device, and that IPVS hands its translations to conntrack, for
/// which the masquerading asks.
pub(super) fn prepare(inside: &Namespace) -> Result<()> {
    inside.ip(&format!("link add {DEVICE} type dummy\n")).context("the kernel module dummy")?;
    let settings = ["conntrack", "expire_nodest_conn", "expire_quiescent_template"];
    let settings = settings.map(|name| format!("net/ipv4/vs/{name}"));
    inside
        .sysctls(&settings.each_ref().map(|name| (name.as_str(), "1")))
        .context("the kernel module ip_vs")
}

pub(super) fn install(view: &View, inside: &Namespace) -> Result<()> {
    inside.ip(&addresses(view))?;
    inside.feed("ipvsadm", &["--restore"], &servers(view))?;
    inside.feed("ipset", &["restore"], &sets(view))?;
    restore(inside, view.family, &rules(view))
}

/// The addresses of one port, and whether they keep to the node's own endpoints.
fn addresses_of(port: &PortView) -> impl Iterator<Item = (&str, bool)> {
    let external = port.external_ip.as_deref();
    let external = external.map(|address| (address, port.local_only));
    [(port.cluster_ip.as_str(), false)].into_iter().chain(external)
}

fn addresses(view: &View) -> String {
    let mut all: Vec<&str> =
        view.ports.iter().flat_map(addresses_of).map(|(address, _)| address).collect();
    all.sort_unstable();
    all.dedup();
    // Masquerading in IPv6 takes any address of the node, in the end the one most like the
    // destination; a deprecated one last. kube-proxy leaves it at that, and its NodePort clients can
    // come to bear a Service's address, of which no policy can speak.
    let (length, deprecated) = match view.family {
        Family::V4 => (32, ""),
        Family::V6 => (128, " preferred_lft 0"),
    };
    let mut batch = String::new();
    for address in all {
        put(&mut batch, format_args!("addr add {address}/{length} dev {DEVICE}{deprecated}"));
    }
    batch
}

/// One virtual server per way to a port, as `ipvsadm --restore` reads them.
fn servers(view: &View) -> String {
    let mut servers = String::new();
    for port in &view.ports {
        let node_port =
            port.node_port.map(|number| (view.node_address.as_str(), number, port.local_only));
        let ways = addresses_of(port).map(|(address, local)| (address, port.port, local));
        for (address, number, local_only) in ways.chain(node_port) {
            let option = if port.protocol == "udp" { 'u' } else { 't' };
            let address = match view.family {
                Family::V4 => format!("-{option} {address}:{number}"),
                Family::V6 => format!("-{option} [{address}]:{number}"),
            };
            let persistent = if port.affinity { format!(" -p {AFFINITY}") } else { String::new() };
            put(&mut servers, format_args!("-A {address} -s rr{persistent}"));
            // Without one of its own the node forwards to all: its pods get there all the same.
            let local = port.local_endpoints();
            let all = port.endpoints.iter().collect();
            let endpoints: Vec<_> = if local_only && !local.is_empty() { local } else { all };
            for EndpointView { ip_port, .. } in endpoints {
                put(&mut servers, format_args!("-a {address} -r {ip_port} -m -w 1"));
            }
        }
    }
    servers
}

/// The name of a set in a family.
fn set(family: Family, name: &str) -> String {
    match family {
        Family::V4 => format!("KUBE-{name}"),
        Family::V6 => format!("KUBE-6-{name}"),
    }
}

fn sets(view: &View) -> String {
    let family = match view.family {
        Family::V4 => "inet",
        Family::V6 => "inet6",
    };
    let name = |name: &str| set(view.family, name);
    let mut sets = String::new();
    for pairs in ["CLUSTER-IP", "LOAD-BALANCER", "LOAD-BALANCER-LOCAL"] {
        put(&mut sets, format_args!("create {} hash:ip,port family {family}", name(pairs)));
    }
    put(&mut sets, format_args!("create {} hash:ip,port,ip family {family}", name("LOOP-BACK")));
    put(&mut sets, format_args!("create {} hash:ip family {family}", name("IPVS-IPS")));
    for ports in ["NODE-PORT-TCP", "NODE-PORT-LOCAL-TCP", "NODE-PORT-UDP", "NODE-PORT-LOCAL-UDP"] {
        put(&mut sets, format_args!("create {} bitmap:port range 0-65535", name(ports)));
    }
    let mut add = |set: &str, entry: Arguments<'_>| {
        put(&mut sets, format_args!("add -exist {} {entry}", name(set)));
    };
    for port in &view.ports {
        let PortView { protocol, cluster_ip, port: number, .. } = port;
        add("CLUSTER-IP", format_args!("{cluster_ip},{protocol}:{number}"));
        for (address, _) in addresses_of(port) {
            add("IPVS-IPS", format_args!("{address}"));
        }
        for EndpointView { ip, port: target, .. } in port.local_endpoints() {
            add("LOOP-BACK", format_args!("{ip},{protocol}:{target},{ip}"));
        }
        if let Some(address) = &port.external_ip {
            add("LOAD-BALANCER", format_args!("{address},{protocol}:{number}"));
            if port.local_only {
                add("LOAD-BALANCER-LOCAL", format_args!("{address},{protocol}:{number}"));
            }
        }
        if let Some(node_port) = port.node_port {
            let protocol = protocol.to_uppercase();
            add(&format!("NODE-PORT-{protocol}"), format_args!("{node_port}"));
            if port.local_only {
                add(&format!("NODE-PORT-LOCAL-{protocol}"), format_args!("{node_port}"));
            }
        }
    }
    sets
}

fn rules(view: &View) -> String {
    format!("{}{}", filter(view.family), nat(view))
}

fn filter(family: Family) -> String {
    let name = |name| set(family, name);
    let mut rules = String::from(
        "*filter\n\
         :KUBE-FORWARD - [0:0]\n\
         :KUBE-IPVS-FILTER - [0:0]\n\
         -A INPUT -m comment --comment \"kubernetes ipvs access filter\" -j KUBE-IPVS-FILTER\n\
         -A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD\n\
         -A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT\n\
         -A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n",
    );
    for known in ["LOAD-BALANCER", "CLUSTER-IP"] {
        put(
            &mut rules,
            format_args!(
                "-A KUBE-IPVS-FILTER -m set --match-set {} dst,dst -j RETURN",
                name(known)
            ),
        );
    }
    put(
        &mut rules,
        format_args!(
            "-A KUBE-IPVS-FILTER -m conntrack --ctstate NEW -m set --match-set {} dst -j REJECT",
            name("IPVS-IPS")
        ),
    );
    rules + "COMMIT\n"
}

fn nat(view: &View) -> String {
    let View { cluster_block, family, .. } = view;
    let name = |name| set(*family, name);
    let mut rules = String::from(
        "*nat\n\
         :KUBE-LOAD-BALANCER - [0:0]\n\
         :KUBE-MARK-MASQ - [0:0]\n\
         :KUBE-NODE-PORT - [0:0]\n\
         :KUBE-POSTROUTING - [0:0]\n\
         :KUBE-SERVICES - [0:0]\n\
         -A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING\n\
         -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n",
    );
    let cluster_ip = name("CLUSTER-IP");
    let load_balancer = name("LOAD-BALANCER");
    for rule in [
        format!(
            "-A KUBE-POSTROUTING -m comment --comment \"Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose\" -m set --match-set {} dst,dst,src -j MASQUERADE",
            name("LOOP-BACK")
        ),
        "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN".into(),
        "-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000".into(),
        "-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully".into(),
        format!(
            "-A KUBE-LOAD-BALANCER -m set --match-set {} dst,dst -j RETURN",
            name("LOAD-BALANCER-LOCAL")
        ),
        "-A KUBE-LOAD-BALANCER -j KUBE-MARK-MASQ".into(),
        format!(
            "-A KUBE-NODE-PORT -p tcp -m set --match-set {} dst -j RETURN",
            name("NODE-PORT-LOCAL-TCP")
        ),
        format!(
            "-A KUBE-NODE-PORT -p tcp -m set --match-set {} dst -j KUBE-MARK-MASQ",
            name("NODE-PORT-TCP")
        ),
        format!(
            "-A KUBE-NODE-PORT -p udp -m set --match-set {} dst -j RETURN",
            name("NODE-PORT-LOCAL-UDP")
        ),
        format!(
            "-A KUBE-NODE-PORT -p udp -m set --match-set {} dst -j KUBE-MARK-MASQ",
            name("NODE-PORT-UDP")
        ),
        format!(
            "-A KUBE-SERVICES -m comment --comment \"Kubernetes service lb portal\" -m set --match-set {load_balancer} dst,dst -j KUBE-LOAD-BALANCER"
        ),
        format!(
            "-A KUBE-SERVICES ! -s {cluster_block} -m comment --comment \"Kubernetes service cluster ip + port for masquerade purpose\" -m set --match-set {cluster_ip} dst,dst -j KUBE-MARK-MASQ"
        ),
        "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODE-PORT".into(),
        format!("-A KUBE-SERVICES -m set --match-set {cluster_ip} dst,dst -j ACCEPT"),
        format!("-A KUBE-SERVICES -m set --match-set {load_balancer} dst,dst -j ACCEPT"),
    ] {
        put(&mut rules, format_args!("{rule}"));
    }
    rules + "COMMIT\n"
}
