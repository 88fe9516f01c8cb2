//! Policies of any size are exact, and what a map cannot hold is refused whole.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use np_agent::bind::Settings;
use np_agent::compile::Atom;
use np_agent::model::{
    Change, Device, DeviceChange, IfIndex, IpBlock, NodeName, Object, ObjectKey, Peer, Pod, Policy,
    PolicyKey, PortMatch, Ports, Protocol, Requirement, Rule, Selector, SourcePrefixes,
};
use np_agent::plan::{Limits, Tables};
use np_agent::reconcile::{Plan, Reconciler};
use np_common::direction::Direction;
use np_common::endpoint::Role;
use np_common::tunnel::Encapsulation;
use np_tests::simulation::{Judge, device, pod};

const NODE: &str = "node-1";
const DEVICE: u32 = 100;
const TCP: u8 = 6;
const FORWARDED: &str = "10.8.0.0/24";

/// A pod that names what it is granted here.
fn gateway(name: &str, address: Ipv4Addr) -> Object {
    let prefixes = vec![FORWARDED.parse().expect("a prefix")];
    let named = SourcePrefixes { prefixes, refused: Vec::new() };
    Object::Pod(Pod { source_prefixes: Some(Box::new(named)), ..pod(name, address.into()) })
}

/// One pod behind one device, and no policy yet.
fn node(limits: Limits) -> Reconciler {
    let node = NodeName(NODE.into());
    let source_prefixes = vec![FORWARDED.parse().expect("a prefix")];
    let settings = Settings { source_prefixes, ..Settings::default() };
    let mut reconciler =
        Reconciler::new(node, settings, false, Tables::default()).with_limits(limits);
    let address = Ipv4Addr::new(100, 68, 1, 10);
    reconciler.objects([Change::Apply(Object::Pod(pod("subject", address.into())))]);
    reconciler.device(DeviceChange::Seen(device(DEVICE, Some(vec![address.into()]))));
    reconciler
}

fn write(reconciler: &mut Reconciler) -> Plan {
    let plan = reconciler.plan();
    for op in &plan.ops {
        reconciler.written(op);
    }
    match plan.refused {
        None => reconciler.finished(),
        Some(_) => reconciler.broken_off(),
    }
    plan
}

fn apply(reconciler: &mut Reconciler, policies: impl IntoIterator<Item = Policy>) -> Plan {
    reconciler.objects(policies.into_iter().map(|policy| Change::Apply(Object::Policy(policy))));
    write(reconciler)
}

fn egress(name: &str, rules: Vec<Rule>) -> Policy {
    Policy {
        key: PolicyKey::new("default", name),
        subjects: Selector::everything(),
        ingress: None,
        egress: Some(rules.into()),
    }
}

fn block(cidr: String, except: Vec<String>) -> Peer {
    let prefix = |text: &String| text.parse().expect("a prefix");
    Peer::IpBlock(IpBlock { cidr: prefix(&cidr), except: except.iter().map(prefix).collect() })
}

fn port(number: u16) -> PortMatch {
    PortMatch { protocol: Protocol::Tcp, ports: Ports::Range(number, number) }
}

fn address(a: u8, b: usize, c: usize, d: u8) -> IpAddr {
    Ipv4Addr::new(a, b as u8, c as u8, d).into()
}

#[test]
fn a_thousand_ports_on_one_block_are_these_thousand() {
    let mut reconciler = node(Limits::default());
    let ports = (0..1000).map(|i| port(2 * i + 1)).collect();
    let peers = vec![block("203.0.113.0/24".to_owned(), Vec::new())];
    apply(
        &mut reconciler,
        [egress("ports", vec![Rule { peers: Some(peers.into()), ports: Some(ports) }])],
    );
    let judge = Judge::new(reconciler.actual());
    for port in 0..2100 {
        let allowed = port % 2 == 1 && port < 2000;
        let verdict = |peer| judge.allows(DEVICE, Direction::Egress, peer, (TCP, port));
        assert_eq!(verdict(address(203, 0, 113, 9)), allowed, "port {port}");
        assert!(!verdict(address(203, 0, 114, 9)), "port {port}");
    }
}

#[test]
fn a_thousand_policies_on_one_pod_add_up() {
    let mut reconciler = node(Limits::default());
    let policies = (0..1000).map(|i| {
        let peers = vec![block(format!("10.{}.{}.0/24", i / 250, i % 250), Vec::new())];
        let rule = Rule { peers: Some(peers.into()), ports: Some([port(1000 + i as u16)].into()) };
        egress(&format!("policy-{i}"), vec![rule])
    });
    apply(&mut reconciler, policies);
    let judge = Judge::new(reconciler.actual());
    for i in 0..1000_usize {
        for (port, allowed) in [(1000 + i, true), (999 + i, false), (1001 + i, false)] {
            let peer = address(10, i / 250, i % 250, 77);
            let verdict = judge.allows(DEVICE, Direction::Egress, peer, (TCP, port as u16));
            assert_eq!(verdict, allowed, "policy {i}, port {port}");
        }
    }
}

#[test]
fn five_thousand_blocks_with_excepts_in_one_policy_are_exact() {
    let mut reconciler = node(Limits::default());
    let blocks = (0..5000).map(|i| {
        let net = format!("{}.{}", 10 + i / 250, i % 250);
        block(format!("{net}.0.0/16"), vec![format!("{net}.7.0/24"), format!("{net}.8.128/25")])
    });
    let rule = Rule { peers: Some(blocks.collect()), ports: None };
    apply(&mut reconciler, [egress("blocks", vec![rule])]);
    let judge = Judge::new(reconciler.actual());
    for i in 0..5000_usize {
        let (a, b) = (10 + (i / 250) as u8, i % 250);
        for (c, d, allowed) in [
            (0, 0, true),
            (6, 255, true),
            (7, 0, false),
            (8, 127, true),
            (8, 128, false),
            (9, 0, true),
        ] {
            let verdict = judge.allows(DEVICE, Direction::Egress, address(a, b, c, d), (TCP, 80));
            assert_eq!(verdict, allowed, "{a}.{b}.{c}.{d}");
        }
    }
    assert!(!judge.allows(DEVICE, Direction::Egress, address(10, 250, 0, 1), (TCP, 80)));
}

/// Nothing of it is written, not even for others; who asks for the most is told; and when it is
/// gone, what waited is written.
#[test]
fn a_change_that_a_map_has_no_room_for_is_refused_whole() {
    let limits = Limits { rules: 500, ..Limits::default() };
    let mut reconciler = node(limits);
    let subject = Ipv4Addr::new(100, 68, 1, 10);
    reconciler.objects([Change::Apply(gateway("subject", subject))]);
    let one = vec![block("203.0.113.0/24".to_owned(), Vec::new())];
    let small = Rule { peers: Some(one.clone().into()), ports: Some([port(443)].into()) };
    apply(&mut reconciler, [egress("small", vec![small])]);
    let in_force = reconciler.actual().clone();

    let ports = (0..1000).map(|i| port(2 * i + 1)).collect();
    let huge = egress("huge", vec![Rule { peers: Some(one.into()), ports: Some(ports) }]);
    let key = huge.key.clone();
    let refused = apply(&mut reconciler, [huge]).refused.expect("it does not fit");
    assert_eq!((refused.no_room.map, refused.no_room.limit), ("RULES", 500));
    assert!(refused.no_room.needed > 1000, "{refused}");
    assert!(refused.policies.contains(&key), "{refused}");
    assert!(refused.to_string().contains("default/huge"), "{refused}");
    assert_eq!(reconciler.actual(), &in_force);

    // A pod that comes meanwhile waits, and nothing passes it.
    let late = Ipv4Addr::new(100, 68, 1, 11);
    reconciler.objects([Change::Apply(Object::Pod(pod("late", late.into())))]);
    reconciler.device(DeviceChange::Seen(device(DEVICE + 1, Some(vec![late.into()]))));
    assert!(write(&mut reconciler).refused.is_some());
    let peer = address(203, 0, 113, 9);
    let allowed = |reconciler: &Reconciler, device, port| {
        Judge::new(reconciler.actual()).allows(device, Direction::Egress, peer, (TCP, port))
    };
    assert!(allowed(&reconciler, DEVICE, 443) && !allowed(&reconciler, DEVICE, 441));
    assert!(!allowed(&reconciler, DEVICE + 1, 443));

    // A device of nobody yet is denied at once: programs attached to it find it so.
    reconciler.device(DeviceChange::Seen(device(DEVICE + 3, Some(Vec::new()))));
    assert!(write(&mut reconciler).refused.is_some());
    let role = |device| reconciler.actual().ifaces.get(&device).and_then(|iface| iface.role());
    assert_eq!(role(DEVICE + 3), Some(Role::Pending));
    assert_eq!((role(DEVICE), role(DEVICE + 1)), (Some(Role::Pod), Some(Role::Pending)));

    // A tunnel that comes meanwhile is closed to pods, also to flows that they have opened to it.
    let before = reconciler.actual().config.generation();
    let vxlan = Encapsulation::Udp(8472);
    let tunnel = Device { encapsulations: vec![vxlan], ..device(DEVICE + 2, None) };
    reconciler.device(DeviceChange::Seen(tunnel));
    assert!(write(&mut reconciler).refused.is_some());
    assert_eq!(reconciler.actual().tunnels, [vxlan].into());
    assert_ne!(reconciler.actual().config.generation(), before);

    // What a pod may no longer send from is taken away; what one may, waits.
    assert_eq!(reconciler.actual().sources.len(), 1);
    let both = [Object::Pod(pod("subject", subject.into())), gateway("late", late)];
    reconciler.objects(both.map(Change::Apply));
    assert!(write(&mut reconciler).refused.is_some());
    assert!(reconciler.actual().sources.is_empty());

    reconciler.objects([Change::Delete(ObjectKey::Policy(key))]);
    assert_eq!(write(&mut reconciler).refused, None);
    assert_eq!(reconciler.actual().sources.len(), 1);
    assert!(allowed(&reconciler, DEVICE + 1, 443) && !allowed(&reconciler, DEVICE + 1, 441));
}

/// A block costs an entry, and each of its excepts one more.
#[test]
fn who_lists_the_most_blocks_is_told_when_blocks_have_no_room() {
    let mut reconciler = node(Limits { cidrs: 5, ..Limits::default() });
    let address = Ipv4Addr::new(100, 68, 1, 11);
    let mut other = pod("other", address.into());
    other.key.namespace = "other".into();
    reconciler.objects([Change::Apply(Object::Pod(other))]);
    reconciler.device(DeviceChange::Seen(device(DEVICE + 1, Some(vec![address.into()]))));
    let to = |peers: Vec<Peer>| vec![Rule { peers: Some(peers.into()), ports: None }];
    let plain = (0..4).map(|i| block(format!("10.{i}.0.0/16"), Vec::new())).collect();
    let plain = egress("plain", to(plain));
    let except = ["10.9.1.0/24", "10.9.3.0/24"].map(str::to_owned).to_vec();
    let mut carved = egress("carved", to(vec![block("10.9.0.0/16".to_owned(), except)]));
    carved.key.namespace = "other".into();
    let refused = apply(&mut reconciler, [plain, carved]).refused.expect("it does not fit");
    assert_eq!((refused.no_room.map, refused.no_room.needed), ("CIDRS", 7));
    assert_eq!(refused.policies, [PolicyKey::new("default", "plain")]);
    let told = refused.to_string();
    assert!(told.contains("write fewer or wider ipBlocks"), "{told}");
}

/// By the number of its rules, not by who comes last.
#[test]
fn who_lists_the_most_ports_is_told_when_rules_have_no_room() {
    let mut reconciler = node(Limits { rules: 50, ..Limits::default() });
    let address = Ipv4Addr::new(100, 68, 1, 11);
    let mut other = pod("other", address.into());
    other.key.namespace = "other".into();
    reconciler.objects([Change::Apply(Object::Pod(other))]);
    reconciler.device(DeviceChange::Seen(device(DEVICE + 1, Some(vec![address.into()]))));
    let ports = |name: &str, count: u16| {
        let ports = (0..count).map(|i| port(2 * i + 1)).collect();
        egress(name, vec![Rule { peers: None, ports: Some(ports) }])
    };
    for (heavy, light) in [("default", "other"), ("other", "default")] {
        let mut policies = [ports("heavy", 60), ports("light", 3)];
        policies[0].key.namespace = heavy.into();
        policies[1].key.namespace = light.into();
        let keys = policies.each_ref().map(|policy| policy.key.clone());
        let refused = apply(&mut reconciler, policies).refused.expect("it does not fit");
        assert_eq!(refused.policies, [keys[0].clone()], "{refused}");
        reconciler.objects(keys.map(|key| Change::Delete(ObjectKey::Policy(key))));
        write(&mut reconciler);
    }
}

/// Single addresses are peers as pods are. Three policies are named, and how many more there are.
#[test]
fn the_remedy_is_about_the_map_and_the_first_policies_are_named() {
    for (policies, more) in [(3, None), (4, Some("and 1 more")), (6, Some("and 3 more"))] {
        let mut reconciler = node(Limits { peers: 5, ..Limits::default() });
        let refused = apply(
            &mut reconciler,
            (0..policies).map(|i| {
                let peers = (0..8).map(|host| block(format!("10.0.{i}.{host}/32"), Vec::new()));
                let rule = Rule { peers: Some(peers.collect()), ports: None };
                egress(&format!("policy-{i}"), vec![rule])
            }),
        );
        let told = refused.refused.expect("it does not fit").to_string();
        assert!(told.contains("PEERS holds 5 entries"), "{told}");
        assert!(told.contains("pods that policies of this node tell apart"), "{told}");
        let named = "NetworkPolicy default/policy-0, default/policy-1, default/policy-2";
        assert!(told.contains(named) && !told.contains("policy-3"), "{told}");
        assert_eq!(told.contains(" more"), more.is_some(), "{told}");
        assert!(more.is_none_or(|more| told.contains(more)), "{told}");
    }
}

/// The agent of a busy cluster does not grow with what has been: at the latest with the second change
/// of what is asked, when the tables of before are gone too.
#[test]
fn what_no_policy_asks_for_any_more_is_forgotten() {
    let mut reconciler = node(Limits::default());
    let policy = |name: &str, net: &str| {
        let peers = vec![block(net.to_owned(), Vec::new())];
        egress(name, vec![Rule { peers: Some(peers.into()), ports: None }])
    };
    let atom = |net: &str| {
        let Peer::IpBlock(block) = block(net.to_owned(), Vec::new()) else { unreachable!() };
        Atom::Block(block)
    };
    let (kept, gone) = ("10.1.0.0/16", "10.2.0.0/16");
    apply(&mut reconciler, [policy("kept", kept), policy("gone", gone)]);
    for net in [kept, gone] {
        assert!(reconciler.compiled().atoms.find(&atom(net)).is_some(), "{net}");
    }
    let key = PolicyKey::new("default", "gone");
    reconciler.objects([Change::Delete(ObjectKey::Policy(key))]);
    write(&mut reconciler);
    apply(&mut reconciler, [policy("next", "10.3.0.0/16")]);
    assert!(reconciler.compiled().atoms.find(&atom(kept)).is_some());
    assert_eq!(reconciler.compiled().atoms.find(&atom(gone)), None);
    assert!(reconciler.placements().contains_key(&IfIndex(DEVICE)));
    // What is read is the index that was changed.
    let policies = reconciler.index().policies();
    assert_eq!(policies.map(|policy| &*policy.key.name).collect::<Vec<_>>(), ["kept", "next"]);
}

/// In the plan that follows the change, not in one after it.
#[test]
fn a_pod_s_other_labels_bring_it_other_policies_at_once() {
    let mut reconciler = node(Limits::default());
    let subjects = Selector::from_iter([Requirement::Exists("web".into())]);
    apply(&mut reconciler, [Policy { subjects, ..egress("web", Vec::new()) }]);
    let allowed = |reconciler: &Reconciler| {
        let peer = address(203, 0, 113, 9);
        Judge::new(reconciler.actual()).allows(DEVICE, Direction::Egress, peer, (TCP, 443))
    };
    assert!(allowed(&reconciler), "nothing selects it");
    for (label, denied) in [("web", true), ("other", false), ("web", true)] {
        let mut subject = pod("subject", Ipv4Addr::new(100, 68, 1, 10).into());
        subject.labels = BTreeMap::from([(label.to_owned(), String::new())]).into();
        reconciler.objects([Change::Apply(Object::Pod(subject))]);
        write(&mut reconciler);
        assert_eq!(allowed(&reconciler), !denied, "{label}");
    }
}
