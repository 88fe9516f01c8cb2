//! Whether the maps have room for a plan, asked before its first write: no policy is half applied.

use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;
use np_common::maps;

use super::{Op, RulePrefix, Tables};

/// How many entries the maps hold that grow with policies and pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub peers: usize,
    pub cidrs: usize,
    pub rules: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            peers: maps::PEERS.max_entries as usize,
            cidrs: maps::CIDRS.max_entries as usize,
            rules: maps::RULES.max_entries as usize,
        }
    }
}

/// A plan that a map is too small for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom {
    pub map: &'static str,
    /// The most entries at any time of the plan.
    pub needed: usize,
    pub limit: usize,
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { map, needed, limit } = self;
        write!(f, "{map} holds {limit} entries and the change needs {needed}")
    }
}

/// Says which map the operations would overfill.
pub fn room(actual: &Tables, ops: &[Op], limits: &Limits) -> Result<(), NoRoom> {
    let count = |is: fn(&Op) -> bool| ops.iter().filter(|op| is(op)).count();
    // Most plans are far from any limit, and need no count of what is there.
    let prefixes = actual.peers.len() + count(|op| matches!(op, Op::SetPeer(..)));
    let rules = actual.rules.len() + count(|op| matches!(op, Op::SetRule(_)));
    if prefixes <= limits.peers.min(limits.cidrs) && rules <= limits.rules {
        return Ok(());
    }
    let single = |prefix: &IpNet| prefix.prefix_len() == prefix.max_prefix_len();
    let singles = actual.peers.keys().filter(|prefix| single(prefix)).count();
    let mut peers = Fill::new("PEERS", singles, limits.peers);
    let mut cidrs = Fill::new("CIDRS", actual.peers.len() - singles, limits.cidrs);
    let mut rules: Fill<RulePrefix> = Fill::new("RULES", actual.rules.len(), limits.rules);
    for op in ops {
        match op {
            Op::SetPeer(prefix, _) | Op::RemovePeer(prefix) => {
                let fill = if single(prefix) { &mut peers } else { &mut cidrs };
                let set = matches!(op, Op::SetPeer(..));
                fill.write(*prefix, set, actual.peers.contains_key(prefix));
            }
            Op::SetRule(rule) | Op::RemoveRule(rule) => {
                let set = matches!(op, Op::SetRule(_));
                rules.write(*rule, set, actual.rules.contains(rule));
            }
            Op::SetIface(_)
            | Op::ClearIface(_)
            | Op::Bind(..)
            | Op::SetPolicy(..)
            | Op::ClearEndpoint(_)
            | Op::SetLocal(..)
            | Op::RemoveLocal(_)
            // There is room for all that endpoints may have.
            | Op::SetSource(..)
            | Op::RemoveSource(..)
            | Op::SetTunnel(_)
            | Op::RemoveTunnel(_)
            | Op::SetConfig(_) => {}
        }
    }
    peers.done()?;
    cidrs.done()?;
    rules.done()
}

/// How full a map is while operations run.
struct Fill<K> {
    map: &'static str,
    limit: usize,
    now: usize,
    most: usize,
    /// What operations have written so far, and whether it is there.
    written: BTreeMap<K, bool>,
}

impl<K: Ord> Fill<K> {
    fn new(map: &'static str, now: usize, limit: usize) -> Self {
        Self { map, limit, now, most: 0, written: BTreeMap::new() }
    }

    fn write(&mut self, key: K, set: bool, at_first: bool) {
        let before = self.written.insert(key, set).unwrap_or(at_first);
        self.now = self.now + usize::from(set) - usize::from(before);
        if set {
            self.most = self.most.max(self.now);
        }
    }

    fn done(self) -> Result<(), NoRoom> {
        let Self { map, limit, most, .. } = self;
        if most > limit { Err(NoRoom { map, needed: most, limit }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use np_common::rules::{ClassId, RuleSetId};
    use proptest::prelude::*;

    use super::*;
    use crate::plan::PortPrefix;

    fn rule(port: u16) -> RulePrefix {
        let ports = PortPrefix::ports(6, port, 16);
        RulePrefix { rule_set: RuleSetId::new(1), class: ClassId::new(1), ports }
    }

    fn limits(all: usize) -> Limits {
        Limits { peers: all, cidrs: all, rules: all }
    }

    #[test]
    fn a_plan_counts_at_its_fullest() {
        let mut actual = Tables::default();
        actual.rules.extend([rule(1), rule(2)]);
        let swap = [Op::SetRule(rule(3)), Op::RemoveRule(rule(1))];
        let no_room = NoRoom { map: "RULES", needed: 3, limit: 2 };
        assert_eq!(room(&actual, &swap, &limits(2)), Err(no_room));
        assert_eq!(room(&actual, &swap, &limits(3)), Ok(()));
        let the_other_way = [swap[1], swap[0]];
        assert_eq!(room(&actual, &the_other_way, &limits(2)), Ok(()));
    }

    #[test]
    fn what_is_there_already_takes_no_more_room() {
        let mut actual = Tables::default();
        let prefix: IpNet = "10.0.0.0/8".parse().expect("a prefix");
        actual.peers.insert(prefix, ClassId::new(1));
        let ops = [Op::SetPeer(prefix, ClassId::new(2)), Op::SetPeer(prefix, ClassId::new(3))];
        assert_eq!(room(&actual, &ops, &limits(1)), Ok(()));
    }

    #[test]
    fn full_length_prefixes_and_shorter_ones_lie_in_two_maps() {
        let op = |text: &str| Op::SetPeer(text.parse().expect("a prefix"), ClassId::new(1));
        let ops = [op("10.0.0.1/32"), op("10.0.0.0/8"), op("fd00::/8")];
        let no_room = NoRoom { map: "CIDRS", needed: 2, limit: 1 };
        assert_eq!(room(&Tables::default(), &ops, &limits(1)), Err(no_room));
    }

    #[test]
    fn a_map_may_be_filled_to_the_last_entry() {
        let mut tables = Tables::default();
        let prefix = |text: &str| text.parse::<IpNet>().expect("a prefix");
        for text in ["10.0.0.1/32", "10.0.0.2/32", "10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"] {
            tables.peers.insert(prefix(text), ClassId::new(1));
        }
        let limits = Limits { peers: 3, cidrs: 4, ..Limits::default() };
        let set = |text: &str| Op::SetPeer(prefix(text), ClassId::new(1));
        assert_eq!(room(&tables, &[set("10.4.0.0/16"), set("10.0.0.3/32")], &limits), Ok(()));
        let more = [set("10.4.0.0/16"), set("10.5.0.0/16")];
        let no_room = NoRoom { map: "CIDRS", needed: 5, limit: 4 };
        assert_eq!(room(&tables, &more, &limits), Err(no_room));
    }

    fn write() -> impl Strategy<Value = Op> {
        const PREFIXES: [&str; 6] =
            ["10.0.0.1/32", "10.0.0.2/32", "fd00::1/128", "10.0.0.0/8", "10.0.0.0/9", "fd00::/8"];
        let prefix = || {
            prop::sample::select(&PREFIXES)
                .prop_map(|text| text.parse::<IpNet>().expect("a prefix"))
        };
        prop_oneof![
            (prefix(), 1..3_u32)
                .prop_map(|(prefix, class)| Op::SetPeer(prefix, ClassId::new(class))),
            prefix().prop_map(Op::RemovePeer),
            (0..5_u16).prop_map(|port| Op::SetRule(rule(port))),
            (0..5_u16).prop_map(|port| Op::RemoveRule(rule(port))),
        ]
    }

    proptest! {
        /// As if the writes were made one by one, and each that adds looked how full its map is.
        #[test]
        fn what_a_plan_needs_is_how_full_it_makes_the_maps(
            before in prop::collection::vec(write(), 0..12),
            ops in prop::collection::vec(write(), 0..12),
            (peers, cidrs, rules) in (0..4_usize, 0..4_usize, 0..6_usize),
        ) {
            let mut tables = Tables::default();
            before.iter().for_each(|op| op.apply(&mut tables));
            let limits = Limits { peers, cidrs, rules };
            let said = room(&tables, &ops, &limits);
            let mut most = [("PEERS", 0, peers), ("CIDRS", 0, cidrs), ("RULES", 0, rules)];
            for op in &ops {
                op.apply(&mut tables);
                if !matches!(op, Op::SetPeer(..) | Op::SetRule(_)) {
                    continue;
                }
                let of_map = |map: &str| {
                    let prefixes = tables.peers.keys().map(|prefix| Op::RemovePeer(*prefix));
                    let rules = tables.rules.iter().map(|rule| Op::RemoveRule(*rule));
                    prefixes.chain(rules).filter(|entry| entry.map() == map).count()
                };
                for (map, most, _) in &mut most {
                    if op.map() == *map {
                        *most = of_map(map).max(*most);
                    }
                }
            }
            let overfull = most.into_iter().find(|(_, needed, limit)| needed > limit);
            let no_room = overfull.map(|(map, needed, limit)| NoRoom { map, needed, limit });
            prop_assert_eq!(said.err(), no_room);
        }
    }

    #[test]
    fn no_room_says_how_much_is_missing_where() {
        let no_room = NoRoom { map: "RULES", needed: 3, limit: 2 };
        assert_eq!(no_room.to_string(), "RULES holds 2 entries and the change needs 3");
    }
}
