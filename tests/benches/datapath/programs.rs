//! Each program alone, by `BPF_PROG_TEST_RUN`, by the number of rules and of peers.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, ensure};
use np_agent::dataplane::{self, Opened, Options};
use np_agent::plan::{Op, PortPrefix, RulePrefix};
use np_common::addr::Addr;
use np_common::config::Config;
use np_common::direction::Hook;
use np_common::endpoint::{EndpointId, Iface, PolicyWord, Role};
use np_common::packet::{ACK, SYN, TCP};
use np_common::rules::{ClassId, RuleSetId};
use np_common::verdict::Reason;
use np_tests::bpf::{self, SkBuff};
use np_tests::sandbox::{ip, sandbox};
use np_tests::wire::{self, Ip};

use crate::{Figure, median};

const POD: u32 = 5;
const RULES: [usize; 4] = [10, 1_000, 10_000, 100_000];
/// Classes, each with its own rules; what is looked up is spread over all of them.
const SAMPLES: usize = 2_000;
const REPEAT: u32 = 20_000;
const SERVER: &str = "10.0.0.1";

pub fn measure() -> Result<()> {
    println!("nanoseconds a packet; a new flow and a denied one each once, cold as they come");
    println!(
        "{:>8} {:>8} {:>12} {:>12} {:>10} {:>10}",
        "rules", "empty", "established", "empty once", "new flow", "denied"
    );
    for rules in RULES {
        sandbox(move |pin_dir| {
            ip(&format!("link add name d{POD} index {POD} type veth peer name p{POD} index 1005"))?;
            let Opened { mut maps, attacher, .. } =
                dataplane::open(&Options { pin_dir: pin_dir.to_owned(), mechanism: None })?;
            for op in policy(rules) {
                maps.apply(&op)?;
            }
            let empty = bpf::load("empty", &bpf::returns(-1))?;
            let program = attacher.program(Hook::ToPod);
            let skb = SkBuff::new(POD, 9, [0; 5]);
            // Each from another of the peers, spread over all of them.
            let from = |number: usize, port| {
                let source = IpAddr::from(peer(number * rules.max(SAMPLES) / SAMPLES % rules));
                let server = SERVER.parse().expect("a valid address");
                let sport = 1024 + (number % 60_000) as u16;
                let flags = if port == 80 { SYN } else { ACK };
                Ip::new(source, server, TCP, wire::tcp(sport, port, flags)).frame()
            };
            let one = from(0, 80);
            bpf::test_run(&program, &one, &skb, 1)?;
            let many = |program: &dyn std::os::fd::AsFd| -> Result<f64> {
                let mut runs = Vec::new();
                for _ in 0..9 {
                    runs.push(
                        bpf::test_run(&program, &one, &skb, REPEAT)?.duration.as_nanos() as f64
                    );
                }
                Ok(median(&mut runs))
            };
            let (plain, established) = (many(&empty)?, many(&program)?);
            let before = maps.counters()?;
            let (mut once, mut new, mut denied) = (Vec::new(), Vec::new(), Vec::new());
            for number in 1..=SAMPLES {
                let frame = from(number, 80);
                once.push(bpf::test_run(&empty, &frame, &skb, 1)?.duration.as_nanos() as f64);
                new.push(bpf::test_run(&program, &frame, &skb, 1)?.duration.as_nanos() as f64);
                let frame = from(number, 81);
                denied.push(bpf::test_run(&program, &frame, &skb, 1)?.duration.as_nanos() as f64);
            }
            let counted = maps.counters()?.since(&before);
            for reason in [Reason::Allowed, Reason::IngressDenied] {
                let packets = counted.packets(Hook::ToPod, reason);
                ensure!(packets == SAMPLES as u64, "{packets} packets came to {}", reason.name());
            }
            let values =
                [plain, established, median(&mut once), median(&mut new), median(&mut denied)];
            let [a, b, c, d, e] = values.map(|value| format!("{value:.0}"));
            println!("{rules:>8} {a:>8} {b:>12} {c:>12} {d:>10} {e:>10}");
            let names = ["empty", "established", "empty, once", "new flow, once", "denied, once"];
            for (name, value) in names.into_iter().zip(values) {
                let (measure, variant) = ("program to_pod".to_owned(), name.to_owned());
                Figure { measure, variant, rules, value, unit: "ns" }.tell();
            }
            Ok(())
        });
    }
    Ok(())
}

fn peer(number: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(11, 0, 0, 0)) + number as u32)
}

/// A pod that so many peers may reach, each by a rule of its own.
fn policy(rules: usize) -> Vec<Op> {
    let (id, rule_set) = (EndpointId::new(1), RuleSetId::new(1));
    let addr = SERVER.parse::<IpAddr>().expect("a valid address");
    let mut ops = vec![
        Op::SetConfig(Config::new(1, false)),
        Op::SetAddrs(id, [addr.into(), Addr::UNSPECIFIED]),
        Op::SetLocal(addr.into(), id),
        Op::SetIface(Iface::new(POD, Role::Pod, id)),
    ];
    for number in 0..rules {
        let class = ClassId::new(number as u32 + 1);
        let ports = PortPrefix::ports(TCP, 80, 16);
        ops.push(Op::SetPeer(IpAddr::from(peer(number)).into(), class));
        ops.push(Op::SetRule(RulePrefix { rule_set, class, ports }));
    }
    ops.push(Op::SetPolicy(id, PolicyWord::new(Some(rule_set), None)));
    ops
}
