//! The programs in the kernel say what `np_common::decide` says on the host.
//!
//! Random tables, packets, tags and devices; both sides start from the same maps and must agree on
//! verdict, Reason, tag and, at the end, on every flow they recorded.
//!
//! A test run sets a packet's devices but not its tag. So the programs, as the agent loads them,
//! are called from a small one that copies the tag from the control buffer:
//!
//! ```text
//!  first pass   skb->tc_index = cb[0]; tail call into program cb[1]     → verdict
//!  second pass  cb[3] = skb->tc_index                                   → the tag it left behind
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use aya::maps::{HashMap, Map, MapData};
use ipnet::IpNet;
use np_agent::dataplane::{self, Counters, Maps, Opened, Options};
use np_agent::plan::simulate::Simulated;
use np_agent::plan::{PortPrefix, RulePrefix, Scope, Tables, diff};
use np_common::addr::Addr;
use np_common::config::Config;
use np_common::decide::{Context, decide};
use np_common::direction::Hook;
use np_common::endpoint::{Endpoint, EndpointId, Iface, PolicyWord, Role};
use np_common::flow::{Flow, FlowKey, State, Time};
use np_common::packet::{
    ACK, ECHO, ETH_P_IPV4, ETH_P_IPV6, FIN, ICMP, ICMPV6, RST, SCTP, SYN, TCP, UDP,
};
use np_common::rules::{ClassId, RuleSetId};
use np_common::tag::Tag;
use np_common::tunnel::{Encapsulation, IPIP, SIT};
use np_common::verdict::{Action, Reason, Verdict};
use np_tests::bpf::{self, SkBuff, TC_ACT_SHOT, TC_ACT_UNSPEC, insn};
use np_tests::sandbox::{ip, sandbox};
use np_tests::wire::{self, Fragment, Ip};

const ROUNDS: usize = 60;
const PACKETS_PER_ROUND: usize = 100;

#[test]
fn the_programs_agree_with_decide_on_the_host() {
    let seed = match std::env::var("NP_TEST_SEED") {
        Ok(seed) => seed.parse().expect("NP_TEST_SEED is a number"),
        Err(_) => 0x6e70_2d61_6765_6e74,
    };
    println!("NP_TEST_SEED={seed}");
    sandbox(move |pin_dir| {
        let mut random = Random(seed);
        for (ifindex, _) in DEVICES {
            let pair = format!("d{ifindex} index {ifindex} type veth peer name p{ifindex}");
            ip(&format!("link add name {pair} index {}", ifindex + 1000))?;
        }
        let mut kernel = Kernel::new(pin_dir)?;
        let (mut flows, mut fragments) = (BTreeMap::new(), BTreeMap::new());
        let mut seen = BTreeMap::<(Hook, Reason), usize>::new();
        for round in 0..ROUNDS {
            let desired = random.tables();
            kernel.change(&desired)?;
            let tables = kernel.tables.clone();
            let simulated = Simulated::new(&tables);
            kernel.plant(&mut random, &mut flows)?;
            simulated.flows.replace(flows);
            simulated.fragments.replace(fragments);
            for packet in 0..PACKETS_PER_ROUND {
                let known = random.flow(&simulated.flows.borrow());
                let case = match known {
                    Some((key, flow)) => random.follow_up(&key, &flow),
                    None => random.case(),
                };
                // The first time for the verdict, the second for the tag: as two packets, since
                // the first leaves its mark on the flow.
                for pass in [Pass::Verdict, Pass::Tag] {
                    let context = case.context(kernel.now());
                    let expected = decide(case.hook, &simulated, case.frame.as_slice(), &context);
                    kernel.judge(&case, pass, &expected).with_context(|| {
                        format!(
                            "round {round}, packet {packet}, {pass:?}: {case:x?}\n{:#?}",
                            kernel.tables
                        )
                    })?;
                    *seen.entry((case.hook, expected.reason)).or_default() += 1;
                }
            }
            flows = simulated.flows.take();
            fragments = simulated.fragments.take();
            kernel.compare_flows(&flows).with_context(|| format!("after round {round}"))?;
        }
        println!("{:<12} {:<20} packets", "hook", "reason");
        for ((hook, reason), packets) in &seen {
            println!("{:<12} {:<20} {packets}", hook.name(), reason.name());
        }
        let reasons: BTreeSet<_> = seen.keys().map(|(_, reason)| *reason).collect();
        let missed: Vec<_> = Reason::ALL.iter().filter(|r| !reasons.contains(r)).collect();
        ensure!(missed.is_empty(), "no packet came to {missed:?}");
        for hook in [Hook::FromPod, Hook::FromUplink] {
            for reason in [Reason::Reply, Reason::EgressDenied] {
                ensure!(seen.contains_key(&(hook, reason)), "no {reason:?} at {hook:?}");
            }
        }
        let packets: usize = seen.values().sum();
        ensure!(packets >= 2_000, "only {packets} packets");
        println!("{packets} packets, {} flows: all equal", flows.len());
        Ok(())
    });
}

/// The devices of the sandbox, by ifindex and the Ethernet header they have. 65,541 shares its
/// slot in IFACES with 5.
const DEVICES: [(u32, bool); 9] = [
    (5, true),
    (6, true),
    (7, true),
    (8, true),
    (9, true),
    (10, false),
    (11, true),
    (12, false),
    (65_541, true),
];

/// One packet at one hook.
#[derive(Clone, Debug)]
struct Case {
    hook: Hook,
    ifindex: u32,
    ingress_ifindex: u32,
    tag: Tag,
    frame: Vec<u8>,
}

impl Case {
    fn context(&self, time: Time) -> Context {
        // As eth_type_trans does: below 0x600 it is a length, and the packet no IP.
        let field = u16::from_be_bytes([self.frame[12], self.frame[13]]);
        Context {
            ifindex: self.ifindex,
            ingress_ifindex: self.ingress_ifindex,
            tag: self.tag,
            ethertype: if field < 0x600 { 0x0004 } else { field },
            time,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    Verdict,
    Tag,
}

/// The side that is tested: the agent's maps and programs.
struct Kernel {
    maps: Maps,
    tables: Tables,
    counters: Counters,
    flows: HashMap<MapData, FlowKey, Flow>,
    caller: OwnedFd,
    /// What the caller calls; the kernel empties it when nobody holds it open.
    _programs: OwnedFd,
    hz: u32,
    start: Instant,
    /// Ticks at `start`.
    ticks: u32,
}

impl Kernel {
    fn new(pin_dir: &Path) -> anyhow::Result<Self> {
        let opened = dataplane::open(&Options { pin_dir: pin_dir.to_owned(), mechanism: None })?;
        let Opened { maps, attacher, tables, .. } = opened;
        ensure!(tables == Tables::default(), "a fresh pin directory is empty");
        let programs = Hook::ALL.map(|hook| attacher.program(hook));
        let programs: Vec<&dyn AsFd> = programs.iter().map(|fd| fd as &dyn AsFd).collect();
        let programs = bpf::program_array(&programs)?;
        let caller = bpf::load("caller", &caller(&programs))?;

        let flows = MapData::from_pin(pin_dir.join("v1/maps/FLOWS"))?;
        let flows = HashMap::try_from(Map::LruHashMap(flows))?;
        let counters = maps.counters()?;
        let (start, ticks, hz) = (Instant::now(), 0, bpf::ticks_per_second()?);
        let mut kernel =
            Self { maps, tables, counters, flows, caller, _programs: programs, hz, start, ticks };
        kernel.set_clock()?;
        Ok(kernel)
    }

    /// Reads the kernel's clock off a flow that a program records.
    fn set_clock(&mut self) -> anyhow::Result<()> {
        let mut tables = Tables::default();
        tables.ifaces.insert(5, Iface::new(5, Role::Pod, EndpointId::new(1)));
        self.change(&tables)?;
        let [a, b] = [addr("10.0.0.1"), addr("10.0.0.2")];
        let frame = Ip::new(a, b, UDP, wire::udp(1, 2)).frame();
        let tag = Tag::ENTERED;
        let case = Case { hook: Hook::ToPod, ifindex: 5, ingress_ifindex: 6, tag, frame };
        self.judge(&case, Pass::Verdict, &Verdict { reason: Reason::NotIsolated, tag })?;
        self.start = Instant::now();
        let keys: Vec<FlowKey> = self.flows.keys().collect::<Result<_, _>>()?;
        let [key] = keys[..] else { anyhow::bail!("one flow, not {keys:?}") };
        self.ticks = self.flows.get(&key, 0)?.seen;
        self.flows.remove(&key)?;
        Ok(())
    }

    fn now(&self) -> Time {
        let elapsed = self.start.elapsed().as_millis() as u32 * self.hz / 1000;
        Time { now: self.ticks.wrapping_add(elapsed), hz: self.hz }
    }

    /// Brings the maps from what they hold to other tables, as the agent does.
    fn change(&mut self, desired: &Tables) -> anyhow::Result<()> {
        for op in diff(&self.tables, desired, &Scope::everything()) {
            self.maps.apply(&op)?;
            op.apply(&mut self.tables);
        }
        let actual = self.maps.tables()?;
        ensure!(actual == self.tables, "the maps hold\n{actual:#?}\nnot\n{:#?}", self.tables);
        Ok(())
    }

    /// Makes some flows look idle for about as long as they may be.
    fn plant(
        &mut self,
        random: &mut Random,
        flows: &mut BTreeMap<FlowKey, Flow>,
    ) -> anyhow::Result<()> {
        let Time { now, hz } = self.now();
        for (key, flow) in flows.iter_mut() {
            if !random.one_in(4) {
                continue;
            }
            let (state, timeout) = random.pick([
                (State::Opening, 120),
                (State::Established, 5 * 24 * 3600),
                (State::Closing, 120),
                (State::Datagram, 180),
            ]);
            let idle = timeout + random.pick([0, 60]) - 30;
            let then = Time { now: now.wrapping_sub(idle * hz), hz };
            *flow = Flow::new(flow.generation, then, flow.source(), flow.destination(), state);
            self.flows.insert(key, *flow, 0)?;
        }
        Ok(())
    }

    fn judge(&mut self, case: &Case, pass: Pass, expected: &Verdict) -> anyhow::Result<()> {
        let cb = [u32::from(case.tag.bits()), case.hook as u32, 0, 0, 0];
        let Case { ifindex, ingress_ifindex, .. } = *case;
        let skb = SkBuff::new(ifindex, ingress_ifindex, cb);
        let repeat = if pass == Pass::Tag { 2 } else { 1 };
        let run = bpf::test_run(&self.caller, &case.frame, &skb, repeat).context("test run")?;

        let counters = self.maps.counters()?;
        let counted: Vec<_> =
            counters.since(&self.counters).iter().filter(|(_, _, packets)| *packets != 0).collect();
        self.counters = counters;
        ensure!(
            counted == [(case.hook, expected.reason, 1)],
            "the kernel counts {counted:?}, the host says {expected:?}"
        );
        match pass {
            Pass::Verdict => {
                let verdict = match expected.action() {
                    Action::Pass => TC_ACT_UNSPEC,
                    Action::Drop => TC_ACT_SHOT,
                };
                ensure!(run.verdict == verdict, "{:#x} for {expected:?}", run.verdict);
            }
            Pass::Tag => {
                let tag = run.skb.cb[3];
                ensure!(tag == u32::from(expected.tag.bits()), "tag {tag:#x}, not {expected:x?}");
            }
        }
        Ok(())
    }

    /// Both sides know the same flows; the ticks when they were seen may differ by a few.
    fn compare_flows(&self, expected: &BTreeMap<FlowKey, Flow>) -> anyhow::Result<()> {
        let actual: BTreeMap<FlowKey, Flow> = self.flows.iter().collect::<Result<_, _>>()?;
        for (key, flow) in expected {
            let found = actual.get(key).with_context(|| format!("{key:?} is not in the kernel"))?;
            let mut same = *flow;
            same.seen = found.seen;
            ensure!(
                same == *found && flow.seen.abs_diff(found.seen) < 2 * self.hz,
                "{key:?} is {found:?} in the kernel, {flow:?} on the host"
            );
        }
        ensure!(actual.len() == expected.len(), "the kernel knows more flows than the host");
        Ok(())
    }
}

fn caller(programs: &OwnedFd) -> Vec<u64> {
    const CB: i16 = 48;
    const TC_INDEX: i16 = 44;
    const LOAD: u8 = 0x61;
    const STORE: u8 = 0x63;
    const MOVE: u8 = 0xbf;
    const SET: u8 = 0xb7;
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    const TAIL_CALL: i32 = 12;
    vec![
        insn(MOVE, 6, 1, 0, 0),
        insn(LOAD, 2, 6, CB + 8, 0),
        insn(0x55, 2, 0, 11, 0), // if it is not 0: the second pass
        insn(SET, 2, 0, 0, 1),
        insn(STORE, 6, 2, CB + 8, 0),
        insn(LOAD, 2, 6, CB, 0),
        insn(STORE, 6, 2, TC_INDEX, 0),
        insn(LOAD, 3, 6, CB + 4, 0),
        insn(MOVE, 1, 6, 0, 0),
        insn(0x18, 2, 1, 0, programs.as_raw_fd()), // the map, in two instructions
        0,
        insn(CALL, 0, 0, 0, TAIL_CALL),
        insn(SET, 0, 0, 0, 0x7e), // no such program
        insn(EXIT, 0, 0, 0, 0),
        insn(LOAD, 2, 6, TC_INDEX, 0),
        insn(STORE, 6, 2, CB + 12, 0),
        insn(SET, 0, 0, 0, 0),
        insn(EXIT, 0, 0, 0, 0),
    ]
}

fn addr(text: &str) -> IpAddr {
    text.parse().expect("a valid address")
}

/// SplitMix64: a seed names a run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy, const N: usize>(&mut self, from: [T; N]) -> T {
        from[self.below(N)]
    }

    /// Few addresses, so that packets meet flows, peers and each other's sources. Those that start
    /// with 8.0 or have 86dd in the third word pass for IP on a device without Ethernet header,
    /// where the test run reads its ethertype from the source address.
    fn addr(&mut self, v4: bool) -> IpAddr {
        addr(if v4 {
            self.pick(["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.1.0.9", "192.0.2.7", "8.0.0.1"])
        } else {
            self.pick(["fd00::1", "fd00::2", "fd00::3", "fd01::9", "2001:db8:86dd::1", "fe80::5"])
        })
    }

    fn rule_set(&mut self) -> RuleSetId {
        RuleSetId::new(self.pick([1, 2, 3]))
    }

    fn tables(&mut self) -> Tables {
        let mut tables = Tables { config: Config::new(0, self.one_in(3)), ..Tables::default() };
        for (ifindex, ethernet) in DEVICES {
            let role = match ifindex {
                7 => self.pick([Role::Pending, Role::Foreign]),
                9 | 10 => Role::Uplink,
                11 | 12 => Role::Tunnel,
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
            tables.endpoints.insert(id, Endpoint { addrs, policy });
            for addr in addrs.into_iter().filter(|addr: &Addr| !addr.is_unspecified()) {
                tables.local.insert(addr, id);
            }
        }
        for _ in 0..self.below(12) {
            let v4 = self.one_in(2);
            let len = if v4 {
                self.pick([0, 8, 16, 24, 31, 32])
            } else {
                self.pick([0, 16, 64, 127, 128])
            };
            let prefix = IpNet::new(self.addr(v4), len).expect("a valid length").trunc();
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

    fn port(&mut self) -> u16 {
        self.pick([53, 80, 443, 8443])
    }

    fn case(&mut self) -> Case {
        let hook = self.pick(Hook::ALL);
        let pods = [5, 6, 7, 8, 65_541, 5, 6];
        let others = [9, 10, 11, 12];
        let ifindex = match hook {
            Hook::FromPod | Hook::ToPod => self.pick(pods),
            Hook::FromUplink | Hook::ToUplink => self.pick(others),
        };
        let ingress_ifindex = if self.one_in(5) { 0 } else { self.pick([5, 6, 65_541, 9, 4242]) };
        let mut tag = match self.below(8) {
            0 | 1 => Tag::NONE,
            2 | 3 => Tag::ENTERED,
            _ => Tag::of(EndpointId::new(self.pick([1, 2, 3]))),
        };
        if self.one_in(12) {
            tag = tag.with_flow_ok();
            if self.one_in(2) {
                tag = tag.with_may_wrap();
            }
        }
        if self.one_in(8) {
            tag = tag.with_egress_judged();
        }
        let ethernet = DEVICES.iter().any(|(device, ethernet)| *device == ifindex && *ethernet);
        let frame = self.frame(ethernet);
        Case { hook, ifindex, ingress_ifindex, tag, frame }
    }

    /// Sometimes a flow that has been recorded.
    fn flow(&mut self, flows: &BTreeMap<FlowKey, Flow>) -> Option<(FlowKey, Flow)> {
        if flows.is_empty() || !self.one_in(3) {
            return None;
        }
        let (key, flow) = flows.iter().nth(self.below(flows.len()))?;
        Some((*key, *flow))
    }

    /// A packet of a flow, either way; mostly where it belongs.
    fn follow_up(&mut self, key: &FlowKey, flow: &Flow) -> Case {
        if self.one_in(4) {
            return self.error_about(key, flow);
        }
        let mut case = self.packet_of(key, flow);
        if self.one_in(6) {
            case.frame = self.in_pieces(&case.frame);
        }
        case
    }

    /// The same packet as a piece of a datagram.
    fn in_pieces(&mut self, frame: &[u8]) -> Vec<u8> {
        let mut frame = frame.to_vec();
        if u16::from_be_bytes([frame[12], frame[13]]) == ETH_P_IPV4 {
            let [high, low] = self.pick([[0x20, 0], [0x20, 0xb9], [0, 0xb9]]);
            frame.splice(18..22, [0, self.pick([1, 2]), high, low]);
        } else {
            let next = std::mem::replace(&mut frame[20], 44);
            let [high, low] = self.pick([[0, 1], [5, 0xc9], [5, 0xc8]]);
            let id = self.pick([1, 2]);
            frame.splice(54..54, [next, 0, high, low, 0, 0, 0, id]);
        }
        frame
    }

    /// An ICMP error about a packet of the flow, from either end or the way between.
    fn error_about(&mut self, key: &FlowKey, flow: &Flow) -> Case {
        let mut case = self.packet_of(key, flow);
        let about = case.frame[14..].to_vec();
        let v4 = key.src.is_v4();
        // What comes in at `from_*` is about a packet of the flow itself, so the other way round
        // than the reply there; what leaves at `to_*` is about a reply.
        let at_entry = matches!(case.hook, Hook::FromPod | Hook::FromUplink);
        let key = if at_entry { *key } else { key.reversed() };
        let quoted = if self.one_in(5) { about } else { self.bytes_of(&key) };
        let keep = self.pick([20, 28, 40, 48, 56]).min(quoted.len());
        let (protocol, message) = if v4 { (ICMP, 3) } else { (ICMPV6, 2) };
        let payload = [&wire::icmp(message, 0)[..], &quoted[..keep]].concat();
        let from = if self.one_in(3) { self.addr(v4) } else { key.dst.into() };
        let to = if self.one_in(6) { self.addr(v4) } else { key.src.into() };
        case.frame = Ip::new(from, to, protocol, payload).frame();
        case
    }

    /// A packet with this tuple, without a link header.
    fn bytes_of(&mut self, key: &FlowKey) -> Vec<u8> {
        let payload = self.payload_of(key);
        Ip::new(key.src.into(), key.dst.into(), key.protocol as u8, payload).bytes()
    }

    fn packet_of(&mut self, key: &FlowKey, flow: &Flow) -> Case {
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
        let tag = if reply { Tag::NONE } else { tag };
        let frame = wire::ethernet(
            if key.src.is_v4() { ETH_P_IPV4 } else { ETH_P_IPV6 },
            &self.bytes_of(&key),
        );
        Case { hook, ifindex, ingress_ifindex, tag, frame }
    }

    fn payload_of(&mut self, key: &FlowKey) -> Vec<u8> {
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

    fn frame(&mut self, ethernet: bool) -> Vec<u8> {
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

    fn ip(&mut self, ethernet: bool) -> Ip {
        let v4 = self.one_in(2);
        let src = match (ethernet, v4) {
            (true, _) => self.addr(v4),
            (false, true) => addr("8.0.0.1"),
            (false, false) => addr("2001:db8:86dd::1"),
        };
        let src = if !v4 && ethernet && self.one_in(40) { addr("::") } else { src };
        let dst = self.addr(v4);
        let icmp = if v4 { ICMP } else { ICMPV6 };
        let protocol = self.pick([TCP, TCP, TCP, UDP, UDP, SCTP, icmp, icmp, icmp, 47, IPIP, SIT]);
        let (sport, dport) = (self.port(), self.port());
        let flags = self.pick([SYN, SYN | ACK, ACK, ACK, FIN | ACK, RST]);
        let message = if v4 {
            self.pick([8, 0, 8, 0, 3, 5, 11, 13])
        } else {
            self.pick([128, 129, 1, 2, 130, 133, 134, 135, 136, 137, 143, 160])
        };
        let mut payload = wire::transport(protocol, sport, dport, flags, message);
        if let (ICMPV6, 136, IpAddr::V6(claimed)) = (protocol, message, self.addr(false)) {
            payload = wire::advertisement(claimed);
        }
        let mut ip = Ip::new(src, dst, protocol, payload);
        ip.hop_limit = self.pick([64, 255, 255, 1, 1]);
        if self.one_in(12) {
            let offset = self.pick([0, 0, 185, 0x1fff]);
            ip.fragment = Some(Fragment { offset, more: !self.one_in(4), id: self.pick([1, 2]) });
        }
        if self.one_in(6) {
            ip.options = self.pick([1, 2, 5, 6, 7, 8]);
        }
        ip
    }
}
