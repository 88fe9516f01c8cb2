//! What a packet costs in each program, beside an empty one: printed, since a number of one machine
//! is no property.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::ensure;
use np_agent::dataplane::{self, Opened, Options};
use np_agent::plan::{Op, PortPrefix, RulePrefix};
use np_common::addr::Addr;
use np_common::config::Config;
use np_common::direction::Hook;
use np_common::endpoint::{EndpointId, Iface, PolicyWord, Role};
use np_common::packet::{ACK, SYN, TCP, UDP};
use np_common::rules::{ClassId, RuleSetId};
use np_common::verdict::Reason;
use np_tests::bpf::{self, SkBuff};
use np_tests::sandbox::{ip, sandbox};
use np_tests::wire::{self, Ip};

const POD: u32 = 5;
const OTHER_POD: u32 = 6;
const UPLINK: u32 = 9;
const REPEAT: u32 = 100_000;

#[test]
fn each_measured_packet_comes_to_the_reason_it_stands_for() {
    sandbox(|pin_dir| {
        for ifindex in [POD, OTHER_POD, UPLINK] {
            let pair = format!("d{ifindex} index {ifindex} type veth peer name p{ifindex}");
            ip(&format!("link add name {pair} index {}", ifindex + 1000))?;
        }
        let Opened { mut maps, attacher, .. } =
            dataplane::open(&Options { pin_dir: pin_dir.to_owned(), mechanism: None })?;
        for op in policy() {
            maps.apply(&op)?;
        }
        let frame = |src: &str, dst: &str, protocol, payload| {
            let addr = |text: &str| text.parse::<IpAddr>().expect("a valid address");
            Ip::new(addr(src), addr(dst), protocol, payload).frame()
        };
        let tcp =
            |src, dst, sport, dport, flags| frame(src, dst, TCP, wire::tcp(sport, dport, flags));
        let udp = |src, dst, sport, dport| frame(src, dst, UDP, wire::udp(sport, dport));
        // Device, device by which it came in, frame, and what it must come to.
        let cases = [
            (Hook::FromPod, POD, POD, tcp(A, B, 40_000, 80, SYN), Reason::Entered),
            (Hook::ToPod, POD, 0, tcp(B, A, 40_000, 80, SYN), Reason::Own),
            (Hook::ToPod, POD, OTHER_POD, tcp(B, A, 40_000, 80, ACK), Reason::Established),
            (Hook::FromPod, POD, POD, tcp(A, B, 80, 40_000, ACK), Reason::Reply),
            (Hook::ToPod, POD, OTHER_POD, udp(B, A, 40_000, 99), Reason::EgressDenied),
            (Hook::ToPod, POD, OTHER_POD, tcp(B6, A6, 40_000, 80, ACK), Reason::Established),
            (Hook::FromUplink, UPLINK, UPLINK, tcp(OUT, A, 443, 50_000, ACK), Reason::Entered),
            // Repetitions bear the tag of the first: all but one were judged already.
            (Hook::ToUplink, UPLINK, POD, tcp(A, OUT, 40_000, 80, ACK), Reason::EgressJudged),
            (Hook::FromUplink, UPLINK, UPLINK, tcp(OUT, A, 80, 40_000, ACK), Reason::Reply),
        ];
        let empty = bpf::load("empty", &bpf::returns(-1))?;
        println!("{:<12} {:<16} ns per packet", "program", "comes to");
        let frame = tcp(A, B, 40_000, 80, SYN);
        let skb = |ifindex, ingress| SkBuff::new(ifindex, ingress, [0; 5]);
        println!("{:<12} {:<16} {:>5}", "empty", "-", best(&empty, &frame, &skb(POD, POD))?);
        for (hook, ifindex, ingress, frame, reason) in cases {
            let program = attacher.program(hook);
            let skb = skb(ifindex, ingress);
            // The first packet records the flow that the others belong to.
            bpf::test_run(&program, &frame, &skb, 1)?;
            let before = maps.counters()?;
            let nanoseconds = best(&program, &frame, &skb)?;
            let counted = maps.counters()?.since(&before).packets(hook, reason);
            let all = u64::from(REPEAT * RUNS);
            ensure!(
                counted >= all - u64::from(RUNS),
                "{} came to {} only {counted} times of {all}",
                hook.name(),
                reason.name()
            );
            println!("{:<12} {:<16} {nanoseconds:>5}", hook.name(), reason.name());
        }
        Ok(())
    });
}

const A: &str = "10.0.0.1";
const B: &str = "10.0.0.2";
const A6: &str = "fd00::1";
const B6: &str = "fd00::2";
const OUT: &str = "192.0.2.7";
const RUNS: u32 = 5;

/// The best mean of some runs, in nanoseconds.
fn best(program: &impl std::os::fd::AsFd, frame: &[u8], skb: &SkBuff) -> anyhow::Result<u128> {
    let mut best = Duration::MAX;
    for _ in 0..RUNS {
        best = best.min(bpf::test_run(program, frame, skb, REPEAT)?.duration);
    }
    Ok(best.as_nanos())
}

/// Two pods, both isolated both ways; TCP port 80 is allowed everywhere.
fn policy() -> Vec<Op> {
    let rule_set = RuleSetId::new(1);
    let policy = PolicyWord::new(Some(rule_set), Some(rule_set));
    let mut ops = vec![
        Op::SetConfig(Config::new(1, false)),
        Op::SetIface(Iface::new(UPLINK, Role::Uplink, EndpointId::NONE)),
        Op::SetRule(RulePrefix {
            rule_set,
            class: ClassId::NONE,
            ports: PortPrefix::ports(TCP, 80, 16),
        }),
    ];
    for (id, device, addrs) in [(1, POD, [A, A6]), (2, OTHER_POD, [B, B6])] {
        let id = EndpointId::new(id);
        let addrs = addrs.map(|text| Addr::from(text.parse::<IpAddr>().expect("a valid address")));
        ops.extend([
            Op::SetAddrs(id, addrs),
            Op::SetPolicy(id, policy),
            Op::SetLocal(addrs[0], id),
            Op::SetLocal(addrs[1], id),
            Op::SetPeer(IpAddr::from(addrs[0]).into(), ClassId::new(1)),
            Op::SetPeer(IpAddr::from(addrs[1]).into(), ClassId::new(1)),
            Op::SetIface(Iface::new(device, Role::Pod, id)),
        ]);
    }
    ops
}
