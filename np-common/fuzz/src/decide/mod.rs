//! The verdict on any sequence of packets, over any tables, while policy changes and pods come and go.
//!
//! What must hold is written down from what policy is to mean and not from how `decide` finds it out:
//! by the tables as they are, and by a history of its own of who opened which flow.

mod flows;
mod from;
mod to;

use np_common::addr::Addr;
use np_common::decide::{self, Context, Maps as _};
use np_common::direction::Hook;
use np_common::endpoint::{EndpointId, Iface, Role};
use np_common::flow::{FlowKey, Leg};
use np_common::packet::{
    self, ETH_HLEN, ETH_P_ARP, ETH_P_IPV4, ETH_P_IPV6, Frame, Kind, Packet, ParseError,
};
use np_common::tag::{Began, Tag};
use np_common::verdict::{Action, Reason, Verdict};

use crate::carried::Carried;
use crate::frame;
use crate::history::{Clock, History};
use crate::link::{self, Message};
use crate::scenario::{Arrival, Scenario, Step};
use crate::world::{self, World};

/// CONFIG_HZ.
const HZ: [u32; 4] = [100, 250, 300, 1000];
/// Seconds. The last one is what 32 bits of single ticks last for at 1,000 a second, and the time that
/// anything but TCP is remembered.
const WAITS: [u64; 8] = [0, 1, 30, 110, 127, 187, 5 * 24 * 3600, 4_294_967 + 150];
const STEPS: usize = 16;

pub fn check(scenario: &Scenario) {
    let mut world = World::new(scenario);
    let hz = HZ[usize::from(scenario.hz % 4)];
    // What 32 bits of 256 ticks hold, once round.
    let mut clock = Clock { jiffies: scenario.start % (1 << 40), hz };
    let mut tag = Tag::LOST;
    let mut history = History::default();
    for step in scenario.steps.iter().take(STEPS) {
        match *step {
            Step::Packet(arrival) => {
                tag = one_packet(&world, &arrival, clock, tag, &mut history);
            }
            Step::Wait(choice) => {
                clock.jiffies += WAITS[usize::from(choice % 8)] * u64::from(hz);
            }
            Step::Change { endpoint, to, tunnels } => world.change(endpoint, to, tunnels),
            Step::AddRule(rule) => world.add(rule),
            Step::RemoveRules => world.remove_rules(),
            Step::Free(endpoint) => world.free(endpoint),
            Step::Bind { endpoint, to, device } => {
                world.bind(endpoint, to, device);
                // A packet that is on its way while its pod goes does not arrive after the next came.
                tag = Tag::LOST;
            }
        }
    }
}

/// Judges one packet; returns the tag it goes on with.
fn one_packet(
    world: &World,
    arrival: &Arrival,
    clock: Clock,
    before: Tag,
    history: &mut History,
) -> Tag {
    let hook = Hook::ALL[usize::from(arrival.hook % 4)];
    let (packet, ethertype) =
        arrival.packet.related(ethertype(arrival.ethertype), &history.packets);
    history.packets.push((packet.tuple, ethertype));
    let context = Context {
        ifindex: u32::from(arrival.ifindex % 8),
        ingress_ifindex: u32::from(arrival.ingress_ifindex % 8),
        socket: arrival.socket,
        tag: tag(arrival, before),
        ethertype,
        time: clock.time(),
    };
    let iface = world.iface(context.ifindex);
    let layer3 = iface.is_layer3() && matches!(hook, Hook::FromUplink | Hook::ToUplink);
    let bytes = frame::bytes(&packet, ethertype, layer3);

    let old = world.clone();
    let verdict = decide::decide(hook, world, bytes.as_slice(), &context);
    let again =
        |world: &World, context: &Context| decide::decide(hook, world, bytes.as_slice(), context);
    let alike = old.without(|_| false);
    assert_eq!(
        again(&alike, &context),
        verdict,
        "the same verdict, whatever an earlier packet left in a case"
    );
    assert_eq!(&alike, world, "the same state");
    let full = old.without(|_| false);
    let slowly = decide::full(hook, &full, bytes.as_slice(), &context);
    assert_eq!(slowly, verdict, "the fast path says nothing else");
    assert_eq!(&full, world, "nor does it leave another state");
    // But for one thing: it can lead to a living flow of packets that went round by the fabric.
    let leads = |key: &FlowKey| {
        let returned = key.on(Leg::Returned);
        old.flow(&returned).is_some() && !history.is_dead(&old, &returned, clock)
    };
    let living = old.without(|key| history.is_dead(&old, key, clock) && !leads(key));
    assert_eq!(again(&living, &context), verdict, "what is dead counts for nothing");

    let offset = if layer3 { 0 } else { ETH_HLEN };
    let parsed = packet::parse(bytes.as_slice(), ethertype, offset);
    let quoted = match parsed {
        Ok(Frame::Ip(error)) if error.kind == Kind::IcmpError => {
            packet::quoted(bytes.as_slice(), &error)
        }
        _ => None,
    };
    let claimed = match parsed {
        Ok(Frame::Arp) => packet::arp_sender(bytes.as_slice(), offset),
        Ok(Frame::Ip(packet)) if packet.kind == Kind::NeighborClaim => {
            packet::claimed(bytes.as_slice(), &packet)
        }
        Ok(Frame::Ip(packet)) if packet.kind == Kind::NeighborDiscovery && !layer3 => {
            link::spoken_for(bytes.as_slice())
        }
        _ => None,
    };
    let began = match parsed {
        Ok(Frame::Ip(packet)) => flows::began(&packet, &bytes[offset as usize..]),
        _ => Began::Unknown,
    };
    let carried = Carried::of(context.tag);
    let case = Case {
        hook,
        context,
        carried,
        iface,
        old: &old,
        new: world,
        history,
        clock,
        bytes: &bytes,
        offset: offset as usize,
        parsed,
        quoted,
        claimed,
        began,
        verdict,
    };
    if carried.is_lost() {
        let lost = again(&old.without(|_| false), &Context { tag: Tag::LOST, ..context });
        assert_eq!(lost.reason, verdict.reason, "all that is lost is alike: {case:?}");
    }
    case.any();
    match hook {
        Hook::FromPod | Hook::FromUplink => case.from(),
        Hook::ToPod | Hook::ToUplink => case.to(),
    }
    let noted = case.noted();
    history.note(&old, world, clock, noted.egress_elsewhere);
    if let Some(key) = noted.denied {
        history.deny(key, clock);
    }
    if let Some(key) = noted.goes_on {
        history.keep_denied(&key, clock);
    }
    verdict.tag
}

/// The one that the last packet left with, or any.
fn tag(arrival: &Arrival, before: Tag) -> Tag {
    let choice = arrival.tag >> 4;
    let id = |choice: u8| match choice % 4 {
        0 => EndpointId::NONE,
        other => world::endpoint_id(other - 1),
    };
    match arrival.tag % 16 {
        0..=5 => before,
        6 => Tag::LOST,
        7 => Tag::from_bits(arrival.bits),
        8 => Tag::from_bits(arrival.bits % 64),
        9 => Tag::ENTERED,
        10 => Tag::of(id(choice)),
        11 => Tag::of(id(choice)).with_began(Began::Sender),
        12 => Tag::of(id(choice)).with_began(Began::Receiver),
        13 => Tag::judged(id(choice)),
        _ => Tag::reply(id(choice), id(choice >> 2)),
    }
}

fn ethertype(choice: u8) -> u16 {
    match choice % 16 {
        0 => ETH_P_ARP,
        1 => 0x8100,
        even if even % 2 == 0 => ETH_P_IPV4,
        _ => ETH_P_IPV6,
    }
}

/// One packet and what came of it.
#[derive(Debug)]
struct Case<'a> {
    hook: Hook,
    context: Context,
    carried: Carried,
    iface: Iface,
    old: &'a World,
    new: &'a World,
    history: &'a History,
    clock: Clock,
    bytes: &'a [u8],
    offset: usize,
    parsed: Result<Frame, ParseError>,
    /// What an ICMP error quotes.
    quoted: Option<FlowKey>,
    claimed: Option<Addr>,
    /// Which side the packet is from, by itself.
    began: Began,
    verdict: Verdict,
}

/// What passes unjudged.
const LINK: [Reason; 3] = [Reason::Arp, Reason::NeighborDiscovery, Reason::MulticastListener];

impl Case<'_> {
    fn passes(&self) -> bool {
        self.verdict.action() == Action::Pass
    }

    fn ip(&self) -> Option<Packet> {
        match self.parsed {
            Ok(Frame::Ip(packet)) => Some(packet),
            _ => None,
        }
    }

    /// What is behind the link layer, to the end of the frame.
    fn behind_link(&self) -> &[u8] {
        self.bytes.get(self.offset..).unwrap_or_default()
    }

    /// The pod that the device is of.
    fn pod(&self) -> Option<EndpointId> {
        (self.iface.role() == Some(Role::Pod)).then(|| self.iface.endpoint())
    }

    fn is_stacked(&self) -> bool {
        self.hook == Hook::ToUplink && self.iface.role() == Some(Role::Stacked)
    }

    /// At every hook.
    fn any(&self) {
        let reason = self.verdict.reason;
        assert!(Reason::ALL.contains(&reason));
        assert!(reason.hooks().contains(&self.hook), "not an outcome of this hook: {self:?}");
        assert_eq!((reason as u8) < 32, self.passes(), "{self:?}");
        assert!(reason != Reason::Allowed || self.old.has_rules(), "no rule allows it: {self:?}");
        self.flows_change_as_they_may();
        let pod_hook = matches!(self.hook, Hook::FromPod | Hook::ToPod);
        let known = matches!(self.iface.role(), Some(Role::Pod | Role::Foreign));
        if pod_hook && !known && self.passes() {
            let pending = reason == Reason::PendingAllowed && self.old.config().pending_allowed();
            let own = reason == Reason::Own;
            assert!(own || pending || LINK.contains(&reason), "unknown device: {self:?}");
        }
        if matches!(self.parsed, Err(_) | Ok(Frame::Other)) && pod_hook && self.passes() {
            let unread = [Reason::Own, Reason::ReplyPassed, Reason::Foreign];
            assert!(unread.contains(&reason), "not understood: {self:?}");
        }
        self.link_messages_are_exact();
    }

    /// What passes unjudged has no room for anything else.
    fn link_messages_are_exact(&self) {
        let pod_hook = matches!(self.hook, Hook::FromPod | Hook::ToPod);
        let v6 = self.context.ethertype == ETH_P_IPV6;
        let message = if v6 { link::message(self.behind_link()) } else { None };
        match self.verdict.reason {
            // From outside it is looked at where it leaves.
            Reason::Arp if pod_hook => assert!(link::is_arp(self.bytes), "{self:?}"),
            Reason::Arp => assert_eq!(self.context.ethertype, ETH_P_ARP),
            Reason::NeighborDiscovery => {
                let of_two = [Some(Message::Solicitation), Some(Message::Advertisement)];
                assert!(of_two.contains(&message), "{self:?}");
            }
            Reason::MulticastListener if self.hook == Hook::ToPod && self.is_known() => {
                assert_eq!(message, Some(Message::Query), "{self:?}");
            }
            Reason::MulticastListener => {
                let of_two = [Some(Message::Query), Some(Message::Report)];
                assert!(of_two.contains(&message), "{self:?}");
            }
            _ => {}
        }
    }

    fn is_known(&self) -> bool {
        matches!(self.iface.role(), Some(Role::Pod | Role::Foreign))
    }

    fn is_of(&self, id: EndpointId, addr: &Addr) -> bool {
        let owner = self.old.local(addr);
        let nobody = addr.is_unspecified() || addr.is_unspecified_v4();
        let forwarded = owner.is_none() && !nobody && self.old.forwards(id, addr);
        self.old.owns(id, addr) || owner == id && !id.is_none() || forwarded
    }
}
