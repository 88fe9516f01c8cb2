//! Input that nobody wrote in good faith: it gives a message, takes bounded time, panics never.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;
use proptest::prelude::*;

use crate::support::{Dir, HEAD, changes, messages, namespace};

fn complaint(name: &str, content: impl AsRef<[u8]>) -> String {
    let dir = Dir::with(name, content);
    // A debug build on a busy machine; an unbounded walk would take hours.
    let started = Instant::now();
    let batch = dir.load();
    assert!(started.elapsed() < Duration::from_secs(120), "{name} took {:?}", started.elapsed());
    assert_eq!(batch.changes, []);
    messages(&batch.invalid, dir.0.path()).join("\n")
}

#[test]
fn binary_files_are_named() {
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0".to_vec();
    elf.extend((0..=255).cycle().take(100_000));
    let found = complaint("elf.yaml", elf);
    assert!(found.starts_with("elf.yaml:1:8: not text: it contains a zero byte"), "{found}");
    let found = complaint("latin.yaml", b"# gut\nname: M\xfcller\n");
    assert!(found.starts_with("latin.yaml:2:8: not UTF-8 text; save it as UTF-8"), "{found}");
    let found = complaint("utf16.json", b"\xff\xfe{\0}\0");
    assert!(found.starts_with("utf16.json:1:1: not UTF-8 text"), "{found}");
}

/// What is held of a file at a time is bounded, and the file is not.
#[test]
fn huge_documents_are_not_read() {
    let long = format!("a: {}", "x".repeat(8 << 20));
    let found = complaint("huge.yaml", format!("---\n# c\n{long}"));
    assert_eq!(
        found,
        "huge.yaml:2:1: a document of 8 MiB, and more than 8 are not read; split it by lines \
         \"---\", or write it as a List in block style (\"items:\" and each item under it behind \
         \"- \") or in JSON, as kubectl does: that may have any size"
    );
    let list = format!("kind: List\napiVersion: v1\nitems:\n- {{{long}}}\n");
    let found = complaint("huge.yaml", list);
    assert!(found.starts_with("huge.yaml:4:1: an item of 8 MiB, and more"), "{found}");
    let list = format!("kind: List\napiVersion: v1\nitems:\n- {{}}\n{long}\n");
    let found = complaint("huge.yaml", list);
    assert!(found.starts_with("huge.yaml:1:1: a list of 8 MiB, and more"), "{found}");
}

#[test]
fn a_comment_of_any_size_is_fine() {
    assert_eq!(complaint("large.yaml", vec![b'#'; 20 << 20]), "");
}

#[test]
fn bombs_are_defused() {
    let mut aliases = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let row = vec![format!("*a{}", i - 1); 10].join(", ");
        aliases.push_str(&format!("a{i}: &a{i} [{row}]\n"));
    }
    for (name, text) in [
        ("aliases.yaml", aliases),
        ("flow.yaml", "[".repeat(100_000)),
        ("maps.yaml", "{a: ".repeat(100_000)),
        ("items.yaml", "- ".repeat(100_000)),
        ("block.yaml", (0..2_000).map(|i| format!("{}a:\n", " ".repeat(i))).collect()),
        ("questions.yaml", "? ".repeat(100_000)),
        ("nodes.yaml", format!("a: [{}]", "1,".repeat(3_000_000))),
        ("documents.yaml", "---\nx\n".repeat(200_000)),
        ("quote.yaml", format!("a: \"{}", "x".repeat(1 << 20))),
    ] {
        assert!(complaint(name, text).starts_with(name), "{name}");
    }
}

#[test]
fn the_messages_of_a_file_are_bounded() {
    let dir = Dir::with("a.yaml", "---\nx\n".repeat(5_000));
    let batch = dir.load();
    assert_eq!(batch.invalid.len(), 101);
    let found = messages(&batch.invalid, dir.0.path());
    assert_eq!(
        found[0],
        "a.yaml: 4900 more problems in this file; correct the first ones, then look again"
    );
}

#[test]
fn link_loops_end() {
    let dir = Dir::with("sub/a.yaml", namespace("a", ""));
    symlink("..", dir.path("sub/up")).unwrap();
    symlink("self.yaml", dir.path("self.yaml")).unwrap();
    symlink("nothing.yaml", dir.path("dangling.yaml")).unwrap();
    symlink("sub", dir.path("zweite")).unwrap();
    let batch = dir.load();
    assert_eq!(changes(&batch), ["+Namespace a"]);
    let found = messages(&batch.invalid, dir.0.path());
    let root = dir.0.path().display();
    assert_eq!(found, [
        "dangling.yaml: the link points to nothing; remove the link, or bring back what it points to"
            .to_owned(),
        "self.yaml: a link loop; remove the link that points to itself".to_owned(),
        format!("sub/up: a link loop: this is {root}, which leads here; remove the link"),
        "zweite: the same directory as sub, which is read already; remove the link".to_owned(),
    ]);
}

#[test]
fn pipes_are_not_waited_for() {
    let dir = Dir::with("a.yaml", namespace("a", ""));
    nix::unistd::mkfifo(&dir.path("pipe.yaml"), Mode::S_IRWXU).unwrap();
    fs::create_dir(dir.path("dir.yaml")).unwrap();
    let batch = dir.load();
    assert_eq!(changes(&batch), ["+Namespace a"]);
    let found = messages(&batch.invalid, dir.0.path());
    assert_eq!(found, ["pipe.yaml: not a regular file; move it out of the directory"]);
}

#[test]
fn depth_is_bounded() {
    let dir = Dir::new();
    let deep = |depth: usize| format!("{}a.yaml", "d/".repeat(depth));
    dir.write(&deep(15), namespace("a", ""));
    dir.write(&deep(16), namespace("b", ""));
    let batch = dir.load();
    assert_eq!((changes(&batch), batch.invalid.len()), (vec!["+Namespace a".into()], 1));
}

const GOOD: &str = "\
apiVersion: v1
kind: List
items:
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: web, labels: {a: b}}
  spec:
    podSelector: {matchExpressions: [{key: a, operator: In, values: [b]}]}
    ingress:
    - from:
      - ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, '::ffff:10.2.0.0/112']}
      - namespaceSelector: &s {matchLabels: {x: 'y'}}
        podSelector: *s
      ports: [{protocol: UDP, port: 80, endPort: 90}, {port: http}]
---
{apiVersion: v1, kind: Pod, metadata: {name: p, creationTimestamp: 2024-02-29T12:34:56.7+01:00},
 spec: {containers: [{ports: [{name: a, containerPort: 1}]}]}, status: {podIPs: [{ip: 10.0.0.1}]}}
";

/// Cuts, doubles and replaces pieces of a good file.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let edit = (0..GOOD.len(), 0..12_usize, "[ \t\n:{}\\[\\]#&*!|>'\"%@`,?a-z0-9/.\\-]{0,6}");
    proptest::collection::vec(edit, 1..6).prop_map(|edits| {
        let mut bytes = GOOD.as_bytes().to_vec();
        for (at, cut, insert) in edits {
            let at = at.min(bytes.len());
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, insert.into_bytes());
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        Dir::with("a.yaml", bytes).load();
    }

    /// Whatever an edit does to it: an object is as said, or as before with a message.
    #[test]
    fn broken_edits_never_lose_an_object_silently(bytes in mutated()) {
        let dir = Dir::with("a.yaml", GOOD);
        let mut manifests = dir.open();
        let first = manifests.load();
        prop_assert_eq!(messages(&first.invalid, dir.0.path()), Vec::<String>::new());
        prop_assert_eq!(first.changes.len(), 2);
        dir.write("a.yaml", &bytes);
        let second = manifests.load();
        for invalid in &second.invalid {
            prop_assert!(!invalid.problem.is_empty() && !invalid.remedy.is_empty());
            prop_assert!(invalid.line > 0 && invalid.column > 0, "{}", invalid);
            prop_assert!(serde_json::to_string(invalid).is_ok());
        }
        // What a fresh reading does not give is gone only if that reading finds nothing wrong
        // but the names of other objects.
        let fresh = dir.load();
        prop_assert_eq!(&fresh.invalid, &second.invalid);
        if second.changes.iter().any(|change| matches!(change, np_policy::model::Change::Delete(..))) {
            let known = changes(&first).iter().map(|key| key[1..].to_owned()).collect::<Vec<_>>();
            let named = |invalid: &np_agent::source::Invalid| {
                invalid.object.as_ref().is_some_and(|object| known.contains(object))
            };
            prop_assert!(second.invalid.iter().all(named), "{:#?}", second);
        }
    }

    #[test]
    fn arbitrary_policies_never_panic(spec in "[ a-zA-Z0-9:{}\\[\\],./\\-\n&*'\"]{0,200}") {
        Dir::with("a.yaml", format!("{HEAD}spec: {spec}")).load();
    }
}
