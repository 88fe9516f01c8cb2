//! The agent reads manifests as they are meant: random objects, written as YAML and read by the
//! agent's source, are what a second, plain conversion makes of them.
//!
//! The text is the one that a failing random case prints: such a case can be tried as it stands.

use std::collections::{BTreeMap, BTreeSet};

use np_agent::source::Manifests;
use np_policy::model::{Change, Object, ObjectKey};
use np_tests::generate::{Cases, changes};
use proptest::test_runner::{Config, TestCaseError, TestRunner};

const CASES: u32 = 300;

fn objects(changes: Vec<Change>) -> BTreeMap<ObjectKey, Object> {
    let objects = changes.into_iter().map(|change| match change {
        Change::Apply(object) => (object.key(), object),
        Change::Delete(key, _) => panic!("{key} was never there"),
        Change::Replace(..) => panic!("a directory tells of each object"),
    });
    objects.map(sorted).collect()
}

/// In which order a pod names its ports has no meaning.
fn sorted((key, mut object): (ObjectKey, Object)) -> (ObjectKey, Object) {
    if let Object::Pod(pod) = &mut object {
        let ports: BTreeSet<_> = pod.named_ports.iter().cloned().collect();
        pod.named_ports = ports.into_iter().collect();
    }
    (key, object)
}

#[test]
fn manifests_are_read_as_they_are_meant() {
    let mut runner = TestRunner::new(Config { cases: CASES, ..Config::default() });
    let result = runner.run(&Cases { probes: 1 }, |case| {
        let Ok(meant) = changes(&case.cluster) else {
            return Err(TestCaseError::reject("an object that the API would refuse"));
        };
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("cluster.yaml"), format!("{:?}", case.cluster))
            .expect("a file");
        let read = Manifests::open(dir.path()).expect("a directory of manifests").load();
        if !read.invalid.is_empty() {
            return Err(TestCaseError::fail(format!("refused: {:#?}", read.invalid)));
        }
        let (read, meant) = (objects(read.changes), objects(meant));
        let differs = |(key, object): &(&ObjectKey, &Object)| meant.get(key) != Some(object);
        match read.iter().find(differs) {
            Some((key, object)) => {
                Err(TestCaseError::fail(format!("read {object:#?}\nmeant {:#?}", meant.get(key))))
            }
            None if read.len() == meant.len() => Ok(()),
            None => Err(TestCaseError::fail("an object was not read")),
        }
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
