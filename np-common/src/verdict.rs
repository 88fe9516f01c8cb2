//! Outcomes: every packet ends with a [`Reason`], and every Reason has one row in [`posture`].

use crate::direction::{Direction, Hook};
use crate::packet::ParseError;
use crate::tag::Tag;

/// What a program tells the kernel to do.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Go on to the next program (TCX_NEXT, -1). Never OK, which would hide other people's
    /// programs behind ours.
    Pass,
    /// The packet is dropped.
    Drop,
}

/// The verdict on one packet at one hook.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Why it passes or not.
    pub reason: Reason,
    /// What the packet carries from here on.
    pub tag: Tag,
}

impl Verdict {
    /// Returns what happens to the packet.
    #[inline(always)]
    pub const fn action(&self) -> Action {
        posture(self.reason)
    }
}

macro_rules! reasons {
    ($($(#[doc = $what:literal])+
       $name:ident = $number:literal, $text:literal, [$($hook:ident),+] $(, $remedy:literal)?;)*) => {
        /// Why a packet passed or dropped. Numbers are part of the ABI: COUNTERS is indexed by
        /// them. Those below 32 pass, the others drop. A new one needs no new ABI version.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[doc = $what])+ $name = $number,)*
        }

        impl Reason {
            /// Every Reason there is.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// The greatest number of a Reason.
            pub const GREATEST: u32 = {
                let mut greatest = 0;
                let mut rest = Self::ALL;
                while let Some((reason, others)) = rest.split_first() {
                    if *reason as u32 > greatest {
                        greatest = *reason as u32;
                    }
                    rest = others;
                }
                greatest
            };

            /// The name shown to users.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Reason::$name => $text,)*
                }
            }

            /// The hooks at which a packet can get it.
            pub const fn hooks(self) -> &'static [Hook] {
                match self {
                    $(Reason::$name => &[$(Hook::$hook),+],)*
                }
            }

            /// What happened, in the words of its documentation; each line begins with a space.
            pub const fn what(self) -> &'static str {
                match self {
                    $(Reason::$name => concat!($($what),+),)*
                }
            }

            /// What a user can do about it; empty where there is nothing to do.
            pub const fn remedy(self) -> &'static str {
                match self {
                    $(Reason::$name => concat!($($remedy)?),)*
                }
            }
        }
    };
}

// Each row: what happened (the documentation), number, name, the hooks at which it can be the
// outcome, and what a user can do about it. docs/REASONS.md is generated from them.
reasons! {
    /// The packet has entered the node. The verdict is taken where it leaves.
    Entered = 0, "entered", [FromPod, FromUplink];
    /// The packet answers a flow that is still allowed.
    Reply = 1, "reply", [FromPod, FromUplink];
    /// The packet was recognised as a reply, where it entered the node or by its flow.
    ReplyPassed = 2, "reply-passed", [ToPod, ToUplink];
    /// The node itself made the packet.
    Own = 3, "own", [ToPod, ToUplink];
    /// The pod sent the packet to itself through a Service.
    Hairpin = 4, "hairpin", [ToPod];
    /// No policy isolates either end in this direction.
    NotIsolated = 5, "not-isolated", [ToPod, ToUplink];
    /// The packet belongs to a flow that was judged under the current generation of policy.
    Established = 6, "established", [ToPod, ToUplink];
    /// The packet was judged now, and every isolated end has a rule that allows it.
    Allowed = 7, "allowed", [ToPod, ToUplink];
    /// The sender's egress has been judged already, at an inner or stacked device.
    EgressJudged = 8, "egress-judged", [ToUplink];
    /// No pod of this node sent the packet.
    Transit = 9, "transit", [ToUplink];
    /// An ARP message.
    Arp = 10, "arp", [FromPod, ToPod, FromUplink, ToUplink];
    /// A neighbour solicitation or advertisement, or a router solicitation.
    NeighborDiscovery = 11, "neighbor-discovery", [FromPod, ToPod, FromUplink, ToUplink];
    /// A multicast listener query, report or done message.
    MulticastListener = 12, "multicast-listener", [FromPod, ToPod, FromUplink, ToUplink];
    /// The device leads to a container that is not a pod (`--foreign`), and no pod of this node has
    /// sent the packet.
    Foreign = 13, "foreign", [FromPod, ToPod];
    /// It is not known yet whose device this is, and the agent runs with `--pending allow`.
    PendingAllowed = 14, "pending-allowed", [FromPod, ToPod];
    /// An uplink carries something that is neither IP nor ARP.
    NotIp = 15, "not-ip", [FromUplink, ToUplink];
    /// An ICMP error about a packet of a flow that is still allowed.
    Related = 16, "related", [FromPod, ToPod, FromUplink, ToUplink];

    /// No egress rule of the sending pod allows the packet.
    EgressDenied = 32, "egress-denied", [FromPod, ToPod, FromUplink, ToUplink],
        "Ask `np-agent explain` about the connection: it names the policies that isolate the pod, and the rules that nearly match.";
    /// No ingress rule of the receiving pod allows the packet.
    IngressDenied = 33, "ingress-denied", [FromPod, ToPod, ToUplink],
        "Ask `np-agent explain` about the connection: it names the policies that isolate the pod, and the rules that nearly match.";
    /// A fragment after the first, to or from an isolated pod. Its first fragment has not been seen,
    /// so its ports are not known.
    Fragment = 34, "fragment", [ToPod, ToUplink],
        "Nothing if it is rare: later datagrams of the same connection pass. Conntrack on the node, which every kube-proxy brings, puts fragments in order. A rule without `ports` lets any fragment pass.";
    /// An ICMP error to or from an isolated pod, about a packet that belongs to no known flow.
    IcmpError = 35, "icmp-error", [ToPod, ToUplink],
        "Nothing: errors about connections that policy allows pass as `related`.";
    /// It is not known yet which pod the device belongs to.
    Pending = 36, "pending", [FromPod, ToPod],
        "Read the device's line in `np-agent status`: WHY says what is missing. Name containers that are not pods with `--foreign`, and an uplink with `--uplink`.";
    /// The pod sent from an address that is neither its own nor one that it may forward for.
    SourceAddress = 37, "source-address", [FromPod],
        "If the pod forwards for others, name their addresses in its annotation `np-agent.io/source-prefixes` and permit the range with `--source-prefixes`. A pod cannot use DHCP: use an IPAM that runs on the node.";
    /// A packet from outside, or from an unknown sender, claims the address of a pod on this node.
    ForgedSource = 38, "forged-source", [ToPod, FromUplink, ToUplink],
        "Find the sender with `tcpdump -e -n -i DEVICE`. If a load balancer outside the node keeps the pod's address, use the Service's cluster address instead. If pods of this node are hit, read what `np-agent status` says about devices and programs of others.";
    /// A packet from or to a pod is neither IPv4, IPv6 nor ARP.
    Ethertype = 39, "ethertype", [FromPod, ToPod],
        "Nothing: no policy can allow it. Turn off what sends it.";
    /// A pod sent a router advertisement or a redirect.
    RouterClaim = 40, "router-claim", [FromPod],
        "Nothing: no policy can allow it. Set the route at its receivers instead.";
    /// A header is cut off, contradicts itself, or could not be read.
    Malformed = 41, "malformed", [FromPod, ToPod, ToUplink],
        "Look at the packet with `tcpdump -e -n -v -i DEVICE` and fix its sender.";
    /// The packet has more IPv6 extension headers than are followed.
    ExtensionHeaders = 42, "extension-headers", [FromPod, ToPod, ToUplink],
        "Nothing: no policy can allow it. Turn off what adds so many headers.";
    /// A packet that a pod of this node wrapped itself came out of a tunnel of the node.
    TunnelForged = 43, "tunnel-forged", [FromUplink],
        "Look at what the pod runs: it tried to send in the name of another pod. A tunnel of the pod's own must use a port that no tunnel of the node has.";
    /// A pod wrapped the packet itself, for a tunnel of the nodes to unwrap.
    TunnelFromPod = 44, "tunnel-from-pod", [FromPod, ToPod, FromUplink, ToUplink],
        "Give a tunnel of the pod's own a port that neither a tunnel of the node nor `--tunnel-port` has.";
    /// A pod claimed, by ARP or neighbour discovery, an address that it may not send from.
    AddressClaim = 45, "address-claim", [FromPod],
        "As for `source-address`. A pod's IPv6 link-local address must be formed from its hardware address, which is the kernel's default.";
    /// Policy-based IPsec of the node wrapped the packet before it was seen, and its sender is
    /// isolated for egress. Where the packet goes cannot be known.
    Unjudgeable = 46, "unjudgeable", [ToUplink],
        "Use WireGuard or xfrm interfaces between nodes; `np-agent check` counts the policies of IPsec that hide packets.";
    /// The frame is for another port of the bridge, or for a host behind the pod that the pod may
    /// not forward for, and one end is isolated.
    NotAddressed = 47, "not-addressed", [ToPod],
        "Nothing if it is rare: a bridge floods frames while it does not know their receiver. If the pod forwards for others, see `source-address`.";
    /// The node forwards the packet, and nothing shows any more who sent it: something has
    /// overwritten its tag, or the device by which it entered has no role.
    UnknownSender = 48, "unknown-sender", [ToPod, ToUplink],
        "Read what `np-agent status` says about programs of others and about devices without programs.";
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
        | Reason::Unjudgeable
        | Reason::NotAddressed
        | Reason::UnknownSender => Action::Drop,
    }
}

/// Drops are distinguished from passes by their numbers where nothing else is known.
const _: () = {
    let mut rest = Reason::ALL;
    while let Some((reason, others)) = rest.split_first() {
        let passes = matches!(posture(*reason), Action::Pass);
        assert!(((*reason as u8) < 32) == passes);
        rest = others;
    }
};
