//! The adversary: sends whatever it can, from pods and from outside, with a bias to what has gone
//! wrong before.
//!
//! It plays plots. A plot is one or more sendings, some of them later: when a connection is forgotten,
//! an address has changed hands, an answer is due. What each plot does is in the modules below, by
//! the layer that it abuses; here is what they have in common.

mod link;
mod replies;
mod sources;
mod talk;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use proptest::test_runner::{RngAlgorithm, TestRng};

use super::host::{HostId, Kind};
use super::mark::Mark;
use super::seen::{Flow, ICMP, ICMPV6};
use super::stage::{Actor, Stage};
use super::tap::{MILLISECOND, SECOND, Time, now};
use crate::address::Family;
use crate::generate::dice::Dice;
use crate::wire::{Ip, checksum, pseudo_header};

/// Few ports, so that tuples come again: among them ports of nodes.
const CLIENT_PORTS: [u16; 10] =
    [4900, 4901, 30053, 30054, 30055, 30080, 30081, 30082, 40_000, 50_051];
const POD_PORTS: [u16; 5] = [8080, 8443, 5353, 80, 7777];
const OUTSIDE_PORTS: [u16; 4] = [53, 443, 5000, 7];

/// Plots in a second.
const PACE: u64 = 250;
/// No more than this at a time, when the machine has been busy with other things.
const AT_ONCE: u64 = 20;
/// How many flows of how many pods are remembered.
const TUPLES: usize = 24;
const PODS: usize = 40;

/// A plot, how often it is played, and its name.
type Plot = (usize, &'static str, fn(&mut Adversary<'_>, &mut Dice<'_>));

const PLOTS: [Plot; 18] = [
    (36, "chat", talk::chat),
    (4, "fragments", talk::fragments),
    (2, "fragments without device", talk::fragments_that_lose_their_device),
    (26, "answer", replies::answer),
    (10, "old answer", replies::old_answer),
    (5, "node port tuple", replies::node_port_tuple),
    (5, "shared tuple", replies::shared_tuple),
    (3, "half open", replies::half_open),
    (5, "error", replies::error),
    (14, "forged", sources::forged),
    (4, "echo by others", sources::echo_by_others),
    (4, "listener", link::listener),
    (3, "discovery", link::discovery),
    (2, "arp", link::arp),
    (4, "stolen port", link::stolen_port),
    (3, "other frames", link::other_frames),
    (2, "misaddressed", link::misaddressed),
    (1, "to everybody", link::to_everybody),
];

/// Something to do later.
type Deed = Box<dyn FnOnce(&mut Adversary<'_>, &mut Dice<'_>) + Send>;

pub struct Adversary<'a> {
    stage: &'a Stage,
    due: Vec<(Time, Deed)>,
    /// What pods have sent, by whom and to whom: each may be answered once the pod is another.
    tuples: BTreeMap<HostId, VecDeque<Flow>>,
    pub sent: u64,
}

/// Plays plots until it is stopped; only those with these names, if there are any.
pub fn play(stage: &Stage, seed: u64, only: &[String], stop: &AtomicBool) -> u64 {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8] = 1;
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut dice = Dice::new(&mut rng);
    let mut adversary = Adversary { stage, due: Vec::new(), tuples: BTreeMap::new(), sent: 0 };
    let wanted = |name: &str| only.is_empty() || only.iter().any(|one| one == name);
    let plots: Vec<_> = PLOTS
        .iter()
        .filter(|(_, name, _)| wanted(name))
        .map(|(weight, _, plot)| (*weight, *plot))
        .collect();
    let (start, mut played) = (now(), 0);
    while !stop.load(Ordering::Relaxed) {
        adversary.do_what_is_due(&mut dice);
        let due = (now() - start) * PACE / SECOND;
        for _ in 0..(due - played).min(AT_ONCE) {
            dice.weighted(&plots)(&mut adversary, &mut dice);
        }
        played = due;
        thread::sleep(Duration::from_millis(2));
    }
    adversary.sent
}

impl Adversary<'_> {
    fn do_what_is_due(&mut self, dice: &mut Dice<'_>) {
        let time = now();
        let due: Vec<Deed> =
            self.due.extract_if(.., |(at, _)| *at <= time).map(|(_, deed)| deed).collect();
        for deed in due {
            deed(self, dice);
        }
    }

    fn later(&mut self, milliseconds: u64, deed: Deed) {
        self.due.push((now() + milliseconds * MILLISECOND, deed));
    }

    fn mark(&self) -> Mark {
        self.stage.chronicle().mark()
    }

    /// Everybody who sends frames: pods and hosts outside.
    fn raw(&self) -> Vec<Arc<Actor>> {
        self.stage.actors().into_iter().filter(|actor| actor.is_raw()).collect()
    }

    fn of(&self, kind: Kind) -> Vec<Arc<Actor>> {
        self.stage.actors().into_iter().filter(|actor| actor.kind == kind).collect()
    }

    fn actor(&self, id: HostId) -> Option<Arc<Actor>> {
        self.stage.actors().into_iter().find(|actor| actor.id == id)
    }

    /// Sends a packet to the sender's router, or straight to a pod on its bridge.
    fn send(&mut self, plot: &'static str, mark: Mark, from: &Actor, packet: &Ip) {
        let neighbour = from.bridged.then(|| {
            let mut all = self.of(Kind::Pod).into_iter();
            all.find(|to| to.node == from.node && to.bridged && to.has(packet.dst))
        });
        let to = neighbour.flatten().map_or(from.gateway, |neighbour| neighbour.mac);
        self.send_frame(plot, mark, from, &packet.frame_between(to, from.mac));
        if from.kind == Kind::Pod
            && let Some(ip) = super::seen::Seen::read(&packet.frame()).and_then(|seen| seen.ip)
            && from.has(ip.flow.src)
        {
            let flows = self.tuples.entry(from.id).or_default();
            flows.push_back(ip.flow);
            if flows.len() > TUPLES {
                flows.pop_front();
            }
            // One that still talks comes back.
            if let Some(oldest) = self.tuples.keys().rev().nth(PODS).copied() {
                self.tuples.remove(&oldest);
            }
        }
    }

    fn send_frame(&mut self, plot: &'static str, mark: Mark, from: &Actor, frame: &[u8]) {
        self.stage.chronicle().send(mark, from.id, plot, frame);
        from.send(frame);
        self.sent += 1;
    }
}

/// A pod, rather one whose policy has something to say.
fn victim(dice: &mut Dice<'_>, pods: &[Arc<Actor>]) -> Option<Arc<Actor>> {
    let strict: Vec<&Arc<Actor>> = pods.iter().filter(|pod| pod.app != "open").collect();
    if !strict.is_empty() && dice.chance(70) {
        let pod: &Arc<Actor> = dice.pick::<&Arc<Actor>>(&strict);
        return Some(Arc::clone(pod));
    }
    (!pods.is_empty()).then(|| Arc::clone(dice.pick(pods)))
}

fn family(dice: &mut Dice<'_>) -> Family {
    *dice.pick(&Family::BOTH)
}

/// An ICMP message of either family, with a right checksum.
fn icmp(src: IpAddr, dst: IpAddr, message: u8, word: [u8; 4], data: &[u8]) -> Ip {
    let protocol = if src.is_ipv4() { ICMP } else { ICMPV6 };
    let mut upper = vec![message, 0, 0, 0];
    upper.extend(word);
    upper.extend(data);
    let head =
        if src.is_ipv4() { Vec::new() } else { pseudo_header(src, dst, ICMPV6, upper.len()) };
    let sum = checksum(&[head, upper.clone()].concat());
    upper.splice(2..4, sum.to_be_bytes());
    Ip::new(src, dst, protocol, upper)
}

fn echo(src: IpAddr, dst: IpAddr, request: bool, id: u16, data: &[u8]) -> Ip {
    let message = match (src.is_ipv4(), request) {
        (true, true) => 8,
        (true, false) => 0,
        (false, true) => 128,
        (false, false) => 129,
    };
    let [high, low] = id.to_be_bytes();
    icmp(src, dst, message, [high, low, 0, 1], data)
}
