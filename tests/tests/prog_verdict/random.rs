//! Random tables and packets.

use super::*;

/// SplitMix64: a seed names a run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<T: Copy, const N: usize>(&mut self, from: [T; N]) -> T {
        from[self.below(N)]
    }

    /// Few addresses, so that packets meet flows, peers and each other's sources. Those that start
    /// with 8.0 or have 86dd in the third word pass for IP on a device without Ethernet header,
    /// where the test run reads its ethertype from the source address.
    pub(crate) fn addr(&mut self, v4: bool) -> IpAddr {
        addr(if v4 {
            self.pick(["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.1.0.9", "192.0.2.7", "8.0.0.1"])
        } else {
            self.pick(["fd00::1", "fd00::2", "fd00::3", "fd01::9", "2001:db8:86dd::1", "fe80::5"])
        })
    }

    pub(crate) fn rule_set(&mut self) -> RuleSetId {
        RuleSetId::new(self.pick([1, 2, 3]))
    }

    pub(crate) fn tables(&mut self) -> Tables {
        let mut tables = Tables { config: Config::new(0, self.one_in(3)), ..Tables::default() };
        for (ifindex, ethernet) in DEVICES {
            let role = match ifindex {
                7 => self.pick([Role::Pending, Role::Foreign]),
                9 | 10 => Role::Uplink,
                11 => Role::Tunnel,
                12 => self.pick([Role::Tunnel, Role::Stacked]),
                // Known to the programs only by what is attached.
                8 if self.one_in(2) => continue,
                _ => Role::Pod,
            };
            let id = match (role, ifindex) {
                (Role::Pod, 5) => 1,
                (Role::Pod, 6) => 2,
                (Role::Pod, _) => self.pick([3, 4]),
                _ => 0,
            };
            let iface = Iface::new(ifindex, role, EndpointId::new(id));
            tables.ifaces.insert(ifindex, if ethernet { iface } else { iface.with_layer3() });
        }
        for (id, v4, v6) in [
            (1, "10.0.0.1", "fd00::1"),
            (2, "10.0.0.2", "fd00::2"),
            (3, "10.0.0.3", "fd00::3"),
            (4, "10.0.0.4", "::"),
        ] {
            let id = EndpointId::new(id);
            let mut isolated = || (!self.one_in(3)).then(|| self.rule_set());
            let policy = PolicyWord::new(isolated(), isolated());
            let addrs = [addr(v4).into(), addr(v6).into()];
            // One that is free now and then, or newer than some flows.
            if self.one_in(8) {
                continue;
            }
            tables.endpoints.insert(id, Endpoint::new(addrs, policy, 0));
            for addr in addrs.into_iter().filter(|addr: &Addr| !addr.is_unspecified()) {
                tables.local.insert(addr, id);
            }
        }
        for _ in 0..self.below(5) {
            tables.sources.insert((EndpointId::new(self.pick([1, 2, 3, 4])), self.prefix()));
        }
        for _ in 0..self.below(12) {
            let prefix = self.prefix();
            tables.peers.insert(prefix, ClassId::new(self.pick([1, 2, 3])));
        }
        for _ in 0..self.below(24) {
            let protocol = self.pick([TCP, UDP, SCTP, ICMP, ICMPV6]);
            let ports = match self.below(4) {
                0 => PortPrefix::EVERYTHING,
                1 => PortPrefix::protocol(protocol),
                _ => {
                    let bits = self.pick([16, 13, 8]);
                    let mask = (u32::from(u16::MAX) << (16 - bits)) as u16;
                    PortPrefix::ports(protocol, self.port() & mask, bits)
                }
            };
            let class = ClassId::new(self.pick([0, 1, 2, 3]));
            tables.rules.insert(RulePrefix { rule_set: self.rule_set(), class, ports });
        }
        let tunnels = [53, 80, 443, 8443, 8472].map(Encapsulation::Udp);
        for tunnel in tunnels.into_iter().chain([IPIP, SIT, 47].map(Encapsulation::Protocol)) {
            if self.one_in(4) {
                tables.tunnels.insert(tunnel);
            }
        }
        tables
    }

    pub(crate) fn prefix(&mut self) -> IpNet {
        let v4 = self.one_in(2);
        let len =
            if v4 { self.pick([0, 8, 16, 24, 31, 32]) } else { self.pick([0, 16, 64, 127, 128]) };
        IpNet::new(self.addr(v4), len).expect("a valid length").trunc()
    }

    pub(crate) fn port(&mut self) -> u16 {
        self.pick([53, 80, 443, 8443])
    }

    pub(crate) fn case(&mut self) -> Case {
        let hook = self.pick(Hook::ALL);
        let pods = [5, 6, 7, 8, 65_541, 5, 6];
        let others = [9, 10, 11, 12];
        let ifindex = match hook {
            Hook::FromPod | Hook::ToPod => self.pick(pods),
            Hook::FromUplink | Hook::ToUplink => self.pick(others),
        };
        let ingress_ifindex = if self.one_in(5) { 0 } else { self.pick([5, 6, 65_541, 9, 4242]) };
        let tag = self.tag();
        let ethernet = DEVICES.iter().any(|(device, ethernet)| *device == ifindex && *ethernet);
        let frame = self.frame(ethernet);
        Case { hook, ifindex, ingress_ifindex, tag, frame }
    }

    fn tag(&mut self) -> Tag {
        let (one, other) = (self.id(), self.id());
        match self.below(12) {
            0 => Tag::LOST,
            1 => Tag::from_bits(self.next() as u16),
            2 => Tag::ENTERED,
            3 => Tag::reply(one, other),
            4 => Tag::judged(one),
            _ => {
                let began = self.pick([Began::Sender, Began::Receiver, Began::Unknown]);
                Tag::of(one).with_began(began)
            }
        }
    }

    fn id(&mut self) -> EndpointId {
        EndpointId::new(self.pick([0, 1, 2, 3, 4]))
    }

    /// Sometimes a flow that has been recorded.
    pub(crate) fn flow(&mut self, flows: &BTreeMap<FlowKey, Flow>) -> Option<(FlowKey, Flow)> {
        if flows.is_empty() || !self.one_in(3) {
            return None;
        }
        let (key, flow) = flows.iter().nth(self.below(flows.len()))?;
        Some((*key, *flow))
    }

    /// A packet of a flow, either way; mostly where it belongs.
    pub(crate) fn follow_up(&mut self, key: &FlowKey, flow: &Flow) -> Case {
        if self.one_in(4) { self.error_about(key, flow) } else { self.packet_of(key, flow) }
    }

    /// An ICMP error about a packet of the flow, from either end or the way between.
    pub(crate) fn error_about(&mut self, key: &FlowKey, flow: &Flow) -> Case {
        let mut case = self.packet_of(key, flow);
        let v4 = key.src.is_v4();
        // What comes in at `from_*` is about a packet of the flow itself, so the other way round
        // than the reply there; what leaves at `to_*` is about a reply.
        let at_entry = matches!(case.hook, Hook::FromPod | Hook::FromUplink);
        let key = if at_entry { *key } else { key.reversed() };
        let quoted = if self.one_in(5) { key.reversed() } else { key };
        let quoted = self.ip_of(&quoted);
        let (protocol, message) = if v4 { (ICMP, 3) } else { (ICMPV6, 2) };
        let payload = wire::icmp_error(message, &quoted, self.pick([20, 28, 40, 48, 56]));
        let from = if self.one_in(3) { self.addr(v4) } else { key.dst.into() };
        let to = if self.one_in(6) { self.addr(v4) } else { key.src.into() };
        case.frame = Ip::new(from, to, protocol, payload).frame();
        case
    }

    /// A packet with this tuple.
    pub(crate) fn ip_of(&mut self, key: &FlowKey) -> Ip {
        let payload = self.payload_of(key);
        // Without the leg, which no packet carries.
        Ip::new(key.src.into(), key.dst.into(), key.protocol as u8, payload)
    }

    /// A piece of one of few datagrams.
    pub(crate) fn fragment(&mut self) -> Fragment {
        let offset = self.pick([0, 0, 185, 0x1fff]);
        Fragment { offset, more: !self.one_in(4), id: self.pick([1, 2]) }
    }

    pub(crate) fn packet_of(&mut self, key: &FlowKey, flow: &Flow) -> Case {
        let device = |id: EndpointId, uplink| match id.get() {
            1 => 5,
            2 => 6,
            3 | 4 => 65_541,
            _ => uplink,
        };
        let uplink = self.pick([9, 11]);
        let source = device(flow.source(), uplink);
        let destination = device(flow.destination(), uplink);
        let reply = !self.one_in(3);
        let (hook, ifindex, ingress_ifindex, sender, key) = if reply {
            let pod = !flow.destination().is_none();
            let hook = if pod { Hook::FromPod } else { Hook::FromUplink };
            (hook, destination, destination, EndpointId::NONE, key.reversed())
        } else {
            let pod = !flow.destination().is_none();
            let hook = if pod { Hook::ToPod } else { Hook::ToUplink };
            (hook, destination, source, flow.source(), *key)
        };
        let tag = if sender.is_none() { Tag::ENTERED } else { Tag::of(sender) };
        let tag = if reply { Tag::LOST } else { tag };
        let mut ip = self.ip_of(&key);
        if self.one_in(6) {
            ip.fragment = Some(self.fragment());
        }
        let frame = ip.frame();
        Case { hook, ifindex, ingress_ifindex, tag, frame }
    }

    pub(crate) fn payload_of(&mut self, key: &FlowKey) -> Vec<u8> {
        let (sport, dport) = (u16::from_be(key.sport), u16::from_be(key.dport));
        match key.protocol as u8 {
            ICMP if key.sport == ECHO => wire::icmp(0, dport),
            ICMP => wire::icmp(8, sport),
            ICMPV6 if key.sport == ECHO => wire::icmp(129, dport),
            ICMPV6 => wire::icmp(128, sport),
            protocol => {
                let flags = self.pick([SYN, SYN | ACK, ACK, FIN | ACK, RST]);
                wire::transport(protocol, sport, dport, flags, 0)
            }
        }
    }

    pub(crate) fn frame(&mut self, ethernet: bool) -> Vec<u8> {
        let packet = self.ip(ethernet);
        let mut bytes = if !ethernet {
            packet.bytes()
        } else if self.one_in(40) {
            let sender = self.pick(["10.0.0.1", "10.0.0.2", "0.0.0.0"]);
            let [sender, target] = [sender, "10.0.0.9"].map(|text| text.parse().expect("valid"));
            wire::ethernet(0x0806, &wire::arp(sender, target))
        } else if self.one_in(30) {
            let ethertype = self.pick([0x0806, 0x8100, 0x88a8, 0x88cc, 0x0100, 0x0800, 0x86dd]);
            wire::ethernet(ethertype, &packet.bytes())
        } else {
            packet.frame()
        };
        if self.one_in(15) {
            let start = if ethernet { 14 } else { 0 };
            let at = start + self.below(bytes.len() - start);
            bytes[at] ^= 1 << self.below(8);
        }
        // A test run refuses what is shorter than the IP header that bytes 12 and 13 promise.
        let least = match u16::from_be_bytes([bytes[12], bytes[13]]) {
            ETH_P_IPV4 => 34,
            ETH_P_IPV6 => 54,
            _ => 15,
        };
        if bytes.len() < least {
            bytes.resize(least, 0);
        } else if self.one_in(15) {
            bytes.truncate(least + self.below(bytes.len() - least + 1));
        }
        bytes
    }

    /// A listener message, mostly as its RFC has it.
    fn listener(&mut self) -> Ip {
        let mut payload = vec![ICMPV6, 0, 5, 2, 0, 0, 1, 0];
        payload.extend(wire::icmp(self.pick([130, 131, 132, 143]), 1));
        payload.resize(8 + self.pick([24, 28, 48, 50]), 0);
        let src = self.pick(["fe80::5", "fe80::5", "::", "fd00::1"]);
        let mut ip = Ip::new(addr(src), addr("ff02::16"), 0, payload);
        ip.hop_limit = self.pick([1, 1, 1, 2]);
        ip
    }

    pub(crate) fn ip(&mut self, ethernet: bool) -> Ip {
        let v4 = self.one_in(2);
        let src = match (ethernet, v4) {
            (true, _) => self.addr(v4),
            (false, true) => addr("8.0.0.1"),
            (false, false) => addr("2001:db8:86dd::1"),
        };
        let src = if !v4 && ethernet && self.one_in(40) { addr("::") } else { src };
        let dst = self.addr(v4);
        let icmp = if v4 { ICMP } else { ICMPV6 };
        let protocol =
            self.pick([TCP, TCP, TCP, UDP, UDP, SCTP, icmp, icmp, icmp, 47, ESP, IPIP, SIT]);
        let (sport, dport) = (self.port(), self.port());
        let flags = self.pick([SYN, SYN | ACK, ACK, ACK, FIN | ACK, RST]);
        let message = if v4 {
            self.pick([8, 0, 8, 0, 3, 5, 11, 13])
        } else {
            self.pick([128, 129, 1, 2, 130, 133, 134, 135, 136, 137, 143, 160])
        };
        if !v4 && self.one_in(20) {
            return self.listener();
        }
        let mut payload = wire::transport(protocol, sport, dport, flags, message);
        if let (ICMPV6, 136, IpAddr::V6(claimed)) = (protocol, message, self.addr(false)) {
            payload = wire::advertisement(claimed);
        }
        let mut ip = Ip::new(src, dst, protocol, payload);
        ip.hop_limit = self.pick([64, 255, 255, 1, 1]);
        if self.one_in(12) {
            ip.fragment = Some(self.fragment());
        }
        if self.one_in(6) {
            ip.options = self.pick([1, 2, 5, 6, 7, 8]);
        }
        ip
    }
}
