//! The documentation's own examples: each code is found in its bad one and not in the good twin.

use std::fs;
use std::path::Path;

use np_policy::lint::{self, Code, Entry, Severity};

use super::support::{above_info, findings, lint, of};

/// What stands on the line that the finding of the bad example points to.
fn pointed_to(code: Code) -> &'static str {
    match code {
        Code::Refused => "except: [192.168.0.0/16]",
        Code::ServiceCidr => "cidr: 10.96.0.20/32",
        Code::PodCidr => "cidr: 10.244.0.0/16",
        Code::NothingLeft => "- 192.0.2.0/25",
        Code::AbsentFamily => "cidr: 2001:db8:1::/48",
        Code::TwoItems => "- podSelector: {matchLabels: {app: scraper}}",
        Code::OneItem => "- namespaceSelector: {matchLabels: {team: monitoring}}",
        Code::NoSubjects => "podSelector: {matchLabels: {app: wbe}}",
        Code::NoPeers => "- podSelector: {matchLabels: {app: fronted}}",
        Code::NoNamespaces => "- namespaceSelector: {matchLabels: {name: monitoring}}",
        Code::HostNetwork => "podSelector: {matchLabels: {app: node-exporter}}",
        Code::Contradiction => "matchLabels: {tier: web}",
        Code::RepeatedRequirement => "- {key: tier, operator: In, values: [web]}",
        Code::RepeatedRule => "- ports:",
        Code::ServicePort => "- port: 443",
        Code::UnknownPortName => "- port: http",
        Code::IngressBySurprise | Code::NoDns | Code::RulesWithoutEffect => "- to:",
        Code::EgressNotIsolated => "egress: []",
    }
}

fn with(yaml: &str, given: &str) -> String {
    format!("{yaml}---\n{given}")
}

#[test]
fn a_bad_example_has_its_finding_at_the_right_place() {
    for code in Code::ALL {
        let Entry { id, severity, example, .. } = code.entry();
        let text = with(example.bad(), example.given());
        let linted = lint(&text);
        let (place, found) = if *code == Code::Refused {
            let [refused] = linted.refused.as_slice() else { panic!("{id}: {:?}", linted.refused) };
            ((refused.line, refused.column), Severity::Error)
        } else {
            assert_eq!(linted.refused, [], "{id}");
            let found = of(*code, &linted.findings);
            let [finding] = found.as_slice() else { panic!("{id}: {:?}", linted.findings) };
            assert_eq!(
                finding.object.as_deref().map(|o| o.starts_with("NetworkPolicy ")),
                Some(true)
            );
            ((finding.line, finding.column), finding.severity)
        };
        assert_eq!(found, severity, "{id}: the documentation names the highest severity");
        let line = text.lines().nth(place.0 as usize - 1).unwrap();
        assert!(line.contains(pointed_to(*code)), "{id}: line {} is {line:?}", place.0);
        assert!(place.1 >= 1 && place.1 as usize <= line.chars().count(), "{id}: {place:?}");
    }
}

#[test]
fn a_good_twin_has_not_the_finding_and_no_other_warning() {
    for code in Code::ALL {
        let Entry { id, example, .. } = code.entry();
        let found = findings(&with(example.good(), example.given()));
        assert_eq!(of(*code, &found), Vec::<&lint::Finding>::new(), "{id}");
        assert_eq!(above_info(&found), Vec::<String>::new(), "{id}");
    }
}

/// Only the object that an example is about differs between the two.
#[test]
fn examples_are_pairs() {
    for code in Code::ALL {
        let Entry { id, example, .. } = code.entry();
        assert!(example.bad().starts_with("apiVersion:"), "{id}");
        assert!(example.good().starts_with("apiVersion:"), "{id}");
        assert_ne!(example.bad(), example.good(), "{id}");
    }
}

#[test]
fn the_documentation_is_made_of_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/LINT.md");
    assert!(
        fs::read_to_string(path).unwrap() == lint::document(),
        "docs/LINT.md is stale: write it with `np-agent lint --explain all > docs/LINT.md`"
    );
}
