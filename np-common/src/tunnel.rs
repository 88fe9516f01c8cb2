//! What the nodes' tunnels unwrap: packets that a pod must not make itself.
//!
//! A tunnel takes what comes to its port or protocol for another node's, and lets out whatever is
//! inside. Nodes of a cluster have the same tunnels, so a node knows by its own what the others
//! unwrap.

use crate::packet::UDP;

/// IPv4 in IP.
pub const IPIP: u8 = 4;
/// IPv6 in IP.
pub const SIT: u8 = 41;
/// Protocol number of GRE.
pub const GRE: u8 = 47;

/// How a tunnel's packets are recognised on the way between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encapsulation {
    /// UDP to this port: VXLAN, Geneve.
    Udp(u16),
    /// This IP protocol.
    Protocol(u8),
}

/// TUNNELS is a set: one bit for each UDP port and, behind them, one for each IP protocol. So it
/// has room for all of them, and changes by one store.
pub const TUNNEL_WORDS: u32 = (PORTS + PROTOCOLS) / u64::BITS;

const PORTS: u32 = 1 << 16;
const PROTOCOLS: u32 = 1 << 8;

impl Encapsulation {
    /// Whether packets of this IP protocol can be a tunnel's.
    #[inline(always)]
    pub const fn has(protocol: u8) -> bool {
        matches!(protocol, UDP | IPIP | SIT | GRE)
    }

    /// What a packet of this protocol, to this port, would be taken for; none when no tunnel that
    /// the kernel has takes it.
    #[inline(always)]
    pub const fn of(protocol: u8, port: u16) -> Option<Self> {
        match protocol {
            UDP => Some(Encapsulation::Udp(port)),
            IPIP | SIT | GRE => Some(Encapsulation::Protocol(protocol)),
            _ => None,
        }
    }

    #[inline(always)]
    const fn number(self) -> u32 {
        match self {
            Encapsulation::Udp(port) => port as u32,
            Encapsulation::Protocol(protocol) => PORTS + protocol as u32,
        }
    }

    /// The word of TUNNELS in which its bit is.
    #[inline(always)]
    pub const fn word(self) -> u32 {
        self.number() / u64::BITS
    }

    /// Returns its bit in [`Encapsulation::word`].
    #[inline(always)]
    pub const fn bit(self) -> u64 {
        1 << (self.number() % u64::BITS)
    }

    /// The members of the set that a word of TUNNELS holds.
    pub fn of_word(word: u32, bits: u64) -> impl Iterator<Item = Self> {
        let set = (0..u64::BITS).filter(move |bit| bits & 1 << bit != 0);
        set.map(move |bit| {
            let number = word * u64::BITS + bit;
            match number.checked_sub(PORTS) {
                None => Encapsulation::Udp(number as u16),
                Some(protocol) => Encapsulation::Protocol(protocol as u8),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encapsulation_has_a_bit_of_its_own() {
        let ports = (0..=u16::MAX).map(Encapsulation::Udp);
        for encapsulation in ports.chain((0..=u8::MAX).map(Encapsulation::Protocol)) {
            let (word, bit) = (encapsulation.word(), encapsulation.bit());
            assert!(word < TUNNEL_WORDS, "{encapsulation:?}");
            assert!(Encapsulation::of_word(word, bit).eq([encapsulation]), "{encapsulation:?}");
        }
    }
}
