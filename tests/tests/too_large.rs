//! What the maps have no room for: one policy is held back, and everyone else's changes are written.

use std::net::{IpAddr, Ipv4Addr};

use np_common::direction::Direction;
use np_common::endpoint::Role;
use np_policy::bind::Settings;
use np_policy::model::{
    Change, DeviceChange, IpBlock, NodeName, Object, ObjectKey, Peer, Policy, PolicyKey, PortMatch,
    Ports, Protocol, Rule, Selector,
};
use np_policy::plan::{Limits, Op, Tables};
use np_policy::reconcile::{InForce, Reconciler};
use np_tests::simulation::{Judge, device, pod};

const FIRST: u32 = 100;
const TCP: u8 = 6;
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));

fn reconciler(limits: Limits, actual: Tables) -> Reconciler {
    let node = NodeName("node-1".into());
    Reconciler::new(node, Settings::default(), false, actual).with_limits(limits)
}

/// A pod in each of these namespaces, behind devices from `FIRST` on.
fn cluster(reconciler: &mut Reconciler, namespaces: &[&str]) {
    for (at, namespace) in (0..).zip(namespaces) {
        start(reconciler, namespace, at);
    }
}

fn start(reconciler: &mut Reconciler, namespace: &str, at: u8) {
    let address = Ipv4Addr::new(100, 68, 1, 10 + at).into();
    let mut pod = pod(&format!("pod-{at}"), address);
    pod.key.namespace = namespace.into();
    reconciler.objects([Change::Apply(Object::Pod(pod))]);
    let device = device(FIRST + u32::from(at), Some(vec![address]));
    reconciler.device(DeviceChange::Seen(device));
}

/// Plans and writes; no map is ever fuller than its limit.
fn write(reconciler: &mut Reconciler, limits: &Limits) -> Vec<Op> {
    let ops = reconciler.plan().ops;
    for op in &ops {
        reconciler.written(op);
        let actual = reconciler.actual();
        let singles =
            actual.peers.keys().filter(|prefix| prefix.prefix_len() == prefix.max_prefix_len());
        let singles = singles.count();
        assert!(actual.rules.len() <= limits.rules, "{op}");
        assert!(singles <= limits.peers, "{op}");
        assert!(actual.peers.len() - singles <= limits.cidrs, "{op}");
    }
    reconciler.finished();
    ops
}

fn apply(
    reconciler: &mut Reconciler,
    limits: &Limits,
    policies: impl IntoIterator<Item = Policy>,
) -> Vec<Op> {
    reconciler.objects(policies.into_iter().map(|policy| Change::Apply(Object::Policy(policy))));
    write(reconciler, limits)
}

fn delete(reconciler: &mut Reconciler, limits: &Limits, key: &PolicyKey) {
    reconciler.objects([Change::delete(ObjectKey::Policy(key.clone()))]);
    write(reconciler, limits);
}

fn egress(namespace: &str, name: &str, rules: Vec<Rule>) -> Policy {
    Policy {
        key: PolicyKey::new(namespace, name),
        subjects: Selector::everything(),
        ingress: None,
        egress: Some(rules.into()),
    }
}

fn block(cidr: &str, except: &[String]) -> Peer {
    let prefix = |text: &String| text.parse().expect("a prefix");
    let cidr = cidr.parse().expect("a prefix");
    Peer::IpBlock(IpBlock { cidr, except: except.iter().map(prefix).collect() })
}

/// So many ports to one block: one rule each.
fn ports(namespace: &str, name: &str, numbers: impl IntoIterator<Item = u16>) -> Policy {
    let ports = numbers
        .into_iter()
        .map(|port| PortMatch { protocol: Protocol::Tcp, ports: Ports::Range(port, port) });
    let peers = Some([block("203.0.113.0/24", &[])].into());
    egress(namespace, name, vec![Rule { peers, ports: Some(ports.collect()) }])
}

/// No two of them are one range.
fn odd(count: u16) -> impl Iterator<Item = u16> {
    (0..count).map(|i| 2 * i + 1)
}

fn blocks(namespace: &str, name: &str, peers: Vec<Peer>) -> Policy {
    egress(namespace, name, vec![Rule { peers: Some(peers.into()), ports: None }])
}

fn allowed(reconciler: &Reconciler, at: u32, port: u16) -> bool {
    Judge::new(reconciler.actual()).allows(FIRST + at, Direction::Egress, PEER, (TCP, port))
}

fn held(reconciler: &Reconciler) -> Vec<String> {
    reconciler.held().map(|held| held.policy.to_string()).collect()
}

fn rules(rules: usize) -> Limits {
    Limits { rules, ..Limits::default() }
}

#[test]
fn a_policy_that_is_too_large_is_held_back_and_all_others_are_written() {
    let limits = rules(500);
    let mut reconciler = reconciler(limits, Tables::default());
    cluster(&mut reconciler, &["a", "b"]);
    apply(&mut reconciler, &limits, [ports("a", "huge", odd(1000)), ports("b", "small", [443])]);
    let [huge] = &reconciler.held().cloned().collect::<Vec<_>>()[..] else {
        panic!("one is held back: {:?}", held(&reconciler))
    };
    assert_eq!((huge.no_room.map, huge.no_room.limit), ("RULES", 500));
    assert_eq!((huge.policy.to_string().as_str(), huge.in_force), ("a/huge", InForce::Nothing));
    let text = huge.to_string();
    for part in ["NetworkPolicy a/huge", "RULES holds 500 entries", "isolated", "fewer distinct"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!allowed(&reconciler, 0, 1), "isolated, and nothing is allowed");
    assert!(allowed(&reconciler, 1, 443) && !allowed(&reconciler, 1, 441));

    // Whatever others do is written, in the namespace of the large one too.
    start(&mut reconciler, "b", 2);
    apply(&mut reconciler, &limits, [ports("a", "beside", [8443]), ports("b", "small", [444])]);
    assert_eq!(held(&reconciler), ["a/huge"]);
    assert!(allowed(&reconciler, 0, 8443) && !allowed(&reconciler, 0, 1));
    assert!(allowed(&reconciler, 2, 444) && !allowed(&reconciler, 2, 443));
    let role = reconciler.actual().ifaces.get(&(FIRST + 2)).and_then(|iface| iface.role());
    assert_eq!(role, Some(Role::Pod));

    // Smaller, it is exact.
    apply(&mut reconciler, &limits, [ports("a", "huge", odd(100))]);
    assert!(held(&reconciler).is_empty());
    assert!(allowed(&reconciler, 0, 1) && !allowed(&reconciler, 0, 2));
}

#[test]
fn a_change_that_is_too_large_leaves_the_last_good_version_in_force() {
    let limits = rules(500);
    let mut reconciler = reconciler(limits, Tables::default());
    cluster(&mut reconciler, &["a", "b"]);
    apply(&mut reconciler, &limits, [ports("a", "policy", [1, 80])]);
    for count in [1000, 1200] {
        let change = ports("a", "policy", odd(count));
        apply(&mut reconciler, &limits, [change, ports("b", "other", [count])]);
        let in_force: Vec<_> = reconciler.held().map(|held| held.in_force).collect();
        assert_eq!(in_force, [InForce::LastGood], "also after the second change");
        let what_counts: Vec<_> = reconciler.held().map(|held| held.what_counts()).collect();
        assert_eq!(what_counts, ["a/policy LastGood"], "whatever the numbers");
        let last_good = |port| allowed(&reconciler, 0, port);
        assert!(last_good(1) && last_good(80) && !last_good(3));
        assert!(allowed(&reconciler, 1, count) && !allowed(&reconciler, 1, count + 1));
    }
    // A pod that comes in between is isolated, and has what the last good version allows.
    start(&mut reconciler, "a", 2);
    write(&mut reconciler, &limits);
    assert!(allowed(&reconciler, 2, 80) && !allowed(&reconciler, 2, 3));
    delete(&mut reconciler, &limits, &PolicyKey::new("a", "policy"));
    assert!(held(&reconciler).is_empty());
    assert!(allowed(&reconciler, 0, 3), "nothing selects it");
}

/// Where they do not fit next to what others have now: those that say the most, and not all.
#[test]
fn last_good_versions_are_forgotten_the_largest_first() {
    let limits = rules(500);
    let mut reconciler = reconciler(limits, Tables::default());
    cluster(&mut reconciler, &["a", "b", "c", "d", "other"]);
    let sizes = [("a", 65), ("b", 50), ("c", 60), ("d", 55)];
    apply(&mut reconciler, &limits, sizes.map(|(name, size)| ports(name, "policy", odd(size))));
    assert!(held(&reconciler).is_empty());
    apply(&mut reconciler, &limits, sizes.map(|(name, _)| ports(name, "policy", odd(1000))));
    let in_force = |reconciler: &Reconciler| -> Vec<_> {
        reconciler.held().map(|held| (held.policy.namespace.to_string(), held.in_force)).collect()
    };
    let all_good = sizes.map(|(name, _)| (name.to_owned(), InForce::LastGood));
    assert_eq!(in_force(&reconciler), all_good);
    // One is forgotten, and then two more: 50 fit next to 400.
    apply(&mut reconciler, &limits, [ports("other", "policy", odd(400))]);
    let good: Vec<_> = in_force(&reconciler)
        .into_iter()
        .filter(|(_, in_force)| *in_force == InForce::LastGood)
        .collect();
    assert_eq!(good, [("b".to_owned(), InForce::LastGood)]);
    assert!(allowed(&reconciler, 1, 99) && !allowed(&reconciler, 3, 1));
    assert!(allowed(&reconciler, 4, 799));
}

/// By one that comes later, whatever it weighs next to them.
#[test]
fn what_is_in_force_is_not_pushed_out() {
    let limits = rules(500);
    let mut reconciler = reconciler(limits, Tables::default());
    cluster(&mut reconciler, &["a", "b"]);
    apply(&mut reconciler, &limits, [ports("a", "first", odd(300))]);
    apply(&mut reconciler, &limits, [ports("b", "later", odd(250).map(|port| port + 1))]);
    assert_eq!(held(&reconciler), ["b/later"]);
    assert!(allowed(&reconciler, 0, 1) && !allowed(&reconciler, 1, 2));
    delete(&mut reconciler, &limits, &PolicyKey::new("a", "first"));
    assert!(held(&reconciler).is_empty());
    assert!(allowed(&reconciler, 1, 2));
}

#[test]
fn many_small_policies_weigh_what_they_weigh_together() {
    let limits = rules(500);
    let mut reconciler = reconciler(limits, Tables::default());
    cluster(&mut reconciler, &["many", "one"]);
    let first = |at: u16| 1000 + 200 * at;
    let many =
        (0..10).map(|at| ports("many", &format!("p{at}"), (0..70).map(move |i| first(at) + 2 * i)));
    apply(&mut reconciler, &limits, many.chain([ports("one", "policy", odd(100))]));
    assert!(!held(&reconciler).is_empty());
    assert!(
        held(&reconciler).iter().all(|key| key.starts_with("many/")),
        "{:?}",
        held(&reconciler)
    );
    assert!(allowed(&reconciler, 1, 1));
}

#[test]
fn the_remedy_is_about_the_map_that_is_full() {
    let excepts = ["10.9.1.0/24", "10.9.3.0/24", "10.9.5.0/24"].map(str::to_owned);
    let carved = || blocks("a", "carved", vec![block("10.9.0.0/16", &excepts)]);
    let plain = || blocks("b", "plain", vec![block("10.1.0.0/16", &[]), block("10.2.0.0/16", &[])]);
    let single = (0..8).map(|host| block(&format!("10.0.0.{host}/32"), &[])).collect();
    let singles = || blocks("a", "singles", Vec::clone(&single));
    let (cidrs, peers) = (Limits { cidrs: 5, ..rules(500) }, Limits { peers: 5, ..rules(500) });
    for (limits, heavy, said) in [
        (cidrs, carved(), ["CIDRS holds 5 entries", "need 6", "fewer or wider ipBlocks"]),
        (peers, singles(), ["PEERS holds 5 entries", "need 8", "pods that policies of this node"]),
    ] {
        let mut reconciler = reconciler(limits, Tables::default());
        cluster(&mut reconciler, &["a", "b"]);
        let key = heavy.key.to_string();
        apply(&mut reconciler, &limits, [plain(), heavy]);
        assert_eq!(held(&reconciler), [key]);
        let text = reconciler.held().next().map(ToString::to_string).unwrap_or_default();
        assert!(said.iter().all(|part| text.contains(part)), "{text}");
    }
}

/// 107 KB of YAML ask for 1.1 million rules. They are counted, and never made.
#[test]
fn a_policy_that_multiplies_is_refused_before_it_is_expanded() {
    let limits = Limits::default();
    let mut reconciler = reconciler(limits, Tables::default());
    cluster(&mut reconciler, &["a", "b"]);
    let mut huge = ports("a", "huge", odd(1100));
    let peers = (0..1000).map(|i| block(&format!("10.{}.{}.0/24", i / 250, i % 250), &[]));
    huge.egress = huge.egress.map(|rules| {
        rules
            .into_iter()
            .map(|rule| Rule { peers: Some(peers.clone().collect()), ..rule })
            .collect()
    });
    reconciler
        .objects([huge, ports("b", "small", [443])].map(|p| Change::Apply(Object::Policy(p))));
    let started = std::time::Instant::now();
    let ops = reconciler.plan().ops;
    println!("planned in {:?}", started.elapsed());
    assert!(ops.len() < 100, "{} writes", ops.len());
    assert_eq!(held(&reconciler), ["a/huge"]);
    let needed = reconciler.held().next().map(|held| held.no_room.needed);
    assert!(needed.is_some_and(|needed| needed > limits.rules), "{needed:?}");
}

#[test]
fn what_has_not_changed_is_not_measured_again() {
    let limits = rules(500);
    let mut reconciler = reconciler(limits, Tables::default());
    cluster(&mut reconciler, &["a", "b"]);
    apply(&mut reconciler, &limits, [ports("a", "huge", odd(1000))]);
    let measured = reconciler.measurements();
    for _ in 0..3 {
        assert_eq!(write(&mut reconciler, &limits), []);
        // As after a write that failed.
        reconciler.broken_off();
        assert_eq!(write(&mut reconciler, &limits), []);
    }
    let policy = ports("a", "huge", odd(1000));
    assert_eq!(apply(&mut reconciler, &limits, [policy]), [], "the same again");
    assert_eq!(reconciler.measurements(), measured);
    apply(&mut reconciler, &limits, [ports("a", "huge", odd(1001))]);
    assert_eq!(reconciler.measurements(), measured + 1);
}

/// What fits is written even if what it takes the place of does not fit next to it. While it is
/// written the pod may talk with nobody, and nobody else notices, whatever they have.
#[test]
fn a_change_from_full_to_full_is_made() {
    let limits = rules(900);
    let mut reconciler = reconciler(limits, Tables::default());
    cluster(&mut reconciler, &["a", "b"]);
    let full = |shift: u16| ports("a", "full", odd(400).map(move |port| port + shift));
    apply(&mut reconciler, &limits, [full(0), ports("b", "other", odd(420))]);
    reconciler.objects([Change::Apply(Object::Policy(full(1)))]);
    let ops = reconciler.plan().ops;
    for op in &ops {
        reconciler.written(op);
        assert!(reconciler.actual().rules.len() <= limits.rules, "{op}");
        assert!(allowed(&reconciler, 1, 839) && !allowed(&reconciler, 1, 2), "{op}");
        assert!(!allowed(&reconciler, 0, 839) && !allowed(&reconciler, 0, 840), "{op}");
    }
    reconciler.finished();
    assert!(held(&reconciler).is_empty());
    assert!(allowed(&reconciler, 0, 2) && !allowed(&reconciler, 0, 1));
}
