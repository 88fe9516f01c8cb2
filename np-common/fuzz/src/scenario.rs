//! What the fuzzer chooses: a node's tables and what happens on it. Every number is taken modulo
//! the few things it can name, so that most inputs are about endpoints, flows and rules that meet.

use arbitrary::Arbitrary;

#[derive(Arbitrary, Clone, Debug)]
pub struct Scenario {
    pub generation: u32,
    /// In kernel ticks.
    pub start: u32,
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
    /// Which families it has (bits 0 and 1), which directions are isolated (bits 2 and 3).
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
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Arrival {
    pub hook: u8,
    pub ifindex: u8,
    pub ingress_ifindex: u8,
    pub tag: u8,
    pub ethertype: u8,
    pub packet: Packet,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Packet {
    pub tuple: Tuple,
    /// TCP flags, or the type of an ICMP message.
    pub flags: u8,
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
