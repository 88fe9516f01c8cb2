//! Policies of any size are exact. What a map cannot hold is in `too_large.rs`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use np_common::direction::Direction;
use np_policy::bind::Settings;
use np_policy::compile::Atom;
use np_policy::model::{
    Change, DeviceChange, IfIndex, IpBlock, NodeName, Object, ObjectKey, Peer, Policy, PolicyKey,
    PortMatch, Ports, Protocol, Requirement, Rule, Selector,
};
use np_policy::plan::Tables;
use np_policy::reconcile::Reconciler;
use np_tests::simulation::{Judge, device, pod};

const NODE: &str = "node-1";
const DEVICE: u32 = 100;
const TCP: u8 = 6;

/// One pod behind one device, and no policy yet.
fn node() -> Reconciler {
    let node = NodeName(NODE.into());
    let mut reconciler = Reconciler::new(node, Settings::default(), false, Tables::default());
    let address = Ipv4Addr::new(100, 68, 1, 10);
    reconciler.objects([Change::Apply(Object::Pod(pod("subject", address.into())))]);
    reconciler.device(DeviceChange::Seen(device(DEVICE, Some(vec![address.into()]))));
    reconciler
}

fn write(reconciler: &mut Reconciler) {
    for op in reconciler.plan().ops {
        reconciler.written(&op);
    }
    reconciler.finished();
}

fn apply(reconciler: &mut Reconciler, policies: impl IntoIterator<Item = Policy>) {
    reconciler.objects(policies.into_iter().map(|policy| Change::Apply(Object::Policy(policy))));
    write(reconciler);
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
    let mut reconciler = node();
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
    let mut reconciler = node();
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
    let mut reconciler = node();
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

/// The agent of a busy cluster does not grow with what has been: at the latest with the second change
/// of what is asked, when the tables of before are gone too.
#[test]
fn what_no_policy_asks_for_any_more_is_forgotten() {
    let mut reconciler = node();
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
    reconciler.objects([Change::delete(ObjectKey::Policy(key))]);
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
    let mut reconciler = node();
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
