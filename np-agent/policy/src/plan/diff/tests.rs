use std::net::IpAddr;

use np_common::addr::Addr;
use np_common::decide::Maps;
use np_common::direction::Direction;
use np_common::endpoint::{Endpoint, EndpointId, Iface, PolicyWord, Role};
use np_common::rules::RuleKey;
use np_common::tunnel::Encapsulation;
use proptest::prelude::*;

use super::*;
use crate::plan::simulate::Simulated;

/// What a rule set of this test allows a class, made of nothing but their ids: ids stand for
/// content, so the same pair means the same in both tables.
fn content(rule_set: u32, class: u32) -> BTreeSet<PortPrefix> {
    const ALLOWED: [[u8; 5]; 3] = [
        [0b0000, 0b0001, 0b0010, 0b0100, 0b1000],
        [0b0100, 0b0111, 0b0100, 0b0101, 0b0110],
        [0b0000, 0b0010, 0b0001, 0b0000, 0b0011],
    ];
    let all = [
        PortPrefix::ports(6, 80, 16),
        PortPrefix::ports(6, 8080, 15),
        PortPrefix::protocol(17),
        PortPrefix::EVERYTHING,
    ];
    let allowed = ALLOWED[rule_set as usize - 1][class as usize];
    all.into_iter().enumerate().filter(|(bit, _)| allowed >> bit & 1 == 1).map(|(_, p)| p).collect()
}

pub(in crate::plan) fn mk_tables(peers: Vec<(usize, u32)>, words: Vec<(u32, u32)>) -> Tables {
    let mut tables = Tables::default();
    for (prefix, class) in peers {
        tables.peers.insert(PREFIXES[prefix].parse().expect("a prefix"), ClassId::new(class));
    }
    let classes: BTreeSet<u32> =
        tables.peers.values().map(|class| class.get()).chain([0]).collect();
    for (at, (ingress, egress)) in words.into_iter().enumerate() {
        let id = EndpointId::new(at as u16 + 1);
        let rule_set = |rule_set| (rule_set > 0).then_some(RuleSetId::new(rule_set));
        let policy = PolicyWord::new(rule_set(ingress), rule_set(egress));
        tables.endpoints.insert(id, Endpoint::new([Addr::UNSPECIFIED; 2], policy, 0));
        tables.ifaces.insert(at as u32 + 1, Iface::new(at as u32 + 1, Role::Pod, id));
        for rule_set in [ingress, egress].into_iter().filter(|rule_set| *rule_set > 0) {
            let everyone = content(rule_set, 0);
            for class in &classes {
                let ports = content(rule_set, *class);
                if *class > 0 && ports == everyone {
                    continue;
                }
                tables.rules.extend(ports.into_iter().map(|ports| RulePrefix {
                    rule_set: RuleSetId::new(rule_set),
                    class: ClassId::new(*class),
                    ports,
                }));
            }
        }
    }
    tables
}

const PREFIXES: [&str; 7] =
    ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "10.9.0.1/32", "::/0"];
const ADDRS: [&str; 7] =
    ["1.2.3.4", "10.200.0.1", "10.1.9.9", "10.1.2.9", "10.1.2.3", "10.9.0.1", "fd00::1"];
const PROBES: [(u8, u16); 5] = [(6, 80), (6, 8080), (6, 8082), (17, 53), (1, 0)];

/// Every endpoint's word on every probe, for each direction; who is gone is allowed nothing.
pub(in crate::plan) fn verdicts(tables: &Tables) -> Vec<bool> {
    let maps = Simulated::new(tables);
    let mut verdicts = Vec::new();
    for id in 1..=3 {
        let policy = maps.policy(EndpointId::new(id));
        for direction in [Direction::Ingress, Direction::Egress] {
            for addr in ADDRS {
                let class = maps.class(&addr.parse::<IpAddr>().expect("an address").into());
                for (protocol, port) in PROBES {
                    let allows = |rule_set| {
                        [class, ClassId::NONE].iter().any(|class| {
                            maps.allows(&RuleKey::new(rule_set, *class, protocol, port))
                        })
                    };
                    let open = policy.rule_set(direction).is_none_or(allows);
                    verdicts.push(policy.is_in_use() && open);
                }
            }
        }
    }
    verdicts
}

pub(in crate::plan) fn tables() -> impl Strategy<Value = Tables> {
    let peers = prop::collection::vec((0..PREFIXES.len(), 1..5u32), 0..6);
    let words = prop::collection::vec((0..4u32, 0..4u32), 3);
    (peers, words).prop_map(|(peers, words)| mk_tables(peers, words))
}

/// Tables and what becomes of them: anything, or endpoints that go over to each other's policies
/// while a prefix goes to another class.
fn changes() -> impl Strategy<Value = (Tables, Tables)> {
    let peers = prop::collection::vec((0..PREFIXES.len(), 1..5u32), 0..6);
    let words = prop::collection::vec((0..4u32, 0..4u32), 3);
    let moved = (0..PREFIXES.len(), 1..5u32);
    let exchange = (peers, words, moved, 0..3_usize).prop_map(|(peers, words, moved, by)| {
        let mut others = words.clone();
        others.rotate_left(by);
        let more = peers.iter().copied().chain([moved]).collect();
        (mk_tables(peers, words), mk_tables(more, others))
    });
    prop_oneof![exchange, (tables(), tables())]
}

/// Where tables differ.
fn difference(actual: &Tables, desired: &Tables) -> Scope {
    let peers = actual.peers.keys().chain(desired.peers.keys());
    let peers = peers.filter(|prefix| actual.peers.get(*prefix) != desired.peers.get(*prefix));
    Scope {
        everything: false,
        peers: peers.copied().collect(),
        rules: actual.rules.symmetric_difference(&desired.rules).copied().collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// A look at no more than what changes is enough, and nothing else is written.
    #[test]
    fn a_plan_within_its_scope_is_as_careful((actual, desired) in changes()) {
        let scope = difference(&actual, &desired);
        let (old, new) = (verdicts(&actual), verdicts(&desired));
        let mut now = actual.clone();
        for op in diff(&actual, &desired, &scope) {
            op.apply(&mut now);
            for (at, verdict) in verdicts(&now).iter().enumerate() {
                prop_assert!(*verdict == old[at] || *verdict == new[at], "after {op}");
            }
        }
        now.config = desired.config;
        prop_assert_eq!(now, desired);
    }

    /// A tuple that is on its way must not pass through a verdict that nobody asked for.
    #[test]
    fn every_verdict_goes_from_old_to_new_once(actual in tables(), desired in tables()) {
        let old = verdicts(&actual);
        let new = verdicts(&desired);
        let mut now = actual.clone();
        let mut last = old.clone();
        for op in diff(&actual, &desired, &Scope::everything()) {
            op.apply(&mut now);
            let current = verdicts(&now);
            for (at, verdict) in current.iter().enumerate() {
                prop_assert!(
                    *verdict == last[at] || *verdict == new[at],
                    "after {}: verdict {} went back or aside", op, at
                );
            }
            last = current;
        }
        prop_assert_eq!(last, new);
        now.config = desired.config;
        prop_assert_eq!(now, desired);
    }

    /// A write can fail anywhere: what is left to do is found from where it stopped, and is
    /// still without a third verdict.
    #[test]
    fn a_broken_off_change_can_be_taken_up(
        actual in tables(), desired in tables(), stop in 0..60usize,
    ) {
        let new = verdicts(&desired);
        let mut now = actual.clone();
        for op in diff(&actual, &desired, &Scope::everything()).iter().take(stop) {
            op.apply(&mut now);
        }
        let old = verdicts(&now);
        for op in diff(&now.clone(), &desired, &Scope::everything()) {
            op.apply(&mut now);
            for (at, verdict) in verdicts(&now).iter().enumerate() {
                prop_assert!(*verdict == old[at] || *verdict == new[at], "after {op}");
            }
        }
        now.config = desired.config;
        prop_assert_eq!(now, desired);
    }
}

/// Whatever else cannot be written: it is the new pod's only when that is complete.
#[test]
fn a_device_that_is_new_or_was_another_pods_is_closed_first() {
    let id = EndpointId::new(1);
    let pod = |id| Iface::new(1, Role::Pod, EndpointId::new(id));
    let other = |role| Iface::new(1, role, EndpointId::NONE);
    let pending = other(Role::Pending);
    for (old, new, first) in [
        (None, pod(1), Some(pending)),
        (None, other(Role::Uplink), Some(other(Role::Uplink))),
        (Some(pod(2)), pod(1), Some(pending)),
        (Some(pod(2)), other(Role::Uplink), Some(other(Role::Uplink))),
        (Some(pending), pod(1), None),
        (Some(other(Role::Uplink)), pod(1), None),
    ] {
        let mut actual = Tables::default();
        actual.ifaces.extend(old.map(|old| (1, old)));
        let mut desired = Tables::default();
        desired.ifaces.insert(1, new);
        desired.endpoints.insert(id, Endpoint::new([Addr::UNSPECIFIED; 2], PolicyWord::OPEN, 0));
        let ops = diff(&actual, &desired, &Scope::everything());
        let complete = ops.iter().position(|op| matches!(op, Op::SetPolicy(..)));
        let (before, after) = ops.split_at(complete.expect("the endpoint is written"));
        let ifaces = |ops: &[Op]| {
            let is = |op: &&Op| matches!(op, Op::SetIface(_));
            ops.iter().filter(is).copied().collect::<Vec<_>>()
        };
        assert_eq!(ifaces(before), first.map(Op::SetIface).into_iter().collect::<Vec<_>>());
        let then = (first != Some(new)).then_some(Op::SetIface(new));
        assert_eq!(ifaces(after), then.into_iter().collect::<Vec<_>>(), "{old:?} to {new:?}");
    }
}

/// One that an endpoint has lost can be another's next, and no flow of before may count for that.
#[test]
fn an_endpoint_that_loses_an_address_starts_a_new_life() {
    let id = EndpointId::new(1);
    let addr = |text: &str| Addr::from(text.parse::<IpAddr>().expect("an address"));
    let (one, other, none) = (addr("10.0.0.1"), addr("fd00::1"), Addr::UNSPECIFIED);
    for (old, new, is_new_life) in [
        ([one, other], [one, other], false),
        ([one, other], [other, one], false),
        ([one, none], [one, other], false),
        ([none, none], [one, other], false),
        ([one, other], [one, none], true),
        ([one, other], [none, other], true),
        ([one, none], [other, none], true),
    ] {
        let with = |addrs| {
            let mut tables = Tables { config: Config::new(7, false), ..Tables::default() };
            tables.endpoints.insert(id, Endpoint::new(addrs, PolicyWord::OPEN, 0));
            tables
        };
        let ops = diff(&with(old), &with(new), &Scope::everything());
        let life = [
            Op::SetPolicy(id, PolicyWord::FREE),
            Op::Bind(id, new, 8),
            Op::SetPolicy(id, PolicyWord::OPEN),
            Op::SetConfig(Config::new(8, false)),
        ];
        assert_eq!(ops, if is_new_life { life.to_vec() } else { vec![] }, "{old:?} to {new:?}");
    }
}

/// Its rule set goes with it, and allows nothing else until then.
#[test]
fn an_endpoint_that_goes_is_allowed_no_more_while_an_address_moves() {
    let actual = mk_tables(vec![(1, 1), (4, 2)], vec![(2, 0), (1, 0)]);
    let desired = mk_tables(vec![(1, 2), (4, 2)], vec![(2, 0)]);
    let (old, new) = (verdicts(&actual), verdicts(&desired));
    for scope in [Scope::everything(), difference(&actual, &desired)] {
        let mut now = actual.clone();
        for op in diff(&actual, &desired, &scope) {
            op.apply(&mut now);
            let verdicts = verdicts(&now);
            let more = (0..).zip(&verdicts).find(|(at, now)| **now && !old[*at] && !new[*at]);
            assert_eq!(more, None, "after {op}");
        }
        assert_eq!(Tables { config: desired.config, ..now }, desired);
    }
}

#[test]
fn no_change_is_no_write() {
    let tables = mk_tables(vec![(1, 1), (3, 2)], vec![(1, 2), (0, 3), (2, 0)]);
    assert_eq!(diff(&tables, &tables, &Scope::everything()), []);
}

#[test]
fn the_generation_rises_before_anything_is_removed() {
    let actual = mk_tables(vec![(1, 1)], vec![(1, 0), (0, 0), (0, 0)]);
    let desired = mk_tables(vec![(1, 2)], vec![(2, 0), (0, 0), (0, 0)]);
    let ops = diff(&actual, &desired, &Scope::everything());
    let at = |wanted: fn(&Op) -> bool| ops.iter().position(wanted).expect("there is one");
    let generation = at(|op| matches!(op, Op::SetConfig(config) if config.generation() == 1));
    assert!(at(|op| matches!(op, Op::SetPolicy(..))) < generation);
    assert!(generation < at(|op| matches!(op, Op::RemoveRule(_))));
}

/// Whichever alone may change a verdict on a flow that is known.
#[test]
fn peers_rules_and_policies_each_raise_the_generation() {
    let base = mk_tables(vec![(0, 1)], vec![(1, 2)]);
    let (mut peers, mut rules, mut policy) = (base.clone(), base.clone(), base.clone());
    peers.peers.insert("198.51.100.0/24".parse().expect("a prefix"), ClassId::new(2));
    let prefix = RulePrefix {
        rule_set: RuleSetId::new(1),
        class: ClassId::NONE,
        ports: PortPrefix::ports(132, 7, 16),
    };
    rules.rules.insert(prefix);
    for endpoint in policy.endpoints.values_mut() {
        endpoint.policy = PolicyWord::new(None, endpoint.policy.rule_set(Direction::Egress));
    }
    let raised = |desired: &Tables| {
        let ops = diff(&base, desired, &Scope::everything());
        ops.iter().any(|op| matches!(op, Op::SetConfig(config) if config.generation() == 1))
    };
    assert!(!raised(&base));
    for (what, desired) in [("peers", &peers), ("rules", &rules), ("policies", &policy)] {
        assert!(raised(desired), "{what}");
    }
}

/// At once, and not with what else changes: that may break off.
#[test]
fn a_new_tunnel_is_closed_first_and_with_a_generation_of_its_own() {
    let actual = mk_tables(vec![(1, 1)], vec![(1, 0), (0, 0), (0, 0)]);
    let mut desired = mk_tables(vec![(1, 2)], vec![(2, 0), (0, 0), (0, 0)]);
    let (vxlan, ipip) = (Encapsulation::Udp(8472), Encapsulation::Protocol(4));
    desired.tunnels.extend([vxlan, ipip]);
    let ops = diff(&actual, &desired, &Scope::everything());
    let first = [vxlan, ipip].map(Op::SetTunnel);
    assert_eq!(ops[..2], first);
    assert_eq!(ops[2], Op::SetConfig(Config::new(1, false)));
    assert!(ops[3..].contains(&Op::SetConfig(Config::new(2, false))), "{ops:?}");

    let mut now = actual;
    ops.iter().for_each(|op| op.apply(&mut now));
    let gone = Tables { tunnels: [ipip].into(), ..now.clone() };
    assert_eq!(diff(&now, &gone, &Scope::default()), [Op::RemoveTunnel(vxlan)]);
}

/// Taken away before anything else, so that no id hands them on; given with what else an endpoint
/// has, before a device names it.
#[test]
fn further_sources_go_first_and_come_before_the_device() {
    let prefix = |text: &str| -> IpNet { text.parse().expect("a prefix") };
    let (id, other) = (EndpointId::new(1), EndpointId::new(2));
    let mut actual = mk_tables(vec![(1, 1)], vec![(1, 0)]);
    actual.sources.extend([(id, prefix("10.8.0.0/16")), (id, prefix("10.9.0.0/16"))]);
    let mut desired = mk_tables(vec![(1, 2)], vec![(2, 0), (1, 0)]);
    desired.sources.insert((id, prefix("10.8.0.0/16")));
    desired.sources.insert((other, prefix("10.9.0.0/16")));
    desired.tunnels.insert(Encapsulation::Udp(8472));
    let ops = diff(&actual, &desired, &Scope::everything());
    assert_eq!(ops[0], Op::RemoveSource(id, prefix("10.9.0.0/16")));
    let at = |wanted: &Op| ops.iter().position(|op| op == wanted).expect("there is one");
    let given = at(&Op::SetSource(other, prefix("10.9.0.0/16")));
    assert!(given > at(&Op::SetPolicy(other, desired.endpoints[&other].policy)));
    assert!(given < at(&Op::SetIface(desired.ifaces[&2])));
    let of_sources = |op: &&Op| matches!(op, Op::SetSource(..) | Op::RemoveSource(..));
    assert_eq!(ops.iter().filter(of_sources).count(), 2, "{ops:?}");
    let mut now = actual;
    ops.iter().for_each(|op| op.apply(&mut now));
    assert_eq!(now.sources, desired.sources);

    // Alone they are found without a scope, and judge no flow again.
    let none = Tables { sources: BTreeSet::new(), ..now.clone() };
    let gone = now.sources.iter().map(|(id, prefix)| Op::RemoveSource(*id, *prefix));
    assert_eq!(diff(&now, &none, &Scope::default()), gone.collect::<Vec<_>>());
    let back = now.sources.iter().map(|(id, prefix)| Op::SetSource(*id, *prefix));
    assert_eq!(diff(&none, &now, &Scope::default()), back.collect::<Vec<_>>());
}

/// The next free id after the last is the first; 0 stands for none.
#[test]
fn a_copy_of_the_last_rule_set_has_a_real_id() {
    let last = RuleSetId::new(RuleSetId::MAX);
    let in_force = |policy: PolicyWord| {
        let mut tables = Tables::default();
        for id in 1..=2 {
            let id = EndpointId::new(id);
            tables.endpoints.insert(id, Endpoint::new([Addr::UNSPECIFIED; 2], policy, 0));
        }
        tables
    };
    let rule = RulePrefix { rule_set: last, class: ClassId::NONE, ports: PortPrefix::EVERYTHING };
    let mut actual = in_force(PolicyWord::new(Some(last), None));
    actual.rules.insert(rule);
    // One keeps the rule set and the other gets rid of it, while an address moves.
    let mut desired = actual.clone();
    let open = Endpoint::new([Addr::UNSPECIFIED; 2], PolicyWord::OPEN, 0);
    desired.endpoints.insert(EndpointId::new(2), open);
    desired.peers.insert("10.0.0.0/8".parse().expect("a prefix"), ClassId::new(1));
    let ops = diff(&actual, &desired, &Scope::everything());
    let copy = ops.iter().find_map(|op| match op {
        Op::SetRule(rule) if rule.rule_set != last => Some(rule.rule_set),
        _ => None,
    });
    assert_eq!(copy, Some(RuleSetId::new(1)), "{ops:#?}");
}
