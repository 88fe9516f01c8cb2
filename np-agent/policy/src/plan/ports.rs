//! Sets of ports, and the prefixes that cover them exactly.

use std::collections::{BTreeMap, BTreeSet};

use super::PortPrefix;
use crate::model::Protocol;

/// A union of port ranges of several protocols.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortSet {
    /// Every port of every protocol, also of those without ports.
    everything: bool,
    /// First to last, both included.
    ranges: BTreeMap<Protocol, Vec<(u16, u16)>>,
}

impl PortSet {
    pub fn insert_everything(&mut self) {
        self.everything = true;
    }

    /// Every port of a protocol, port 0 too.
    pub fn insert_protocol(&mut self, protocol: Protocol) {
        self.insert(protocol, 0, u16::MAX);
    }

    pub fn insert(&mut self, protocol: Protocol, first: u16, last: u16) {
        self.ranges.entry(protocol).or_default().push((first, last));
    }

    /// The same set, so that equal sets are equal.
    pub fn normal(mut self) -> Self {
        if self.everything {
            self.ranges.clear();
        }
        self.ranges.values_mut().for_each(|ranges| *ranges = merged(ranges));
        self
    }

    /// How many prefixes there are, without making them.
    pub fn count(&self) -> usize {
        if self.everything {
            return 1;
        }
        let ranges = self.ranges.values().flat_map(|ranges| merged(ranges));
        ranges.map(|(first, last)| prefixes(first, last).count()).sum()
    }

    /// The fewest prefixes that cover the set and nothing else.
    pub fn prefixes(&self) -> BTreeSet<PortPrefix> {
        if self.everything {
            return BTreeSet::from([PortPrefix::EVERYTHING]);
        }
        self.ranges
            .iter()
            .flat_map(|(protocol, ranges)| {
                merged(ranges).into_iter().flat_map(|(first, last)| {
                    prefixes(first, last)
                        .map(|(port, bits)| PortPrefix::ports(protocol.number(), port, bits))
                })
            })
            .collect()
    }
}

/// Disjoint, ascending ranges with a gap between any two.
fn merged(ranges: &[(u16, u16)]) -> Vec<(u16, u16)> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::new();
    for (first, last) in sorted {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// Cuts a range into aligned powers of two: at most 30 of them.
fn prefixes(first: u16, last: u16) -> impl Iterator<Item = (u16, u8)> {
    let end = u32::from(last) + 1;
    let mut next = u32::from(first);
    std::iter::from_fn(move || {
        if next >= end {
            return None;
        }
        let aligned = if next == 0 { 16 } else { next.trailing_zeros().min(16) };
        let fits = (end - next).ilog2();
        let size = aligned.min(fits);
        let prefix = (next as u16, 16 - size as u8);
        next += 1 << size;
        Some(prefix)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn covers(prefix: &PortPrefix, port: u16) -> bool {
        let bits = u32::from(prefix.bits) - 16;
        bits == 0 || (prefix.port ^ port) >> (16 - bits) == 0
    }

    proptest! {
        #[test]
        fn prefixes_cover_the_set_and_nothing_else(
            ranges in prop::collection::vec((any::<u16>(), any::<u16>()), 1..6),
            probes in prop::collection::vec(any::<u16>(), 20),
        ) {
            let mut set = PortSet::default();
            let ranges: Vec<_> = ranges.into_iter().map(|(a, b)| (a.min(b), a.max(b))).collect();
            for (first, last) in &ranges {
                set.insert(Protocol::Tcp, *first, *last);
            }
            let prefixes = set.prefixes();
            prop_assert_eq!(prefixes.len(), set.count());
            prop_assert_eq!(&prefixes, &set.clone().normal().prefixes());
            let edges = ranges.iter().flat_map(|(first, last)| {
                [first.saturating_sub(1), *first, *last, last.saturating_add(1)]
            });
            for port in probes.iter().copied().chain(edges) {
                let wanted = ranges.iter().any(|(first, last)| (*first..=*last).contains(&port));
                let covering = prefixes.iter().filter(|prefix| covers(prefix, port)).count();
                prop_assert_eq!(covering, usize::from(wanted), "port {}", port);
            }
        }
    }

    #[test]
    fn a_protocol_is_one_prefix_and_a_range_at_most_thirty() {
        let count = |first, last| {
            let mut set = PortSet::default();
            set.insert(Protocol::Udp, first, last);
            set.prefixes().len()
        };
        assert_eq!(count(0, 65535), 1);
        assert_eq!(count(1, 65535), 16);
        assert_eq!(count(1, 65534), 30);
        assert_eq!(count(80, 80), 1);
    }

    #[test]
    fn neighbouring_ranges_merge() {
        let mut set = PortSet::default();
        set.insert(Protocol::Tcp, 82, 83);
        set.insert(Protocol::Tcp, 80, 81);
        assert_eq!(set.prefixes(), BTreeSet::from([PortPrefix::ports(6, 80, 14)]));
    }
}
