//! Policies of the kinds that the Kubernetes documentation shows: nothing to warn of.

use std::fs;
use std::path::{Path, PathBuf};

use super::support::{Linted, above_info, findings, lint, namespace, pod};

fn files(dir: &str) -> Vec<(PathBuf, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            (path, text)
        })
        .collect();
    files.sort();
    assert!(files.len() >= 10, "the fixtures are there");
    files
}

fn documentation() -> Vec<(PathBuf, String)> {
    files("tests/lint/documentation")
}

#[test]
fn each_alone_gets_no_warning() {
    for (path, text) in documentation() {
        assert_eq!(above_info(&findings(&text)), Vec::<String>::new(), "{}", path.display());
    }
}

#[test]
fn all_together_get_no_warning() {
    let texts: Vec<String> = documentation().into_iter().map(|(_, text)| text).collect();
    assert_eq!(above_info(&findings(&texts.join("---\n"))), Vec::<String>::new());
}

/// The cluster they are for: the peers they name are there.
#[test]
fn in_their_cluster_they_get_no_warning() {
    let mut texts: Vec<String> = documentation().into_iter().map(|(_, text)| text).collect();
    for (name, labels) in
        [("shop", "project: shop, zone: shop"), ("stock", "zone: stock"), ("erin", "user: erin")]
    {
        texts.push(namespace(name, labels));
    }
    for (namespace, name, labels, addr) in [
        ("default", "database", "role: database", "10.244.0.2"),
        ("default", "web", "role: web", "10.244.0.3"),
        ("default", "portal", "app: portal", "10.244.0.4"),
        ("default", "client", "role: client", "10.244.0.5"),
        ("default", "signalling", "app: signalling", "10.244.0.6"),
        ("erin", "client", "role: client", "10.244.0.7"),
        ("shop", "till", "app: till", "10.244.0.8"),
    ] {
        texts.push(pod(namespace, name, labels, &[addr]));
    }
    assert_eq!(above_info(&findings(&texts.join("\n---\n"))), Vec::<String>::new());
}

/// Files of mistakes that people really paste: each is an error with a place and a remedy.
#[test]
fn malformed_manifests_are_errors() {
    for (path, text) in files("../tests/fixtures/malformed") {
        let Linted { refused, .. } = lint(&text);
        assert!(!refused.is_empty(), "{}", path.display());
        for invalid in refused {
            assert!(invalid.line > 0 && !invalid.remedy.is_empty(), "{invalid}");
        }
    }
}
