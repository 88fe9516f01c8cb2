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
//!
//! Events are part of it: what the programs tell of a packet is what the host would tell.

mod kernel;
mod random;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use aya::maps::{HashMap, Map, MapData};
use ipnet::IpNet;
use np_agent::dataplane::{self, Counters, Maps, Opened, Options};
use np_common::ABI_VERSION;
use np_common::addr::Addr;
use np_common::config::Config;
use np_common::decide::{Context, full};
use np_common::direction::Hook;
use np_common::endpoint::{Endpoint, EndpointId, Iface, PolicyWord, Role};
use np_common::event::{Event, Report};
use np_common::flow::{Flow, FlowKey, State, Time};
use np_common::packet::{
    ACK, ECHO, ESP, ETH_P_IPV4, ETH_P_IPV6, FIN, ICMP, ICMPV6, RST, SCTP, SYN, TCP, UDP,
};
use np_common::rules::{ClassId, RuleSetId};
use np_common::tag::{Began, Tag};
use np_common::tunnel::{Encapsulation, IPIP, SIT};
use np_common::verdict::{Action, Reason, Verdict};
use np_policy::plan::simulate::Simulated;
use np_policy::plan::{PortPrefix, RulePrefix, Scope, Tables, diff};
use np_tests::bpf::{self, SkBuff, TC_ACT_SHOT, TC_ACT_UNSPEC, insn};
use np_tests::sandbox::{ip, sandbox};
use np_tests::wire::{self, Fragment, Ip};

use crate::kernel::Kernel;
use crate::random::Random;
use crate::told::Told;

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
        let mut denied = BTreeMap::new();
        let mut seen = BTreeMap::<(Hook, Reason), usize>::new();
        for round in 0..ROUNDS {
            let desired = random.tables();
            kernel.change(&desired)?;
            let tables = kernel.tables.clone();
            let simulated = Simulated::new(&tables);
            kernel.plant(&mut random, &mut flows)?;
            simulated.flows.replace(flows);
            simulated.fragments.replace(fragments);
            simulated.denied.replace(denied);
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
                    let expected = full(case.hook, &simulated, case.frame.as_slice(), &context);
                    let event = {
                        let case_found = simulated.case.borrow();
                        Event::of(&simulated, case.hook, &expected, &context, &case_found, 0)
                    };
                    let judged = kernel.judge(&case, pass, &expected);
                    judged.and_then(|()| kernel.told.compare(&event)).with_context(|| {
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
            denied = simulated.denied.take();
            kernel.compare_flows(&flows).with_context(|| format!("after round {round}"))?;
        }
        println!("{:<12} {:<20} packets", "hook", "reason");
        for ((hook, reason), packets) in &seen {
            println!("{:<12} {:<20} {packets}", hook.name(), reason.name());
        }
        for (hook, reason) in seen.keys() {
            ensure!(reason.hooks().contains(hook), "{reason:?} is no outcome of {hook:?}");
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
        kernel.told.add_up()?;
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
            // A test run's packet belongs to a socket of the kernel's own.
            socket: true,
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

fn addr(text: &str) -> IpAddr {
    text.parse().expect("a valid address")
}
