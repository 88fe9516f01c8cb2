//! What the programs tell of packets, against what the host would tell.

use std::time::Duration;

use np_agent::dataplane::Events;
use np_common::event::BURST;
use np_policy::plan::Op;

use super::*;

/// The events of a run, and how many there should have been.
pub(crate) struct Told {
    pub(crate) events: Events,
    /// The packets that make an event each, or are counted as suppressed.
    owed: u64,
    made: u64,
    reasons: BTreeSet<Reason>,
    /// When the last event was made.
    time: u64,
}

impl Told {
    pub(crate) fn new(events: Events) -> Self {
        Self { events, owed: 0, made: 0, reasons: BTreeSet::new(), time: 0 }
    }

    /// Reads the event of the last packet: at most this one.
    pub(crate) fn compare(&mut self, expected: &Event) -> anyhow::Result<()> {
        let reason = expected.reason().expect("the host's own");
        let asked = Report::asks(Report::All as u64, reason);
        self.owed += u64::from(asked);
        let Some(event) = self.events.take() else { return Ok(()) };
        ensure!(asked, "{reason:?} makes no event: {event:?}");
        ensure!(event.time > self.time, "time goes on: {} after {}", event.time, self.time);
        let mut same = *expected;
        same.time = event.time;
        ensure!(event == same, "the programs tell {event:#?}, the host {same:#?}");
        ensure!(self.events.take().is_none(), "one packet makes one event");
        (self.time, self.made) = (event.time, self.made + 1);
        self.reasons.insert(reason);
        Ok(())
    }

    /// Nothing is lost that is not counted.
    pub(crate) fn add_up(&self) -> anyhow::Result<()> {
        let Self { owed, made, reasons, .. } = self;
        let suppressed: u64 = self.events.suppressed().map(|(.., suppressed)| suppressed).sum();
        println!(
            "{made} events of {} reasons, {suppressed} suppressed: {owed} packets",
            reasons.len()
        );
        ensure!(made + suppressed == *owed, "{made} + {suppressed} is not {owed}");
        ensure!(*made >= 100 && suppressed > 0, "there were too few of either");
        for reason in [
            Reason::EgressDenied,
            Reason::IngressDenied,
            Reason::SourceAddress,
            Reason::Pending,
            Reason::Ethertype,
            Reason::Malformed,
            Reason::Allowed,
            Reason::NotIsolated,
        ] {
            ensure!(reasons.contains(&reason), "no event of {reason:?}");
        }
        Ok(())
    }
}

const PACKETS: u32 = 20_000;
const SAMPLES: usize = 9;

/// A packet that is dropped, over and over, by whether somebody asked.
#[test]
fn only_what_was_asked_for_makes_events_and_every_drop_is_told_or_counted() {
    sandbox(|pin_dir| {
        ip("link add name d5 index 5 type veth peer name p5 index 1005")?;
        ip("link add name d9 index 9 type veth peer name p9 index 1009")?;
        let opened = dataplane::open(&Options { pin_dir: pin_dir.to_owned(), mechanism: None })?;
        let Opened { mut maps, attacher, mut events, reporting, .. } = opened;
        let pod = EndpointId::new(1);
        let closed = PolicyWord::new(Some(RuleSetId::new(1)), None);
        for op in [
            Op::SetIface(Iface::new(5, Role::Pod, pod)),
            Op::SetIface(Iface::new(9, Role::Uplink, EndpointId::NONE)),
            Op::Bind(pod, [addr("10.0.0.2").into(), Addr::UNSPECIFIED], 0),
            Op::SetPolicy(pod, closed),
        ] {
            maps.apply(&op)?;
        }
        let frame = Ip::new(addr("192.0.2.7"), addr("10.0.0.2"), UDP, wire::udp(1, 2)).frame();
        let skb = SkBuff::new(5, 9, [0; 5]);
        let program = attacher.program(Hook::ToPod);
        let mut owed = 0;
        for (report, name) in [
            (Report::Nothing, "nothing"),
            (Report::Denied, "denied"),
            (Report::Nothing, "nothing"),
            (Report::All, "all"),
        ] {
            reporting.set(report);
            let mut fastest = Duration::MAX;
            for _ in 0..SAMPLES {
                let run = bpf::test_run(&program, &frame, &skb, PACKETS)?;
                ensure!(run.verdict == TC_ACT_SHOT, "{:#x}", run.verdict);
                fastest = fastest.min(run.duration);
            }
            if report > Report::Nothing {
                owed += u64::from(PACKETS) * SAMPLES as u64;
            }
            println!("{name}: {fastest:?} for a packet that is dropped");
        }
        let mut made = 0;
        while let Some(event) = events.take() {
            ensure!(event.reason() == Some(Reason::IngressDenied), "{event:?}");
            ensure!(event.destination() == pod && event.source().is_none(), "{event:?}");
            ensure!(event.ifindex == 5 && event.hook() == Some(Hook::ToPod), "{event:?}");
            let tuple = event.connection().context("it is IP")?;
            ensure!(IpAddr::from(tuple.dst) == addr("10.0.0.2"), "{tuple:?}");
            ensure!((tuple.sport, tuple.dport) == (1_u16.to_be(), 2_u16.to_be()), "{tuple:?}");
            made += 1;
        }
        let suppressed: Vec<_> = events.suppressed().collect();
        let [(payer, sends, suppressed)] = suppressed[..] else {
            anyhow::bail!("one bucket pays: {suppressed:?}")
        };
        ensure!((payer, sends) == (pod, false), "who gets what outsiders send pays for it");
        println!("{made} events, {suppressed} suppressed, {owed} packets");
        ensure!(made + suppressed == owed, "{made} + {suppressed} is not {owed}");
        ensure!(made >= BURST, "at least a burst: {made}");
        Ok(())
    });
}
