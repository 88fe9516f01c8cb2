//! What a change costs the agent up to a finished plan, by the size of the cluster: everything from
//! nothing, one pod's labels, one policy, one pod of the node.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use divan::Bencher;
use np_policy::bind::Settings;
use np_policy::index::{Index, Touched};
use np_policy::model::{Change, DeviceChange, NodeName, Object, ObjectKey, Pod};
use np_policy::plan::Tables;
use np_policy::reconcile::Reconciler;
use np_tests::scale::{NODE, Scale};

/// Prints as a benchmark's argument.
#[derive(Clone, Copy)]
struct Size(Scale);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} policies, {} pods", self.0.policies, self.0.pods)
    }
}

const fn size(policies: usize, pods: usize) -> Size {
    Size(Scale { pods, policies, local: 100 })
}

const SIZES: [Size; 4] =
    [size(100, 1000), size(1000, 5000), size(5000, 20_000), size(10_000, 50_000)];

fn main() {
    for Size(scale) in SIZES {
        let (_, pods) = held(|| index_of_pods(scale));
        let (reconciler, all) = held(|| settled(scale));
        let tables = reconciler.actual();
        println!(
            "{} pods, {} policies, {} local: {} peers, {} rules; {} KiB live, {} B a pod; \
             index of the pods alone: {} B a pod",
            scale.pods,
            scale.policies,
            tables.endpoints.len(),
            tables.peers.len(),
            tables.rules.len(),
            all / 1024,
            all / scale.pods,
            pods / scale.pods,
        );
    }
    divan::main();
}

/// What is made, and the bytes that it keeps.
fn held<T>(make: impl FnOnce() -> T) -> (T, usize) {
    let before = live();
    let made = make();
    (made, live().saturating_sub(before))
}

/// Bytes that this process has allocated and not given back.
fn live() -> usize {
    // SAFETY: reads the allocator's own counters; takes nothing.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

fn unplanned(scale: Scale) -> Reconciler {
    let node = NodeName(NODE.into());
    let mut reconciler = Reconciler::new(node, Settings::default(), false, Tables::default());
    reconciler.objects(scale.changes());
    for device in scale.devices() {
        reconciler.device(DeviceChange::Seen(device));
    }
    reconciler
}

fn index_of_pods(scale: Scale) -> Index {
    let mut index = Index::default();
    for pod in (0..scale.pods).map(|i| scale.pod(i, "v1")) {
        index.apply(applied(pod), &mut Touched::default());
    }
    index.pack();
    index
}

fn settled(scale: Scale) -> Reconciler {
    let mut reconciler = unplanned(scale);
    settle(&mut reconciler);
    reconciler
}

fn settle(reconciler: &mut Reconciler) -> usize {
    let ops = reconciler.plan().ops;
    for op in &ops {
        reconciler.written(op);
    }
    reconciler.finished();
    ops.len()
}

#[divan::bench(args = SIZES, sample_count = 5, sample_size = 1)]
fn from_nothing(bencher: Bencher<'_, '_>, Size(scale): &Size) {
    bencher.with_inputs(|| unplanned(*scale)).bench_values(|mut reconciler| {
        let ops = reconciler.plan();
        (reconciler, ops)
    });
}

#[divan::bench(args = SIZES, sample_count = 5, sample_size = 1)]
fn index(bencher: Bencher<'_, '_>, Size(scale): &Size) {
    bencher.with_inputs(|| scale.changes()).bench_values(|changes| {
        let mut index = Index::default();
        let mut touched = Touched::default();
        for change in changes {
            index.apply(change, &mut touched);
        }
        (index, touched)
    });
}

/// The same change back and forth; what it writes is taken as written between.
fn repeated(bencher: Bencher<'_, '_>, scale: Scale, changes: [Change; 2]) {
    let mut reconciler = settled(scale);
    let mut turn = 0;
    bencher.bench_local(|| {
        turn += 1;
        reconciler.objects([changes[turn % 2].clone()]);
        settle(&mut reconciler)
    });
}

fn applied(pod: Pod) -> Change {
    Change::Apply(Object::Pod(pod))
}

#[divan::bench(args = SIZES)]
fn relabel_a_remote_pod(bencher: Bencher<'_, '_>, Size(scale): &Size) {
    let mut other = scale.pod(7, "v2");
    Arc::make_mut(&mut other.labels).insert("app".to_owned(), "app-3".to_owned());
    repeated(bencher, *scale, [applied(scale.pod(7, "v1")), applied(other)]);
}

#[divan::bench(args = SIZES)]
fn relabel_a_local_pod(bencher: Bencher<'_, '_>, Size(scale): &Size) {
    let mut other = scale.pod(0, "v2");
    Arc::make_mut(&mut other.labels).insert("app".to_owned(), "app-3".to_owned());
    repeated(bencher, *scale, [applied(scale.pod(0, "v1")), applied(other)]);
}

#[divan::bench(args = SIZES)]
fn delete_and_make_a_remote_pod(bencher: Bencher<'_, '_>, Size(scale): &Size) {
    let pod = scale.pod(7, "v1");
    let gone = Change::delete(ObjectKey::Pod(pod.key.clone()));
    repeated(bencher, *scale, [applied(pod), gone]);
}

#[divan::bench(args = SIZES)]
fn delete_and_make_a_policy(bencher: Bencher<'_, '_>, Size(scale): &Size) {
    let policy = scale.changes().into_iter().find_map(|change| match change {
        Change::Apply(Object::Policy(policy)) => Some(policy),
        _ => None,
    });
    let policy = policy.expect("the cluster has policies");
    let gone = Change::delete(ObjectKey::Policy(policy.key.clone()));
    repeated(bencher, *scale, [Change::Apply(Object::Policy(policy)), gone]);
}

#[divan::bench(args = SIZES)]
fn relabel_a_namespace(bencher: Bencher<'_, '_>, Size(scale): &Size) {
    let namespaces: BTreeMap<String, _> = scale
        .changes()
        .into_iter()
        .filter_map(|change| match change {
            Change::Apply(Object::Namespace(namespace)) => {
                Some((namespace.name.clone(), namespace))
            }
            _ => None,
        })
        .collect();
    let one = namespaces["namespace-1"].clone();
    let mut other = one.clone();
    other.labels.insert("team".to_owned(), "team-9".to_owned());
    repeated(bencher, *scale, [one, other].map(|n| Change::Apply(Object::Namespace(n))));
}
