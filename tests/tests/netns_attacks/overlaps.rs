//! Overlapping fragments: what the first one says of its datagram, no other may unsay.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use np_common::packet::SYN;
use np_tests::address::Family;
use np_tests::matrix;
use np_tests::raw::Raw;
use np_tests::wire::{Fragment, Ip, datagram, segment};

use crate::field::{ALLOWED, ARRIVES, DENIED, Field, SILENT, Sent, ip_packet};

/// Two datagrams that differ in nothing but the port (and the checksum).
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Allowed,
    Denied,
}

use To::{Allowed, Denied};

/// Pieces of the two under one id, as sent.
struct Form {
    name: &'static str,
    /// Of which datagram, from which byte on, and up to which.
    pieces: &'static [(To, usize, usize)],
    /// What answers where no agent is: the kernel forgets a datagram of pieces that overlap, and
    /// overlooks a piece that it has already (net/ipv4/inet_fragment.c).
    answers: Option<u16>,
}

const SIZE: usize = 48;
const FORMS: [Form; 7] = [
    Form {
        name: "no overlap, denied",
        pieces: &[(Denied, 0, 24), (Denied, 24, SIZE)],
        answers: Some(DENIED),
    },
    Form {
        name: "no overlap, allowed",
        pieces: &[(Allowed, 0, 24), (Allowed, 24, SIZE)],
        answers: Some(ALLOWED),
    },
    Form {
        name: "all behind the ports again",
        pieces: &[(Allowed, 0, 24), (Denied, 8, SIZE)],
        answers: None,
    },
    Form {
        name: "the ports again",
        pieces: &[(Allowed, 0, 24), (Denied, 0, 24), (Denied, 24, SIZE)],
        answers: Some(ALLOWED),
    },
    Form {
        name: "the ports again and more",
        pieces: &[(Allowed, 0, 24), (Denied, 0, 32), (Denied, 32, SIZE)],
        answers: None,
    },
    Form {
        name: "the denied port, then the allowed one",
        pieces: &[(Denied, 0, 24), (Allowed, 0, 24), (Allowed, 24, SIZE)],
        answers: Some(DENIED),
    },
    Form {
        name: "the denied port last",
        pieces: &[(Denied, 16, SIZE), (Allowed, 0, 24), (Denied, 0, 24)],
        answers: None,
    },
];

impl Form {
    /// Whether any piece bears the denied port.
    fn asks_denied(&self) -> bool {
        self.pieces.iter().any(|(to, start, _)| *to == Denied && *start == 0)
    }

    fn honest(&self) -> bool {
        self.pieces.iter().all(|(to, ..)| *to == Allowed)
    }

    fn packets(&self, whole: impl Fn(u16) -> Ip, id: u32) -> Vec<Sent> {
        let (allowed, denied) = (whole(ALLOWED), whole(DENIED));
        let piece = |(to, start, end): &(To, usize, usize)| {
            let whole = if *to == Allowed { &allowed } else { &denied };
            let fragment = Fragment { offset: (start / 8) as u16, more: *end < SIZE, id };
            let payload = whole.payload[*start..*end].to_vec();
            ip_packet(Ip { payload, fragment: Some(fragment), ..whole.clone() }.bytes())
        };
        self.pieces.iter().map(piece).collect()
    }
}

#[derive(Clone, Copy, Debug)]
enum Protocol {
    Tcp,
    Udp,
}

/// What came of the pieces of a form.
#[derive(Debug)]
struct Came {
    /// The victim was sent the denied port.
    denied: bool,
    answers: Option<u16>,
}

/// Sends every form as TCP and as UDP, and tells what came of each.
fn play(field: &Field, family: Family) -> Result<Vec<(&'static Form, Protocol, Came)>> {
    let (src, dst) =
        (field.cluster.address("attacker", family)?, field.cluster.address("careful", family)?);
    let tap = |pod| Raw::open(field.cluster.namespace(pod)?, "eth0");
    let (there, back) = (tap("careful")?, tap("attacker")?);
    // Each datagram has one of its own, also as the id of its pieces: the kernel keeps some.
    let first: u16 = if field.agents.is_none() { 20_000 } else { 21_000 };
    let all: Vec<_> =
        FORMS.iter().flat_map(|form| [(form, Protocol::Tcp), (form, Protocol::Udp)]).collect();
    for ((form, protocol), sport) in all.iter().zip(first..) {
        let whole = |port| match protocol {
            Protocol::Tcp => segment(src, dst, (sport, port), 1, SYN, &[b'x'; SIZE - 20]),
            Protocol::Udp => datagram(src, dst, sport, port, &[b'x'; SIZE - 8]),
        };
        field.send("attacker", &form.packets(whole, u32::from(sport)))?;
    }
    let octets = match src {
        IpAddr::V4(src) => src.octets().to_vec(),
        IpAddr::V6(src) => src.octets().to_vec(),
    };
    let sent = there.capture(&octets, usize::MAX, ARRIVES)?;
    let answers = back.capture(&octets, usize::MAX, SILENT)?;
    let bears = |frames: &[Vec<u8>], from: u16, to: u16| {
        let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
        frames.iter().any(|frame| frame.windows(4).any(|window| window == ports))
    };
    let came = all.into_iter().zip(first..).map(|((form, protocol), sport)| {
        let denied = bears(&sent, sport, DENIED);
        let answers = [DENIED, ALLOWED].into_iter().find(|port| bears(&answers, *port, sport));
        (form, protocol, Came { denied, answers })
    });
    Ok(came.collect())
}

/// On a node that puts datagrams together, and on one that lets fragments go one by one: there the
/// agent judges each first fragment by itself.
#[test]
fn overlapping_fragments_reach_no_denied_port() -> Result<()> {
    let row = matrix::row("Attacks", "overlapping fragments");
    for conntrack in [true, false] {
        let mut field = Field::new()?;
        if !conntrack {
            field.cluster.namespace("node-1")?.call("nft flush ruleset")?;
        }
        for family in Family::BOTH {
            for (form, protocol, came) in play(&field, family)? {
                let what = format!("{}, {protocol:?}, {family:?}: {came:?}", form.name);
                ensure!(came.answers == form.answers, "no agent, conntrack {conntrack}: {what}");
                let unjudged = conntrack || came.denied == form.asks_denied();
                ensure!(unjudged, "no agent, no conntrack: {what}");
            }
        }
        field.start_agents()?;
        for family in Family::BOTH {
            let before = field.count("node-1", "to_pod", "ingress-denied")?;
            let mut dropped = 0;
            for (form, protocol, came) in play(&field, family)? {
                let what = format!(
                    "{}, {protocol:?}, {family:?}, conntrack {conntrack}: {came:?}",
                    form.name
                );
                ensure!(!came.denied && came.answers != Some(DENIED), "{what}");
                ensure!(!form.honest() || came.answers == Some(ALLOWED), "{what}");
                // Behind conntrack only what it makes a datagram of comes as far.
                let comes =
                    if conntrack { form.answers == Some(DENIED) } else { form.asks_denied() };
                dropped += u64::from(comes);
            }
            let counted = field.count("node-1", "to_pod", "ingress-denied")? - before;
            ensure!(counted >= dropped, "{counted} drops are counted, of {dropped}");
        }
    }
    row.holds();
    Ok(())
}
