//! Findings are true: what is said to match nothing, to repeat something or to have no effect can
//! be taken away, and the oracle says the same of every connection.
//!
//! `PROPTEST_CASES` sets the number of clusters.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use np_agent::source::{self, Batch};
use np_policy::index::{Index, Touched};
use np_policy::lint::{self, Code, Finding, Severity};
use np_tests::generate::{Case, Cases, Cluster};
use np_tests::oracle::Conn;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use serde_json::Value;

const CASES: u32 = 500;
const PROBES: usize = 32;

/// What must come up, and how often at least: what never came up was not tested.
const OFTEN: &[(Code, usize)] = &[
    (Code::NothingLeft, 1),
    (Code::NoSubjects, 30),
    (Code::NoPeers, 30),
    (Code::NoNamespaces, 30),
    (Code::Contradiction, 30),
    (Code::RepeatedRule, 10),
    (Code::RepeatedRequirement, 30),
    (Code::UnknownPortName, 30),
    (Code::RulesWithoutEffect, 30),
    (Code::EgressNotIsolated, 1),
];

fn findings(cluster: &Cluster) -> Option<Vec<Finding>> {
    let dir = tempfile::tempdir().expect("a directory");
    let file: PathBuf = dir.path().join("cluster.yaml");
    std::fs::write(&file, format!("{cluster:?}")).expect("a file");
    let Batch { changes, invalid, background, .. } = source::read(&[file]).expect("readable");
    let mut index = Index::default();
    for change in changes {
        index.apply(change, &mut Touched::default());
    }
    invalid.is_empty().then(|| lint::check(&index, &background))
}

/// What a finding says is useless, as steps into the object; none when it says something else.
fn useless(finding: &Finding) -> Option<Vec<String>> {
    let steps: Vec<String> = finding
        .field
        .split(['.', '[', ']'])
        .filter(|step| !step.is_empty())
        .map(str::to_owned)
        .collect();
    let peer = || steps.get(..5).map(<[String]>::to_vec);
    match finding.code {
        Code::NoSubjects | Code::HostNetwork if finding.severity == Severity::Warning => {
            Some(vec![])
        }
        Code::Contradiction if steps.len() == 2 => Some(vec![]),
        Code::Contradiction
        | Code::NoPeers
        | Code::NoNamespaces
        | Code::NothingLeft
        | Code::OneItem
        | Code::UnknownPortName => peer(),
        Code::TwoItems if finding.severity == Severity::Warning => peer(),
        Code::RepeatedRule | Code::RulesWithoutEffect | Code::EgressNotIsolated => Some(steps),
        // Of one that is only weaker than another, the field is the whole selector.
        Code::RepeatedRequirement if finding.field.ends_with(']') => Some(steps),
        _ => None,
    }
}

/// The value without what the steps lead to. A rule whose last peer or port goes, goes as well:
/// without the list it would be for everyone.
fn remove(value: &mut Value, steps: &[String]) {
    let Some((first, rest)) = steps.split_first() else { return };
    let list_of_rule = ["from", "to", "ports"].contains(&first.as_str());
    match value {
        Value::Object(fields) if rest.is_empty() => {
            fields.remove(first);
        }
        Value::Object(fields) => {
            let below = fields.get_mut(first).expect("the field is there");
            remove(below, rest);
            if list_of_rule && below == &Value::Array(vec![]) {
                *value = Value::Null;
            }
        }
        Value::Array(items) => {
            let number: usize = first.parse().expect("a number");
            match rest {
                [] => *items.get_mut(number).expect("the item is there") = Value::Null,
                _ => remove(&mut items[number], rest),
            }
            items.retain(|item| *item != Value::Null);
        }
        _ => panic!("{first} of {value}"),
    }
}

fn without(cluster: &Cluster, finding: &Finding, steps: &[String]) -> Cluster {
    let mut cluster = cluster.clone();
    let named = |policy: &NetworkPolicy| {
        let namespace = policy.metadata.namespace.as_deref().unwrap_or("default");
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        finding.object.as_deref() == Some(&format!("NetworkPolicy {namespace}/{name}"))
    };
    if steps.is_empty() {
        cluster.policies.retain(|policy| !named(policy));
        return cluster;
    }
    let policy = cluster.policies.iter_mut().find(|policy| named(policy)).expect("it is there");
    keep_types(policy);
    let mut value = serde_json::to_value(&*policy).expect("an object");
    remove(&mut value, steps);
    *policy = serde_json::from_value(value).expect("a policy");
    cluster
}

/// Writes the default types out: they depend on whether there is a rule.
fn keep_types(policy: &mut NetworkPolicy) {
    let Some(spec) = &mut policy.spec else { return };
    if spec.policy_types.as_ref().is_none_or(Vec::is_empty) {
        let egress = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
        let types = ["Ingress", "Egress"].into_iter().take(1 + usize::from(egress));
        spec.policy_types = Some(types.map(str::to_owned).collect());
    }
}

fn check(case: &Case, seen: &mut BTreeMap<Code, usize>) -> Result<(), String> {
    let Some(findings) = findings(&case.cluster) else { return Ok(()) };
    let verdicts = |cluster: &Cluster| -> Vec<(bool, bool)> {
        let oracle = cluster.oracle();
        let verdict = |probe: &Conn| {
            let verdict = oracle.verdict(probe);
            (verdict.egress.allows(), verdict.ingress.allows())
        };
        case.probes.iter().map(verdict).collect()
    };
    let with = verdicts(&case.cluster);
    for finding in &findings {
        if finding.line == 0 || finding.column == 0 {
            return Err(format!("without a place: {finding}"));
        }
        *seen.entry(finding.code).or_default() += 1;
        let Some(steps) = useless(finding) else { continue };
        let without = verdicts(&without(&case.cluster, finding, &steps));
        let mut changed = with.iter().zip(&without).zip(&case.probes);
        if let Some(((with, without), probe)) = changed.find(|((with, without), _)| with != without)
        {
            return Err(format!("{probe}\n  {finding}\n  {with:?}, without {without:?}"));
        }
    }
    Ok(())
}

#[test]
fn what_is_found_useless_changes_no_verdict() {
    let cases = match std::env::var("PROPTEST_CASES") {
        Ok(cases) => cases.parse().expect("PROPTEST_CASES is a number"),
        Err(_) => CASES,
    };
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let seen = RefCell::new(BTreeMap::new());
    let result = TestRunner::new(config).run(&Cases { probes: PROBES }, |case| {
        check(&case, &mut seen.borrow_mut()).map_err(TestCaseError::fail)
    });
    if let Err(TestError::Fail(reason, case)) = result {
        panic!("{reason}\n{case:?}");
    }
    let seen = seen.into_inner();
    for (code, count) in &seen {
        println!("{code}: {count}");
    }
    for (code, least) in OFTEN {
        let count = seen.get(code).copied().unwrap_or(0);
        assert!(count >= *least, "{code} came up {count} times, not {least}");
    }
}

/// As the API server's own lists are: what their items are stands at the head.
#[test]
fn services_of_a_typed_list_are_known() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("services.json");
    let list = serde_json::json!({
        "apiVersion": "v1",
        "kind": "ServiceList",
        "items": [{
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"clusterIP": "10.96.0.10", "ports": [{"port": 80}]},
        }],
    });
    std::fs::write(&file, list.to_string()).expect("a file");
    let Batch { background, invalid, .. } = source::read(&[file]).expect("readable");
    assert!(invalid.is_empty(), "{invalid:?}");
    assert_eq!(background.services.len(), 1);
}
