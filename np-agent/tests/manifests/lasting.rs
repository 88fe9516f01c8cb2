//! The last good version stays in force until it is known that it is not wanted any more.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use np_agent::source::Manifests;

use crate::support::{Dir, HEAD, changes, messages, namespace};

fn two(first: &str, second: &str) -> String {
    format!("{}---\n{}", namespace(first, ""), namespace(second, ""))
}

#[test]
fn a_batch_is_the_difference_to_the_last() {
    let dir = Dir::with("a.yaml", two("a", "b"));
    let mut manifests = dir.open();
    assert_eq!(changes(&manifests.load()), ["+Namespace a", "+Namespace b"]);
    assert_eq!(changes(&manifests.load()), [""; 0]);
    dir.write("a.yaml", format!("{}---\n{}", namespace("b", "x: z"), namespace("c", "")));
    assert_eq!(changes(&manifests.load()), ["-Namespace a", "+Namespace b", "+Namespace c"]);
    fs::remove_file(dir.path("a.yaml")).unwrap();
    assert_eq!(changes(&manifests.load()), ["-Namespace b", "-Namespace c"]);
}

#[test]
fn moving_an_object_to_another_file_changes_nothing() {
    let dir = Dir::with("a.yaml", two("a", "b"));
    let mut manifests = dir.open();
    manifests.load();
    dir.write("a.yaml", namespace("b", ""));
    dir.write("sub/c.yaml", namespace("a", ""));
    assert_eq!(changes(&manifests.load()), [""; 0]);
    fs::remove_file(dir.path("a.yaml")).unwrap();
    assert_eq!(changes(&manifests.load()), ["-Namespace b"]);
}

/// An edit breaks one document: its object stays as it was, the others follow the edit.
#[test]
fn a_refused_document_holds_only_its_object() {
    let good = format!("{HEAD}spec: {{podSelector: {{}}}}\n");
    let dir = Dir::with("a.yaml", format!("{good}---\n{}", two("a", "b")));
    let mut manifests = dir.open();
    assert_eq!(manifests.load().changes.len(), 3);
    for broken in [
        format!("{HEAD}spec: {{podSelector: web}}\n"),
        format!("{HEAD}spec:\n\tpodSelector: {{}}\n"),
        good.replace("NetworkPolicy", "NetworPolicy"),
        good.replace("networking.k8s.io/v1", "extensions/v1beta1"),
    ] {
        dir.write("a.yaml", format!("{broken}---\n{}", namespace("a", "")));
        let batch = manifests.load();
        assert_eq!((batch.invalid.len(), changes(&batch)), (1, vec!["-Namespace b".into()]));
        dir.write("a.yaml", format!("{good}---\n{}", two("a", "b")));
        assert_eq!(changes(&manifests.load()), ["+Namespace b"]);
    }
    dir.write("a.yaml", two("a", "b"));
    assert_eq!(changes(&manifests.load()), ["-NetworkPolicy default/web"]);
}

/// A document that does not say what it is may be any object of its file.
#[test]
fn an_unidentified_document_holds_the_objects_of_its_file() {
    let dir = Dir::with("a.yaml", two("a", "b"));
    dir.write("b.yaml", namespace("c", ""));
    let mut manifests = dir.open();
    assert_eq!(manifests.load().changes.len(), 3);
    for broken in [
        "{{{{",
        "just text",
        "kind: Namespace\nmetadata: {name: a, name: b}\n",
        "apiVersion: v1\nkind: Namespace\nmetadata: {}\n",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: Renamed}\n",
        "apiVersion: v1\nkind: List\nitems: [7]\n",
        "kind: Namespace\nmetadata:\n  name: a\n--\nkind: Namespace\nmetadata:\n  name: b\n",
        "\u{0}",
    ] {
        dir.write("a.yaml", broken);
        let batch = manifests.load();
        assert!(!batch.invalid.is_empty(), "{broken}");
        assert_eq!(changes(&batch), [""; 0], "{broken}");
    }
    // What is found elsewhere is followed, and so are other files.
    fs::remove_file(dir.path("b.yaml")).unwrap();
    dir.write("c.yaml", namespace("a", "x: z"));
    assert_eq!(changes(&manifests.load()), ["-Namespace c", "+Namespace a"]);
    dir.write("a.yaml", "");
    assert_eq!(changes(&manifests.load()), ["-Namespace b"]);
}

#[test]
fn what_cannot_be_read_stays() {
    let dir = Dir::with("sub/a.yaml", two("a", "b"));
    let mut manifests = dir.open();
    manifests.load();
    let sub = dir.path("sub");

    fs::remove_dir_all(&sub).unwrap();
    symlink("sub", &sub).unwrap();
    let batch = manifests.load();
    assert_eq!(changes(&batch), [""; 0]);
    let found = messages(&batch.invalid, dir.0.path());
    assert_eq!(found, ["sub: a link loop; remove the link that points to itself"]);

    fs::remove_file(&sub).unwrap();
    symlink("nowhere", &sub).unwrap();
    let batch = manifests.load();
    assert_eq!((batch.invalid.len(), changes(&batch)), (1, vec![]));

    fs::remove_file(&sub).unwrap();
    assert_eq!(changes(&manifests.load()), ["-Namespace a", "-Namespace b"]);
}

#[test]
fn a_vanished_directory_keeps_everything() {
    let dir = Dir::with("m/a.yaml", two("a", "b"));
    let mut manifests = np_agent::source::Manifests::open(dir.path("m")).unwrap();
    manifests.load();
    fs::rename(dir.path("m"), dir.path("n")).unwrap();
    let batch = manifests.load();
    assert_eq!(changes(&batch), [""; 0]);
    assert_eq!(batch.invalid.len(), 1);
    assert!(batch.invalid[0].to_string().contains("/m: cannot be read: No such file"));
    fs::create_dir(dir.path("m")).unwrap();
    assert_eq!(changes(&manifests.load()), ["-Namespace a", "-Namespace b"]);
}

#[test]
fn the_first_of_two_claims_counts() {
    let dir = Dir::with("b.yaml", format!("# two\n{}", namespace("a", "from: b")));
    let mut manifests = dir.open();
    manifests.load();
    dir.write("c.yaml", two("c", "a"));
    let batch = manifests.load();
    assert_eq!(changes(&batch), ["+Namespace c"]);
    assert_eq!(
        messages(&batch.invalid, dir.0.path()),
        [
            "c.yaml:10:9: Namespace a: metadata.name: \"a\": given already at b.yaml:5:9, which counts; \
         remove one of the two, or rename it"
        ]
    );
    // Once the first is broken its last good version stays: no silent change to the other one.
    dir.write("b.yaml", namespace("a", "from: [b]"));
    let batch = manifests.load();
    assert_eq!((changes(&batch), batch.invalid.len()), (vec![], 2));
    fs::remove_file(dir.path("b.yaml")).unwrap();
    assert_eq!(changes(&manifests.load()), ["+Namespace a"]);
}

/// A document that takes another's name may be the one that had its own name before.
#[test]
fn a_taken_name_holds_the_objects_of_the_file() {
    let dir = Dir::with("a.yaml", two("a", "b"));
    let mut manifests = dir.open();
    manifests.load();
    for edit in [two("a", "a"), two("a", "a").replacen("v1", "v1beta1", 1)] {
        dir.write("a.yaml", edit);
        let batch = manifests.load();
        assert!(!batch.invalid.is_empty());
        assert_eq!(changes(&batch), [""; 0]);
    }
    dir.write("a.yaml", namespace("a", ""));
    assert_eq!(changes(&manifests.load()), ["-Namespace b"]);
}

#[test]
fn a_directory_that_is_none_is_an_error() {
    let dir = Dir::with("a.yaml", "");
    let error = |name: &str| {
        np_agent::source::Manifests::open(dir.path(name)).err().map(|error| error.to_string())
    };
    assert!(error("none").is_some_and(|text| text.contains("/none: No such file")));
    assert!(error("a.yaml").is_some_and(|text| text.contains("/a.yaml: not a directory")));
}

/// An agent is restarted while a manifest is broken.
#[test]
fn the_last_good_version_outlives_the_process() {
    let good = format!("{HEAD}spec: {{podSelector: {{}}}}\n");
    let dir = Dir::with("a.yaml", &good);
    let memory = tempfile::tempdir().unwrap();
    let open = || dir.open().remember_in(memory.path().join("manifests.json"));
    let before = open().load().changes;
    dir.write("a.yaml", format!("{HEAD}spec: {{podSelector: web}}\n"));
    let mut manifests = open();
    let batch = manifests.load();
    assert_eq!((batch.invalid.len(), &batch.changes), (1, &before));
    // What was reported once is not reported again, and what goes is reported as gone.
    assert_eq!(changes(&manifests.load()), [""; 0]);
    dir.write("a.yaml", "");
    assert_eq!(changes(&manifests.load()), ["-NetworkPolicy default/web"]);
    assert_eq!(changes(&open().load()), [""; 0]);
}

#[test]
fn a_memory_that_cannot_be_read_is_no_memory() {
    let dir = Dir::with("a.yaml", namespace("a", ""));
    let memory = tempfile::tempdir().unwrap();
    let file = memory.path().join("manifests.json");
    fs::write(&file, "[{").unwrap();
    assert_eq!(changes(&dir.open().remember_in(file).load()), ["+Namespace a"]);
}

/// A volume that is not mounted, or not yet.
#[test]
fn a_directory_without_manifests_lifts_nothing_that_was_in_force() {
    let dir = Dir::with("m/a.yaml", format!("{}---\n{HEAD}spec: {{}}\n", namespace("a", "")));
    let memory = tempfile::tempdir().unwrap();
    let at = dir.path("m");
    let open = || Manifests::resume(&at, memory.path().join("manifests.json"));
    let everything = ["+Namespace a", "+NetworkPolicy default/web"];
    let first = open().unwrap().load();
    assert_eq!((changes(&first), first.held), (everything.map(str::to_owned).to_vec(), None));
    fs::rename(&at, dir.path("away")).unwrap();

    let states: [&dyn Fn(); 4] = [
        &|| {},
        &|| fs::create_dir(&at).unwrap(),
        &|| dir.write("m/notes.txt", "kind: Pod"),
        &|| dir.write("m/a.yaml", "# nothing yet\n---\n"),
    ];
    for state in states {
        state();
        let mut manifests = open().unwrap();
        for told in [&everything[..], &[]] {
            let batch = manifests.load();
            assert_eq!(changes(&batch), told);
            let held = batch.held.expect("a reason");
            assert!(held.contains("/m: no manifest is there, and 2 objects from there"), "{held}");
            assert!(held.contains("bring the manifests back, or"), "{held}");
        }
    }
    // Once something has been found there, what is missing is gone.
    let mut manifests = open().unwrap();
    manifests.load();
    dir.write("m/a.yaml", namespace("a", ""));
    let batch = manifests.load();
    assert_eq!((changes(&batch), batch.held), (vec!["-NetworkPolicy default/web".into()], None));
    fs::remove_file(dir.path("m/a.yaml")).unwrap();
    assert_eq!(changes(&manifests.load()), ["-Namespace a"]);
}

#[test]
fn a_directory_may_say_that_nothing_is_wanted() {
    let dir = Dir::with("a.yaml", namespace("a", ""));
    let memory = tempfile::tempdir().unwrap();
    let open = || Manifests::resume(dir.0.path(), memory.path().join("manifests.json")).unwrap();
    open().load();
    dir.write("a.yaml", "{apiVersion: v1, kind: List, items: []}\n");
    let batch = open().load();
    assert_eq!((changes(&batch), batch.held), (vec![], None));
    // Nothing was reported of it in this run; the next one no longer knows it.
    fs::remove_file(dir.path("a.yaml")).unwrap();
    let batch = open().load();
    assert_eq!((changes(&batch), batch.held), (vec![], None));
}

#[test]
fn a_directory_that_never_was_is_an_error() {
    let dir = Dir::new();
    let memory = dir.path("manifests.json");
    assert!(Manifests::resume(dir.path("none"), memory).is_err());
}

#[test]
fn what_is_remembered_is_readable_by_the_owner_alone() {
    let dir = Dir::with("a.yaml", namespace("a", ""));
    let memory = tempfile::tempdir().unwrap();
    let file = memory.path().join("manifests.json");
    dir.open().remember_in(file.clone()).load();
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
}
