//! What the fuzzer chooses: a node's tables and what happens on it. Every number is taken modulo
//! the few things it can name, so that most inputs are about endpoints, flows and rules that meet.

use arbitrary::Arbitrary;

#[derive(Arbitrary, Clone, Debug)]
pub struct Scenario {
    pub generation: u32,
    /// In kernel ticks, modulo what 32 bits of 256 ticks hold.
    pub start: u64,
    pub hz: u8,
    pub pending_allowed: bool,
    pub endpoints: [Endpoint; 3],
    pub devices: [Device; 6],
    /// The class of each known address.
    pub classes: [u8; 16],
    /// An address that is some endpoint's besides its own.
    pub alias: (u8, u8),
    pub rules: Vec<Rule>,
    pub tunnels: u8,
    pub steps: Vec<Step>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Endpoint {
    /// Which families it has (bits 0 and 1), which directions are isolated (bits 2 and 3), whose
    /// addresses it has (bits 4 and 5), whether the id is free (bits 6 and 7, both set).
    pub flags: u8,
    pub ingress: u8,
    pub egress: u8,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Device {
    pub role: u8,
    pub endpoint: u8,
    pub layer3: bool,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Rule {
    pub rule_set: u8,
    pub class: u8,
    /// All protocols, all ports of one, or one port.
    pub breadth: u8,
    pub protocol: u8,
    pub port: u8,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Step {
    Packet(Arrival),
    Wait(u8),
    /// A change of policy: one endpoint's, and the tunnels.
    Change {
        endpoint: u8,
        to: Endpoint,
        tunnels: u8,
    },
    AddRule(Rule),
    RemoveRules,
    /// An endpoint's pod goes.
    Free(u8),
    /// Another pod gets an endpoint that is free, and a device.
    Bind {
        endpoint: u8,
        to: Endpoint,
        device: u8,
    },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Arrival {
    pub hook: u8,
    pub ifindex: u8,
    pub ingress_ifindex: u8,
    pub socket: bool,
    pub tag: u8,
    /// What else may be written there.
    pub bits: u16,
    pub ethertype: u8,
    pub packet: Packet,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Packet {
    /// To an earlier packet: the same tuple, its reverse, or an error about either.
    pub relation: u8,
    pub tuple: Tuple,
    /// TCP flags, the type of an ICMP message, the operation of ARP.
    pub flags: u8,
    /// Whether a message between neighbours has the form of its RFC, and which of its lengths; whether
    /// the frame is to a group.
    pub form: u8,
    pub hop_limit: u8,
    pub fragment: u8,
    /// IPv4 options or IPv6 extension headers.
    pub extra: u8,
    /// What an ICMP error quotes.
    pub quoted: Tuple,
    /// Whether the packet is damaged, and how.
    pub damage: u8,
    pub at: u8,
    pub value: u8,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Tuple {
    pub src: u8,
    pub dst: u8,
    pub protocol: u8,
    pub sport: u8,
    pub dport: u8,
}

/// ICMP in the choice of protocols, and a message that is an error in both families.
const ICMP: u8 = 3;
const UNREACHABLE: u8 = 3;

impl Packet {
    /// The packet as its relation to an earlier one makes it, of that one's ethertype.
    pub fn related(self, ethertype: u16, earlier: &[(Tuple, u16)]) -> (Self, u16) {
        let Self { relation, tuple, .. } = self;
        if earlier.is_empty() {
            return (self, ethertype);
        }
        let (same, its) = earlier[usize::from(relation >> 3) % earlier.len()];
        let Tuple { src, dst, protocol, sport, dport } = same;
        let reverse = Tuple { src: dst, dst: src, protocol, sport: dport, dport: sport };
        let error = |quoted: Tuple| Self {
            tuple: Tuple { dst: quoted.src, protocol: ICMP, ..tuple },
            flags: UNREACHABLE,
            quoted,
            ..self
        };
        match relation % 8 {
            1 => (Self { tuple: same, ..self }, its),
            2 | 3 => (Self { tuple: reverse, ..self }, its),
            4 => (error(same), its),
            5 => (error(reverse), its),
            _ => (self, ethertype),
        }
    }
}
