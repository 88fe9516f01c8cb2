//! Attacks with real packets against real agents. Each is sent first while no agent runs, where it
//! must arrive (else the test could not fail), then with agents and policies, where it must not and
//! the reason must be counted.

mod raw;

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use np_common::packet::{ACK, ETH_P_IPV4, ETH_P_IPV6, ICMP, ICMPV6, SYN, TCP, UDP};
use np_tests::address::{Family, twin};
use np_tests::agent::{Agents, POLICIES};
use np_tests::bpf::{self, Place, TcSide};
use np_tests::netns::Namespace;
use np_tests::probe::server::Listen;
use np_tests::probe::{Kind, PATIENCE, probe};
use np_tests::proxy::Mode;
use np_tests::topology::{
    Cluster, Labels, NamespaceSpec, NodeSpec, OutsideSpec, PodSpec, Spec, ptp,
};
use np_tests::wire::{self, Ip, checksum};
use raw::{Raw, mac};

const ARRIVES: Duration = Duration::from_millis(1500);
const SILENT: Duration = Duration::from_millis(250);

fn spec() -> Spec {
    let address = |text: &str| text.parse::<Ipv4Addr>().expect("a valid address");
    let block = |text: &str| text.parse().expect("a valid block");
    let node = |name, ip, pods| NodeSpec { name, address: address(ip), pod_block: block(pods) };
    let pod = |name, node, ip, labels: Labels| PodSpec {
        name,
        namespace: "default",
        node,
        labels,
        address: Some(address(ip)),
        host_ports: &[],
    };
    let quiet = Listen { tcp: &[], udp: &[], dns: false };
    Spec {
        node_network: block("192.168.64.0/19"),
        router: address("192.168.64.1"),
        pod_range: block("100.68.0.0/14"),
        unmasqueraded: ["100.64.0.0/10", "192.168.0.0/16"].map(block).to_vec(),
        namespaces: vec![NamespaceSpec { name: "default", labels: &[] }],
        nodes: vec![
            node("node-1", "192.168.65.10", "100.68.1.0/24"),
            node("node-2", "192.168.65.11", "100.68.2.0/24"),
        ],
        pods: vec![
            pod("attacker", "node-1", "100.68.1.10", &[("app", "attacker")]),
            pod("open", "node-1", "100.68.1.11", &[("app", "open")]),
            pod("closed", "node-1", "100.68.1.12", &[("app", "closed")]),
            pod("choosy", "node-1", "100.68.1.13", &[("app", "choosy")]),
            pod("jailed", "node-1", "100.68.1.14", &[("app", "jailed")]),
            pod("remote", "node-2", "100.68.2.20", &[("app", "remote")]),
        ],
        outside: vec![OutsideSpec { name: "internet", address: address("203.0.113.50") }],
        services: Vec::new(),
        pod_ports: Listen { tcp: &[80], udp: &[8443], dns: false },
        node_ports: quiet,
        outside_ports: quiet,
        attach: ptp,
    }
}

const RULES: &str = r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: default}
spec:
  podSelector: {matchLabels: {app: closed}}
  policyTypes: [Ingress]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: choosy, namespace: default}
spec:
  podSelector: {matchLabels: {app: choosy}}
  policyTypes: [Ingress]
  ingress:
    - from: [{podSelector: {matchLabels: {app: open}}}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: jailed, namespace: default}
spec:
  podSelector: {matchLabels: {app: jailed}}
  policyTypes: [Egress]
"#;

/// One cluster and what sends and captures in it.
struct Field {
    // Dropped in this order: agents go before the namespaces they run in.
    agents: Option<Agents>,
    cluster: Cluster,
    marker: u32,
    failures: Vec<String>,
}

/// Frames from a leaf, for a victim, and what must be counted when they are dropped.
struct Attack {
    name: &'static str,
    from: &'static str,
    victim: &'static str,
    packets: Vec<Sent>,
    reason: &'static str,
    hook: &'static str,
    /// False where the kernel itself refuses the packet on every node.
    control: bool,
}

/// What follows the two hardware addresses of a frame.
struct Sent {
    ethertype: u16,
    bytes: Vec<u8>,
    short_linear: bool,
}

fn ip_packet(bytes: Vec<u8>) -> Sent {
    let ethertype = if bytes[0] >> 4 == 6 { ETH_P_IPV6 } else { ETH_P_IPV4 };
    Sent { ethertype, bytes, short_linear: false }
}

impl Field {
    fn new() -> Result<Self> {
        let cluster = Cluster::build(spec(), Mode::Iptables)?;
        let node = cluster.namespace("node-1")?;
        // What is not a valid part of a connection is for the agent to judge, not for the
        // proxy's rules to drop; nor does the kernel refuse its own address as a source.
        for program in ["iptables", "ip6tables"] {
            node.feed(program, &["-I", "FORWARD", "-j", "ACCEPT"], "")?;
        }
        node.sysctls(&[
            ("net/ipv4/conf/all/accept_local", "1"),
            ("net/netfilter/nf_conntrack_udp_timeout", "1"),
        ])?;
        for pod in ["attacker", "open"] {
            node.ip(&format!("link set v-{pod} mtu 9000"))?;
            cluster.namespace(pod)?.ip("link set eth0 mtu 9000")?;
        }
        Ok(Self { agents: None, cluster, marker: 0, failures: Vec::new() })
    }

    fn start_agents(&mut self) -> Result<()> {
        let mut agents = Agents::start(&self.cluster)?;
        agents.apply(POLICIES, Some(RULES))?;
        self.agents = Some(agents);
        Ok(())
    }

    fn v4(&self, name: &str) -> IpAddr {
        self.cluster.address(name, Family::V4).expect("a host of the cluster")
    }

    fn v6(&self, name: &str) -> IpAddr {
        self.cluster.address(name, Family::V6).expect("a host of the cluster")
    }

    /// Eight bytes that no other packet holds.
    fn marker(&mut self) -> [u8; 8] {
        self.marker += 1;
        let [a, b, c, d] = self.marker.to_be_bytes();
        [0xbe, 0xef, 0xca, 0xfe, a, b, c, d]
    }

    fn count(&mut self, node: &str, hook: &str, reason: &str) -> Result<u64> {
        let Some(agents) = &mut self.agents else { return Ok(0) };
        let counters = agents.on(node)?.status()?.counters;
        let all = counters.iter().filter(|c| c.hook == hook && c.reason == reason);
        Ok(all.map(|c| c.packets).sum())
    }

    fn send(&self, from: &str, packets: &[Sent]) -> Result<()> {
        let inside = self.cluster.namespace(from)?;
        let router = match self.cluster.spec.pod(from) {
            Some(pod) => mac(self.cluster.namespace(pod.node)?, &format!("v-{from}"))?,
            None => {
                // The outside host learns its router by asking: any route leads there.
                inside.run(|| {
                    let socket = UdpSocket::bind("0.0.0.0:0")?;
                    Ok(socket.send_to(b"?", "192.168.64.1:9").map(drop)?)
                })?;
                thread::sleep(Duration::from_millis(50));
                let known = inside.feed("ip", &["neigh", "show", "169.254.1.1"], "")?;
                let word = known.split("lladdr ").nth(1).and_then(|rest| rest.split(' ').next());
                word.with_context(|| format!("the router's hardware address: {known}"))?
                    .split(':')
                    .map(|octet| Ok(u8::from_str_radix(octet, 16)?))
                    .collect::<Result<Vec<u8>>>()?
            }
        };
        let own = mac(inside, "eth0")?;
        for packet in packets {
            let mut raw = Raw::open(inside, "eth0")?;
            if packet.short_linear {
                raw = raw.with_short_linear_part()?;
            }
            let mut frame = [router.as_slice(), &own].concat();
            frame.extend(packet.ethertype.to_be_bytes());
            frame.extend(&packet.bytes);
            raw.send(&frame)?;
        }
        Ok(())
    }

    /// Sends packets and returns what of them came to the victim.
    fn delivered(
        &self,
        from: &str,
        victim: &str,
        packets: &[Sent],
        marker: &[u8],
        within: Duration,
    ) -> Result<Vec<Vec<u8>>> {
        let capture = Raw::open(self.cluster.namespace(victim)?, "eth0")?;
        self.send(from, packets)?;
        let enough = if within == SILENT { usize::MAX } else { 1 };
        capture.capture(marker, enough, within)
    }

    fn expect(&mut self, what: &str, holds: bool, seen: impl std::fmt::Debug) {
        if !holds {
            self.failures.push(format!("{what}: {seen:?}"));
        }
    }

    /// A packet that must (or must not) arrive, whatever else is counted.
    fn check(
        &mut self,
        what: &str,
        from: &str,
        victim: &str,
        packets: &[Sent],
        marker: &[u8],
        arrives: bool,
    ) -> Result<()> {
        let within = if arrives { ARRIVES } else { SILENT };
        let got = self.delivered(from, victim, packets, marker, within)?.len();
        self.expect(what, (got > 0) == arrives, format_args!("{got} arrived"));
        Ok(())
    }

    fn run(&mut self, attack: &Attack, marker: &[u8]) -> Result<()> {
        let Attack { name, from, victim, packets, reason, hook, control } = attack;
        if self.agents.is_none() {
            return match control {
                true => {
                    self.check(&format!("{name} (no agent)"), from, victim, packets, marker, true)
                }
                false => Ok(()),
            };
        }
        let before = self.count("node-1", hook, reason)?;
        self.check(name, from, victim, packets, marker, false)?;
        let after = self.count("node-1", hook, reason)?;
        self.expect(
            &format!("{name}: {reason} is counted at {hook}"),
            after > before,
            (before, after),
        );
        Ok(())
    }

    fn report(self) {
        assert!(self.failures.is_empty(), "\n{}", self.failures.join("\n"));
    }
}

/// A datagram with a right checksum, so that nothing but the agent has a reason to refuse it.
fn datagram(src: IpAddr, dst: IpAddr, sport: u16, dport: u16, data: &[u8]) -> Ip {
    let mut upper = wire::udp(sport, dport);
    upper.extend(data);
    let length = (upper.len() as u16).to_be_bytes();
    upper.splice(4..6, length);
    let sum = checksum(&[pseudo(src, dst, UDP, upper.len()), upper.clone()].concat());
    upper.splice(6..8, sum.to_be_bytes());
    Ip::new(src, dst, UDP, upper)
}

fn icmp_message(src: IpAddr, dst: IpAddr, message: u8, id: u16, data: &[u8]) -> Ip {
    let protocol = if src.is_ipv4() { ICMP } else { ICMPV6 };
    let mut upper = wire::icmp(message, id);
    upper.extend(data);
    let head = if src.is_ipv4() { Vec::new() } else { pseudo(src, dst, ICMPV6, upper.len()) };
    let sum = checksum(&[head, upper.clone()].concat());
    upper.splice(2..4, sum.to_be_bytes());
    Ip::new(src, dst, protocol, upper)
}

fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for address in [src, dst] {
        match address {
            IpAddr::V4(v4) => bytes.extend(v4.octets()),
            IpAddr::V6(v6) => bytes.extend(v6.octets()),
        }
    }
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}

/// Two fragments of one datagram; only the first has a hop-by-hop header. Put together and taken
/// apart again by the node, they exceed the largest fragment seen, and so lose their device.
fn fragments_that_lose_their_device(src: IpAddr, dst: IpAddr, marker: &[u8]) -> Vec<Sent> {
    let data = marker.repeat(2688 / marker.len());
    let whole = datagram(src, dst, 5000, 8443, &data).payload;
    let (first, second) = whole.split_at(1344);
    let fragment = |offset: u16, more: u16| {
        let mut header = vec![UDP, 0];
        header.extend((offset | more).to_be_bytes());
        header.extend([0, 0, 0x77, marker[7]]);
        header
    };
    let hop_by_hop = vec![44, 0, 1, 4, 0, 0, 0, 0];
    let first = Ip::new(src, dst, 0, [hop_by_hop, fragment(0, 1), first.to_vec()].concat());
    let second = Ip::new(src, dst, 44, [fragment(1344, 0), second.to_vec()].concat());
    vec![ip_packet(first.bytes()), ip_packet(second.bytes())]
}

fn attacks(field: &mut Field) -> Vec<(Attack, [u8; 8])> {
    let mut all = Vec::new();
    let base = |name, from, victim, packets, reason, hook| Attack {
        name,
        from,
        victim,
        packets,
        reason,
        hook,
        control: true,
    };

    let m = field.marker();
    let packets = fragments_that_lose_their_device(field.v6("internet"), field.v6("closed"), &m);
    let name = "remote fragments that pose as the node's own";
    all.push((base(name, "internet", "closed", packets, "ingress-denied", "to_pod"), m));

    let m = field.marker();
    let mut tagged = vec![0, 0, 0x81, 0, 0, 0];
    tagged.extend(ETH_P_IPV4.to_be_bytes());
    tagged.extend(datagram(field.v4("choosy"), field.v4("open"), 5000, 9, &m).bytes());
    let packets = vec![Sent { ethertype: 0x8100, bytes: tagged, short_linear: false }];
    let name = "two VLAN tags around a forged source";
    all.push((base(name, "attacker", "open", packets, "ethertype", "from_pod"), m));

    for (name, source) in [
        ("another pod's IPv4 address", field.v4("choosy")),
        ("another pod's IPv6 address", field.v6("choosy")),
        ("the node's IPv4 address", field.v4("node-1")),
        ("the node's IPv6 address", field.v6("node-1")),
        ("an outside IPv4 address", field.v4("internet")),
        ("an outside IPv6 address", field.v6("internet")),
    ] {
        let m = field.marker();
        let to = if source.is_ipv4() { field.v4("open") } else { field.v6("open") };
        let packets = vec![ip_packet(datagram(source, to, 5000, 9, &m).bytes())];
        all.push((base(name, "attacker", "open", packets, "source-address", "from_pod"), m));
    }

    for (name, source, to) in [
        ("from outside as a pod of this node, IPv4", field.v4("open"), field.v4("choosy")),
        ("from outside as a pod of this node, IPv6", field.v6("open"), field.v6("choosy")),
    ] {
        let m = field.marker();
        let packets = vec![ip_packet(datagram(source, to, 5000, 8443, &m).bytes())];
        all.push((base(name, "internet", "choosy", packets, "forged-source", "to_pod"), m));
    }

    for (name, source, to, message) in [
        ("a router advertisement", field.v6("attacker"), field.v6("open"), 134),
        ("an IPv6 redirect", field.v6("attacker"), field.v6("open"), 137),
        ("an IPv4 redirect", field.v4("attacker"), field.v4("open"), 5),
    ] {
        let m = field.marker();
        let mut packet = icmp_message(source, to, message, 0, &m);
        packet.hop_limit = 255;
        let packets = vec![ip_packet(packet.bytes())];
        all.push((base(name, "attacker", "open", packets, "router-claim", "from_pod"), m));
    }

    let m = field.marker();
    let data = m.repeat(600);
    let bytes = datagram(field.v4("choosy"), field.v4("open"), 5000, 9, &data).bytes();
    let packets = vec![Sent { short_linear: true, ..ip_packet(bytes) }];
    let name = "a forged source in a frame of 14 linear bytes";
    all.push((base(name, "attacker", "open", packets, "source-address", "from_pod"), m));

    let (a4, o4) = (field.v4("attacker"), field.v4("open"));
    let (a6, o6) = (field.v6("attacker"), field.v6("open"));
    let m = field.marker();
    let packets = vec![ip_packet(Ip::new(a4, o4, TCP, m.to_vec()).bytes())];
    let name = "a cut TCP header, IPv4";
    all.push((base(name, "attacker", "open", packets, "malformed", "from_pod"), m));
    let m = field.marker();
    let packets = vec![ip_packet(Ip::new(a6, o6, TCP, m.to_vec()).bytes())];
    let name = "a cut TCP header, IPv6";
    all.push((base(name, "attacker", "open", packets, "malformed", "from_pod"), m));
    let m = field.marker();
    let mut long = datagram(a6, o6, 5000, 9, &m);
    long.options = 7;
    let packets = vec![ip_packet(long.bytes())];
    let name = "more extension headers than are followed";
    all.push((base(name, "attacker", "open", packets, "extension-headers", "from_pod"), m));

    let whole = |m: &[u8]| datagram(a4, o4, 5000, 9, m).bytes();
    let m = field.marker();
    let mut short_header = whole(&m);
    short_header[0] = 0x44;
    let n = field.marker();
    let mut short_total = whole(&n);
    short_total.splice(2..4, [0, 10]);
    let o = field.marker();
    let mut sixth = datagram(a6, o6, 5000, 9, &o).bytes();
    sixth[0] = 0x50;
    let p = field.marker();
    let mapped = IpAddr::V6("::ffff:100.68.1.10".parse().expect("a valid address"));
    for (name, bytes, ethertype, m) in [
        ("an IPv4 header of 16 bytes", short_header, ETH_P_IPV4, m),
        ("an IPv4 packet shorter than its header", short_total, ETH_P_IPV4, n),
        ("an IPv6 packet of version 5", sixth, ETH_P_IPV6, o),
        ("a v4-mapped source", datagram(mapped, o6, 5000, 9, &p).bytes(), ETH_P_IPV6, p),
        ("half an IPv6 header", vec![0x60, 0, 0, 0, 0, 0, UDP, 64, 0xfd, 0], ETH_P_IPV6, p),
    ] {
        let packets = vec![Sent { ethertype, bytes, short_linear: false }];
        let attack = base(name, "attacker", "open", packets, "malformed", "from_pod");
        all.push((Attack { control: false, ..attack }, m));
    }

    // What looks like an answer, of a connection that never was.
    let m = field.marker();
    let mut answer = wire::tcp(80, 40_000, SYN | ACK);
    answer.extend(m);
    let packets = vec![ip_packet(Ip::new(a4, field.v4("closed"), TCP, answer).bytes())];
    let name = "a SYN-ACK nobody asked for";
    all.push((base(name, "attacker", "closed", packets, "ingress-denied", "to_pod"), m));
    for (name, source, to) in [
        ("an unasked answer by UDP, IPv4", a4, field.v4("closed")),
        ("an unasked answer by UDP, IPv6", a6, field.v6("closed")),
    ] {
        let m = field.marker();
        let packets = vec![ip_packet(datagram(source, to, 53, 40_000, &m).bytes())];
        all.push((base(name, "attacker", "closed", packets, "ingress-denied", "to_pod"), m));
    }
    for (name, message) in [("an unasked echo reply", 0), ("an echo request", 8)] {
        let m = field.marker();
        let packet = icmp_message(a4, field.v4("closed"), message, 99, &m);
        let packets = vec![ip_packet(packet.bytes())];
        all.push((base(name, "attacker", "closed", packets, "ingress-denied", "to_pod"), m));
    }
    all
}

fn play(field: &mut Field) -> Result<()> {
    for (attack, marker) in attacks(field) {
        field.run(&attack, &marker).with_context(|| attack.name)?;
    }
    Ok(())
}

#[test]
fn no_attack_passes_and_each_is_counted() -> Result<()> {
    let mut field = Field::new()?;
    play(&mut field)?;
    field.start_agents()?;
    play(&mut field)?;
    what_is_honest_passes(&mut field)?;
    field.report();
    Ok(())
}

/// The other side of each attack: the same shape from an honest sender arrives.
fn what_is_honest_passes(field: &mut Field) -> Result<()> {
    for family in Family::BOTH {
        let address = |name| field.cluster.address(name, family);
        let (own, open) = (address("attacker")?, address("open")?);
        let m = field.marker();
        let packets = [ip_packet(datagram(own, open, 5000, 9, &m).bytes())];
        field.check("its own address", "attacker", "open", &packets, &m, true)?;
        let m = field.marker();
        let data = m.repeat(600);
        let packet = ip_packet(datagram(own, open, 5000, 9, &data).bytes());
        let packets = [Sent { short_linear: true, ..packet }];
        field.check("its own address, 14 linear bytes", "attacker", "open", &packets, &m, true)?;
        let m = field.marker();
        let (open, choosy) = (open, field.cluster.address("choosy", family)?);
        let packets = [ip_packet(datagram(open, choosy, 5000, 8443, &m).bytes())];
        field.check("the allowed peer itself", "open", "choosy", &packets, &m, true)?;
    }

    // Duplicate address detection: no source yet.
    let [solicited, target] = ["ff02::1:ff00:10", "fd00:100:68:1::10"]
        .map(|text| IpAddr::V6(text.parse().expect("a valid address")));
    let IpAddr::V6(target) = target else { unreachable!("a v6 address") };
    let unspecified = IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED);
    let mut probe_address = icmp_message(unspecified, solicited, 135, 0, &target.octets());
    // A solicitation has its target right after four reserved bytes.
    probe_address.hop_limit = 255;
    let before = field.count("node-1", "from_pod", "neighbor-discovery")?;
    field.send("attacker", &[ip_packet(probe_address.bytes())])?;
    thread::sleep(SILENT);
    let after = field.count("node-1", "from_pod", "neighbor-discovery")?;
    field.expect("a solicitation from :: passes", after > before, (before, after));

    // The node's own datagram in fragments reaches the closed pod's process.
    let closed = field.v6("closed");
    let answer = field.cluster.namespace("node-1")?.run(|| {
        let socket = UdpSocket::bind("[::]:0")?;
        socket.set_read_timeout(Some(ARRIVES))?;
        socket.send_to(&[7; 3000], (closed, 8443))?;
        let mut buffer = [0; 2048];
        Ok(socket.recv(&mut buffer).map_err(|error| error.to_string()))
    })?;
    field.expect("the node's own fragments arrive", answer.is_ok(), answer);
    Ok(())
}

/// A pod's answered echo opens no way in: a request with the same id is judged for itself.
#[test]
fn flows_open_no_way_for_others() -> Result<()> {
    let mut field = Field::new()?;
    let node = field.cluster.namespace("node-1")?.clone();
    // Masquerading that keeps the port: two pods come to the same tuple on the uplink.
    node.feed(
        "iptables",
        &"-t nat -I POSTROUTING -p udp --sport 4900 -o eth0 -j SNAT --to-source 192.168.65.10:4900"
            .split(' ')
            .collect::<Vec<_>>(),
        "",
    )?;
    for agents in [false, true] {
        if agents {
            field.start_agents()?;
        }
        let (closed, attacker) = (field.v4("closed"), field.v4("attacker"));
        let m = field.marker();
        let request = [ip_packet(icmp_message(closed, attacker, 8, 4321, &m).bytes())];
        field.check("the closed pod's echo", "closed", "attacker", &request, &m, true)?;
        // The attacker's kernel has answered: the reply comes back through the flow.
        let n = field.marker();
        let answer = [ip_packet(icmp_message(attacker, closed, 0, 4321, &n).bytes())];
        field.check("an answer to the echo", "attacker", "closed", &answer, &n, true)?;
        let m = field.marker();
        let request = [ip_packet(icmp_message(attacker, closed, 8, 4321, &m).bytes())];
        field.check("a request with its id", "attacker", "closed", &request, &m, !agents)?;

        let internet = field.v4("internet");
        for (pod, arrives) in [("attacker", true), ("jailed", !agents)] {
            let m = field.marker();
            let before = field.count("node-1", "to_uplink", "egress-denied")?;
            let packet = [ip_packet(datagram(field.v4(pod), internet, 4900, 7, &m).bytes())];
            let within = if arrives { ARRIVES } else { SILENT };
            let got = field.delivered(pod, "internet", &packet, &m, within)?;
            let what = format!("{pod} through the shared tuple, agents {agents}");
            field.expect(&what, got.is_empty() != arrives, got.len());
            let translated = [192, 168, 65, 10];
            let source = got.first().map(|frame| (&frame[26..30], &frame[34..36]));
            let same = source.is_none_or(|s| s == (&translated[..], &4900u16.to_be_bytes()[..]));
            field.expect("both leave by one tuple", same, source);
            let after = field.count("node-1", "to_uplink", "egress-denied")?;
            field.expect("counted as egress-denied", arrives || after > before, (before, after));
            conntrack_forgets(&node, "sport=4900")?;
        }
    }
    field.report();
    Ok(())
}

/// Waits until a node's conntrack has no entry with some words, so that the next sender gets the
/// same translation. Reading the table is what makes the kernel drop entries whose time is up.
fn conntrack_forgets(node: &Namespace, words: &str) -> Result<()> {
    for _ in 0..50 {
        if !node.feed("cat", &["/proc/net/nf_conntrack"], "")?.contains(words) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(100));
    }
    bail!("conntrack keeps {words} for more than five seconds")
}

/// An eBPF instruction: code, destination and source register, offset, constant.
fn insn(code: u64, dst: u64, src: u64, offset: i16, imm: i32) -> u64 {
    code | dst << 8 | src << 12 | u64::from(offset as u16) << 16 | u64::from(imm as u32) << 32
}

/// A third party's program that writes the mark's low byte over the last of the sending device's
/// hardware address: what arrives says that it ran, and what mark it saw.
fn stamp_mark() -> Vec<u64> {
    vec![
        insn(0xbf, 6, 1, 0, 0),   // r6 = context
        insn(0x61, 2, 6, 8, 0),   // r2 = context->mark
        insn(0x73, 10, 2, -8, 0), // byte on the stack
        insn(0xbf, 1, 6, 0, 0),
        insn(0xb7, 2, 0, 0, 11), // the last byte of the sender's address
        insn(0xbf, 3, 10, 0, 0),
        insn(0x07, 3, 0, 0, -8),
        insn(0xb7, 4, 0, 0, 1),
        insn(0xb7, 5, 0, 0, 0),
        insn(0x85, 0, 0, 0, 9), // bpf_skb_store_bytes
        insn(0xb7, 0, 0, 0, -1),
        insn(0x95, 0, 0, 0, 0),
    ]
}

/// A third party's program that sends a copy of each packet it sees out of another device.
fn copy_to(ifindex: u32) -> Vec<u64> {
    vec![
        insn(0xb7, 2, 0, 0, ifindex as i32),
        insn(0xb7, 3, 0, 0, 0),
        insn(0x85, 0, 0, 0, 13), // bpf_clone_redirect
        insn(0xb7, 0, 0, 0, 0),
        insn(0x95, 0, 0, 0, 0),
    ]
}

/// A TCX program and a clsact filter behind ours see what passes and nothing else; marks and the
/// rules that use them stay their owner's.
#[test]
fn neighbours_and_marks_work_on_beside_the_agent() -> Result<()> {
    let mut field = Field::new()?;
    let node = field.cluster.namespace("node-1")?.clone();
    node.ip("link add tap type veth peer name tapped\nlink set tap up\nlink set tapped up")?;
    field.start_agents()?;
    let stamp = bpf::load("stamp_mark", &stamp_mark())?;
    let tap = node.run(|| Ok(nix::net::if_::if_nametoindex("tap")?))?;
    let copy = bpf::load("copy_to", &copy_to(tap))?;
    let pin = field.agents.as_ref().context("the agents run")?.pins().join("copy");
    bpf::pin(&copy, &pin)?;
    let mut links = Vec::new();
    for device in ["v-open", "v-closed"] {
        links.push(node.run(|| {
            let ifindex = nix::net::if_::if_nametoindex(device)?;
            Ok(bpf::attach(&stamp, ifindex, TcSide::Egress, Place::Last)?)
        })?);
        node.feed("tc", &["qdisc", "add", "dev", device, "clsact"], "")?;
        let pin = pin.display();
        let filter = format!("filter add dev {device} egress pref 7 bpf da pinned {pin}");
        node.feed("tc", &filter.split(' ').collect::<Vec<_>>(), "")?;
    }
    let tapped = Raw::open(&node, "tapped")?;
    let rule =
        |text: &str| node.feed("iptables", &text.split(' ').collect::<Vec<_>>(), "").map(drop);
    rule("-t mangle -A PREROUTING -j CONNMARK --restore-mark")?;
    rule("-t mangle -A PREROUTING -i v-attacker -j MARK --set-mark 0x74")?;
    rule("-t mangle -A PREROUTING -i v-attacker -p udp --dport 4444 -j MARK --set-mark 0x55")?;
    rule("-t mangle -A PREROUTING -j CONNMARK --save-mark")?;

    let (attacker, open, closed) = (field.v4("attacker"), field.v4("open"), field.v4("closed"));
    let m = field.marker();
    let packet = [ip_packet(datagram(attacker, open, 5000, 9, &m).bytes())];
    let got = field.delivered("attacker", "open", &packet, &m, ARRIVES)?;
    let seen = got.first().map(|frame| frame[11]);
    field.expect("the program behind sees the mark 0x74", seen == Some(0x74), seen);
    let copies = tapped.capture(&m, 1, ARRIVES)?;
    let seen = copies.first().map(|frame| frame[11]);
    field.expect("the filter behind both sees what passes", seen == Some(0x74), seen);
    let m = field.marker();
    let packet = [ip_packet(datagram(attacker, closed, 5000, 9, &m).bytes())];
    field.check("a marked packet to the closed pod", "attacker", "closed", &packet, &m, false)?;
    let copies = tapped.capture(&m, 1, SILENT)?.len();
    field.expect("and nothing of what does not", copies == 0, copies);

    // Whether a rule for a mark still matches.
    let m = field.marker();
    let packet = [ip_packet(datagram(attacker, open, 5001, 4444, &m).bytes())];
    field.check("the mark 0x55 without a rule", "attacker", "open", &packet, &m, true)?;
    node.ip("rule add fwmark 0x55 lookup 100\nroute add blackhole default table 100")?;
    let m = field.marker();
    let packet = [ip_packet(datagram(attacker, open, 5001, 4444, &m).bytes())];
    field.check("a rule for the mark 0x55", "attacker", "open", &packet, &m, false)?;

    let reply = |name| {
        let to = field.v4(name);
        let from = field.cluster.namespace("attacker")?;
        anyhow::Ok(probe(from, to, Kind::Tcp(80), PATIENCE).replied())
    };
    let (to_open, to_closed) = (reply("open")?, reply("closed")?);
    field.expect("a connection through all marks", to_open && !to_closed, (to_open, to_closed));
    drop(links);
    field.report();
    Ok(())
}

/// The address plan that the attacks spell out.
#[test]
fn the_attacker_has_the_address_that_is_solicited_for() {
    assert_eq!(twin(Ipv4Addr::new(100, 68, 1, 10)).to_string(), "fd00:100:68:1::10");
}
