//! Outcomes: every packet ends with a [`Reason`], and every Reason has one row in [`posture`].

use crate::direction::Direction;
use crate::packet::ParseError;
use crate::tag::Tag;

/// What a program tells the kernel to do.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Go on to the next program (TCX_NEXT, -1). Never OK, which would hide other people's
    /// programs behind ours.
    Pass,
    Drop,
}

/// The verdict on one packet at one hook.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub reason: Reason,
    /// What the packet carries from here on.
    pub tag: Tag,
}

impl Verdict {
    #[inline(always)]
    pub const fn action(&self) -> Action {
        posture(self.reason)
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// Why a packet passed or dropped. Numbers are part of the ABI: COUNTERS is indexed by
        /// them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[$doc])* $name = $number,)*
        }

        impl Reason {
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// The name shown to users.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Reason::$name => $text,)*
                }
            }
        }
    };
}

reasons! {
    /// `from_*`: the sender is known; the verdict falls where the packet leaves the node.
    Entered = 0, "entered";
    /// `from_*`: answers a flow that is still allowed.
    Reply = 1, "reply";
    /// `to_*`: was recognised as a reply where it entered.
    ReplyPassed = 2, "reply-passed";
    /// `to_*`: the node itself made the packet.
    Own = 3, "own";
    /// `to_pod`: the pod sent it to itself through a Service.
    Hairpin = 4, "hairpin";
    /// `to_*`: no policy isolates either end in this direction.
    NotIsolated = 5, "not-isolated";
    /// `to_*`: belongs to a flow judged under the current generation.
    Established = 6, "established";
    /// `to_*`: judged now, and every isolated end has a rule that allows it.
    Allowed = 7, "allowed";
    /// `to_uplink`: its sender's egress has been judged at an inner or stacked device.
    EgressJudged = 8, "egress-judged";
    /// `to_uplink`: no pod of this node sent it.
    Transit = 9, "transit";
    Arp = 10, "arp";
    /// Neighbour solicitation or advertisement, router solicitation.
    NeighborDiscovery = 11, "neighbor-discovery";
    /// Multicast listener query, report or done.
    MulticastListener = 12, "multicast-listener";
    /// The device leads to a container that Kubernetes does not know.
    Foreign = 13, "foreign";
    /// The device is not yet known, and the agent was told to let such devices pass.
    PendingAllowed = 14, "pending-allowed";
    /// An uplink carries something that is neither IP nor ARP.
    NotIp = 15, "not-ip";
    /// An ICMP error about a packet of a flow that is still allowed.
    Related = 16, "related";

    /// No egress rule of the sending pod allows it.
    EgressDenied = 32, "egress-denied";
    /// No ingress rule of the receiving pod allows it.
    IngressDenied = 33, "ingress-denied";
    /// A fragment to or from an isolated pod, and no first one went before it: its ports are not
    /// known.
    Fragment = 34, "fragment";
    /// An ICMP error to or from an isolated pod, about a packet of no flow that is known.
    IcmpError = 35, "icmp-error";
    /// The device is not yet known to be a pod's.
    Pending = 36, "pending";
    /// The pod sent from an address that is not its own, nor one that it may forward for.
    SourceAddress = 37, "source-address";
    /// A packet from outside claims the address of a pod on this node.
    ForgedSource = 38, "forged-source";
    /// A pod sent something that is neither IPv4, IPv6 nor ARP.
    Ethertype = 39, "ethertype";
    /// A pod sent a router advertisement or a redirect.
    RouterClaim = 40, "router-claim";
    /// A header is cut off, contradicts itself, or could not be read.
    Malformed = 41, "malformed";
    /// More IPv6 extension headers than are followed.
    ExtensionHeaders = 42, "extension-headers";
    /// A packet that a pod of this node wrapped itself came out of the node's tunnel.
    TunnelForged = 43, "tunnel-forged";
    /// `to_uplink`: a pod wrapped it itself, for a tunnel of the nodes to unwrap.
    TunnelFromPod = 44, "tunnel-from-pod";
    /// A pod claimed, by ARP or a neighbour advertisement, an address that it may not send from.
    AddressClaim = 45, "address-claim";
    /// `to_uplink`: policy-based IPsec of the node wrapped it before it was seen, and its sender is
    /// isolated: where it goes cannot be told.
    Unjudgeable = 46, "unjudgeable";
}

impl Reason {
    /// The Reason of an end that no rule allows.
    pub const fn denied(direction: Direction) -> Self {
        match direction {
            Direction::Ingress => Reason::IngressDenied,
            Direction::Egress => Reason::EgressDenied,
        }
    }
}

impl From<ParseError> for Reason {
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::Malformed => Reason::Malformed,
            ParseError::ExtensionHeaders => Reason::ExtensionHeaders,
        }
    }
}

/// The posture table: what each Reason does to a packet.
pub const fn posture(reason: Reason) -> Action {
    match reason {
        Reason::Entered
        | Reason::Reply
        | Reason::ReplyPassed
        | Reason::Own
        | Reason::Hairpin
        | Reason::NotIsolated
        | Reason::Established
        | Reason::Allowed
        | Reason::EgressJudged
        | Reason::Transit
        | Reason::Arp
        | Reason::NeighborDiscovery
        | Reason::MulticastListener
        | Reason::Foreign
        | Reason::PendingAllowed
        | Reason::NotIp
        | Reason::Related => Action::Pass,

        Reason::EgressDenied
        | Reason::IngressDenied
        | Reason::Fragment
        | Reason::IcmpError
        | Reason::Pending
        | Reason::SourceAddress
        | Reason::ForgedSource
        | Reason::Ethertype
        | Reason::RouterClaim
        | Reason::Malformed
        | Reason::ExtensionHeaders
        | Reason::TunnelForged
        | Reason::TunnelFromPod
        | Reason::AddressClaim
        | Reason::Unjudgeable => Action::Drop,
    }
}
