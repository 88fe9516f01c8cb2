//! What needs no manifest. Findings about manifests are tested with manifests, in
//! `tests/lint`.

use super::*;
use std::collections::BTreeSet;

#[test]
fn numbers_and_names_are_used_once() {
    let ids: BTreeSet<&str> = Code::ALL.iter().map(|code| code.entry().id).collect();
    let names: BTreeSet<&str> = Code::ALL.iter().map(|code| code.entry().name).collect();
    assert_eq!((ids.len(), names.len()), (Code::ALL.len(), Code::ALL.len()));
}

#[test]
fn a_code_is_found_by_number_and_by_name() {
    for code in Code::ALL {
        let Entry { id, name, .. } = code.entry();
        assert_eq!(Code::named(id), Some(*code));
        assert_eq!(Code::named(&id.to_lowercase()), Some(*code));
        assert_eq!(Code::named(name), Some(*code));
    }
    assert_eq!(Code::named("NP999"), None);
}

fn finding(message: &str) -> Finding {
    Finding {
        file: None,
        line: 0,
        column: 0,
        code: Code::NoDns,
        severity: Severity::Info,
        object: Some("NetworkPolicy default/web".to_owned()),
        field: "spec.egress".to_owned(),
        message: message.to_owned(),
        remedy: "allow it".to_owned(),
    }
}

#[test]
fn only_what_was_not_reported_last_time_is_news() {
    let mut news = News::default();
    let (a, b) = (finding("a"), finding("b"));
    assert_eq!(news.among(vec![a.clone()]), std::slice::from_ref(&a));
    assert_eq!(news.among(vec![a.clone(), b.clone()]), [b]);
    assert_eq!(news.among(vec![]), []);
    assert_eq!(news.among(vec![a.clone()]), [a]);
}

#[test]
fn a_finding_is_one_line() {
    assert_eq!(
        finding("no name can be looked up").to_string(),
        "NP403 no-dns: NetworkPolicy default/web: spec.egress: no name can be looked up; allow it"
    );
}
