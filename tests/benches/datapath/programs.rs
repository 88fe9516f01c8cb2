//! Each program alone, by `BPF_PROG_TEST_RUN`, by the number of rules and of peers. Every packet is of
//! another flow, of ten thousand that are known or of none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Result, ensure};
use np_agent::dataplane::{self, Attacher, Opened, Options};
use np_common::ABI_VERSION;
use np_common::config::Config;
use np_common::direction::Hook;
use np_common::endpoint::{EndpointId, Iface, PolicyWord, Role};
use np_common::flow::FlowKey;
use np_common::packet::{ACK, SYN, TCP};
use np_common::rules::{ClassId, RuleSetId};
use np_common::tag::Tag;
use np_common::verdict::Reason;
use np_policy::plan::{Op, PortPrefix, RulePrefix};
use np_tests::address::Family;
use np_tests::bpf::{self, SkBuff};
use np_tests::sandbox::{ip, sandbox};
use np_tests::wire::{self, Ip};

use crate::drive::{Vary, driver, look_up};
use crate::{Figure, median};

const POD: u32 = 5;
const UPLINK: u32 = 9;
const RULES: [usize; 5] = [10, 100, 1_000, 10_000, 100_000];
const FIRST_PEER: u32 = Ipv4Addr::new(11, 0, 0, 0).to_bits();
const FIRST_PORT: u32 = 2_000;
const FLOWS: u32 = 10_000;
const ROUNDS: usize = 15;
/// Often enough that known flows lie in the caches as they do under load.
const REPEAT: u32 = 20_000;
/// Fewer than the tuples that there are to draw from.
const REPEAT_NEW: u32 = 2_000;

pub fn measure() -> Result<()> {
    println!("nanoseconds a packet, less what an empty program takes");
    for rules in RULES {
        sandbox(move |pin_dir| at(rules, pin_dir));
    }
    Ok(())
}

fn at(rules: usize, pin_dir: &Path) -> Result<()> {
    for ifindex in [POD, UPLINK] {
        let pair = format!("d{ifindex} index {ifindex} type veth peer name p{ifindex}");
        ip(&format!("link add name {pair} index {}", ifindex + 1000))?;
    }
    let Opened { mut maps, attacher, .. } =
        dataplane::open(&Options { pin_dir: pin_dir.to_owned(), mechanism: None })?;
    for op in policy(rules) {
        maps.apply(&op)?;
    }
    let flows = bpf::open_pin(&pin_dir.join(format!("v{ABI_VERSION}/maps/FLOWS")))?;
    let empty = bpf::load("empty", &bpf::returns(-1))?;
    for family in Family::BOTH {
        open_flows(family, &attacher)?;
        let cases = cases(family, rules);
        let mut pairs: Vec<Pair> =
            cases.iter().map(|case| Pair::of(case, &attacher, &empty)).collect::<Result<_>>()?;
        for port in [80, 82] {
            pairs.push(Pair::look_up(&key(family, port), &flows)?);
        }
        let before = maps.counters()?;
        let mut samples = vec![Vec::new(); pairs.len()];
        // What draws from all peers comes last: it fills the caches, and some of it the table.
        for repeat in [REPEAT, REPEAT_NEW] {
            for _ in 0..ROUNDS {
                let in_turn = pairs.iter().zip(&mut samples);
                for (pair, samples) in in_turn.filter(|(pair, _)| pair.repeat == repeat) {
                    samples.push(pair.sample()?);
                }
            }
        }
        let counted = maps.counters()?.since(&before);
        for (Case { hook, name, reason, .. }, pair) in cases.iter().zip(&pairs) {
            // Of the new ones some are drawn twice, where peers are few.
            let (packets, all) = (counted.packets(*hook, *reason), pair.repeat as usize * ROUNDS);
            let came = packets as usize >= all - all / 10;
            ensure!(came, "{} {name}: {packets} of {all} came to {}", hook.name(), reason.name());
        }
        let medians: Vec<f64> = samples.iter_mut().map(|samples| median(samples)).collect();
        tell(family, rules, &cases, &medians);
    }
    Ok(())
}

fn tell(family: Family, rules: usize, cases: &[Case], medians: &[f64]) {
    let figure = |measure: String, variant: &str, value, unit| {
        println!("{rules:>8} {:<5} {measure:<28} {variant:<12} {value:>8.2} {unit}", family.name());
        let measure = format!("{measure}, {}", family.name());
        Figure { measure, variant: variant.to_owned(), rules, value, unit }.tell();
    };
    let of = |hook, name| {
        let at = cases.iter().position(|case| case.hook == hook && case.name == name);
        at.and_then(|at| medians.get(at)).copied().unwrap_or(f64::NAN)
    };
    for (case, value) in cases.iter().zip(medians) {
        figure(format!("program {}", case.hook.name()), case.name, *value, "ns");
    }
    let [.., hit, miss] = *medians else { return };
    figure("look-up of a flow".to_owned(), "hit", hit, "ns");
    figure("look-up of a flow".to_owned(), "miss", miss, "ns");
    // What a packet of a known flow pays on its way between two pods of a node, to what cannot be
    // left out of it: is it a reply, and is its flow known?
    let path = of(Hook::FromPod, "forward") + of(Hook::ToPod, "established");
    figure("established path".to_owned(), "to hit + miss", path / (hit + miss), "ratio");
}

/// What a program is given, and what it must come to.
struct Case {
    hook: Hook,
    name: &'static str,
    reason: Reason,
    frame: Vec<u8>,
    vary: Vec<Vary>,
}

fn pod(family: Family) -> IpAddr {
    family.address(Ipv4Addr::new(10, 0, 0, 1))
}

/// One of the peers that the policy allows; their last four bytes differ.
fn peer(family: Family, number: u32) -> IpAddr {
    let last = FIRST_PEER + number;
    match family {
        Family::V4 => Ipv4Addr::from_bits(last).into(),
        Family::V6 => Ipv6Addr::from_bits(0xfd11 << 112 | u128::from(last)).into(),
    }
}

/// Where in a frame the last four bytes of either address and the ports are.
const fn offsets(family: Family) -> [u32; 4] {
    match family {
        Family::V4 => [26, 30, 34, 36],
        Family::V6 => [34, 50, 54, 56],
    }
}

/// Known flows are from a port of FLOWS on to port 80, from the first peer to the pod and from the
/// pod to the first peer.
fn cases(family: Family, rules: usize) -> Vec<Case> {
    let [src, dst, sport, dport] = offsets(family);
    let known = |offset| Vary { offset, base: FIRST_PORT, count: FLOWS, len: 2 };
    let any = |offset| Vary { offset, base: FIRST_PORT, count: 60_000, len: 2 };
    let peers = |offset| Vary { offset, base: FIRST_PEER, count: rules as u32, len: 4 };
    let (established, forward, new, denied) = ("established", "forward", "new flow", "denied");
    let (pod, first, second) = (pod(family), peer(family, 0), peer(family, 1));
    let packet =
        |from, to, [sport, dport]: [u16; 2], vary: &[Vary]| (from, to, sport, dport, vary.to_vec());
    let sent = |ports, vary: &[Vary]| packet(pod, first, ports, vary);
    let received = |ports, vary: &[Vary]| packet(first, pod, ports, vary);
    let spoofed = |ports, vary: &[Vary]| packet(second, first, ports, vary);
    [
        (Hook::FromPod, new, Reason::Entered, sent([0, 443], &[known(sport)])),
        // Of an established flow in its own direction, which this hook does not know.
        (Hook::FromPod, forward, Reason::Entered, sent([0, 443], &[known(sport)])),
        (Hook::FromPod, established, Reason::Reply, sent([80, 0], &[known(dport)])),
        (Hook::FromPod, denied, Reason::SourceAddress, spoofed([0, 80], &[known(sport)])),
        (Hook::ToPod, established, Reason::Established, received([0, 80], &[known(sport)])),
        (Hook::ToPod, new, Reason::Allowed, received([0, 80], &[peers(src), any(sport)])),
        (Hook::ToPod, denied, Reason::IngressDenied, received([0, 81], &[peers(src), any(sport)])),
        (Hook::FromUplink, new, Reason::Entered, received([0, 80], &[known(sport)])),
        (Hook::FromUplink, established, Reason::Reply, received([80, 0], &[known(dport)])),
        (Hook::ToUplink, established, Reason::Established, sent([0, 80], &[known(sport)])),
        (Hook::ToUplink, new, Reason::Allowed, sent([0, 80], &[peers(dst), any(sport)])),
        (Hook::ToUplink, denied, Reason::EgressDenied, sent([0, 81], &[peers(dst), any(sport)])),
    ]
    .map(|(hook, name, reason, (from, to, sport, dport, vary))| {
        let flags = if [established, forward].contains(&name) { ACK } else { SYN };
        let frame = Ip::new(from, to, TCP, wire::tcp(sport, dport, flags)).frame();
        Case { hook, name, reason, frame, vary }
    })
    .into()
}

/// A known flow's key as the programs look it up; its source port is drawn.
fn key(family: Family, dport: u16) -> FlowKey {
    let (src, dst) = (peer(family, 0).into(), pod(family).into());
    FlowKey { src, dst, sport: 0, dport: dport.to_be(), protocol: TCP.into() }
}

/// Opens the known flows, both ways.
fn open_flows(family: Family, attacher: &Attacher) -> Result<()> {
    let (pod, peer) = (pod(family), peer(family, 0));
    for (hook, from, to) in [(Hook::ToPod, peer, pod), (Hook::ToUplink, pod, peer)] {
        let programs = bpf::program_array(&[&attacher.program(hook)])?;
        let driver = driver(&programs, tag(hook), &[])?;
        for port in (0..FLOWS).map(|number| (FIRST_PORT + number) as u16) {
            let frame = Ip::new(from, to, TCP, wire::tcp(port, 80, SYN)).frame();
            bpf::test_run(&driver, &frame, &skb(hook), 1)?;
        }
    }
    Ok(())
}

/// What a packet bears that comes to a hook.
const fn tag(hook: Hook) -> Tag {
    match hook {
        Hook::FromPod | Hook::FromUplink => Tag::LOST,
        Hook::ToPod => Tag::ENTERED,
        Hook::ToUplink => Tag::of(EndpointId::new(1)),
    }
}

/// As the kernel shows the packet to a hook of the pod's device or of the uplink.
fn skb(hook: Hook) -> SkBuff {
    let (ifindex, ingress) = match hook {
        Hook::FromPod => (POD, POD),
        Hook::ToPod => (POD, UPLINK),
        Hook::FromUplink => (UPLINK, UPLINK),
        Hook::ToUplink => (UPLINK, POD),
    };
    SkBuff::new(ifindex, ingress, [0; 5])
}

/// One thing to run, and one to run next to it that does the same but for what is measured.
struct Pair<'a> {
    run: OwnedFd,
    without: OwnedFd,
    /// What the drivers call; the kernel empties it when nobody holds it open.
    _programs: Option<[OwnedFd; 2]>,
    frame: &'a [u8],
    skb: SkBuff,
    repeat: u32,
}

impl<'a> Pair<'a> {
    fn of(case: &'a Case, attacher: &Attacher, empty: &OwnedFd) -> Result<Self> {
        let run = bpf::program_array(&[&attacher.program(case.hook)])?;
        let without = bpf::program_array(&[empty])?;
        let tag = tag(case.hook);
        Ok(Self {
            run: driver(&run, tag, &case.vary)?,
            without: driver(&without, tag, &case.vary)?,
            _programs: Some([run, without]),
            frame: &case.frame,
            skb: skb(case.hook),
            repeat: if case.vary.len() == 1 { REPEAT } else { REPEAT_NEW },
        })
    }

    /// Nanoseconds that the one takes longer.
    fn sample(&self) -> Result<f64> {
        let [run, without] = [&self.run, &self.without]
            .map(|program| bpf::test_run(program, self.frame, &self.skb, self.repeat));
        Ok(run?.duration.as_nanos() as f64 - without?.duration.as_nanos() as f64)
    }
}

impl Pair<'static> {
    /// A look-up in the flow table.
    fn look_up(key: &FlowKey, flows: &OwnedFd) -> Result<Self> {
        let run = look_up(Some(flows), key, FIRST_PORT, FLOWS)?;
        let without = look_up(None, key, FIRST_PORT, FLOWS)?;
        let skb = skb(Hook::ToPod);
        Ok(Self { run, without, _programs: None, frame: &[0; 64], skb, repeat: REPEAT })
    }
}

/// A pod that so many peers may reach, each by a rule of its own, and that may reach them.
fn policy(rules: usize) -> Vec<Op> {
    let (id, rule_set) = (EndpointId::new(1), RuleSetId::new(1));
    let addrs = Family::BOTH.map(|family| pod(family).into());
    let mut ops = vec![
        Op::SetConfig(Config::new(1, false)),
        Op::Bind(id, addrs, 0),
        Op::SetIface(Iface::new(POD, Role::Pod, id)),
        Op::SetIface(Iface::new(UPLINK, Role::Uplink, EndpointId::NONE)),
    ];
    ops.extend(addrs.map(|addr| Op::SetLocal(addr, id)));
    for number in 0..rules as u32 {
        let class = ClassId::new(number + 1);
        let ports = PortPrefix::ports(TCP, 80, 16);
        for family in Family::BOTH {
            ops.push(Op::SetPeer(peer(family, number).into(), class));
        }
        ops.push(Op::SetRule(RulePrefix { rule_set, class, ports }));
    }
    ops.push(Op::SetPolicy(id, PolicyWord::new(Some(rule_set), Some(rule_set))));
    ops
}
