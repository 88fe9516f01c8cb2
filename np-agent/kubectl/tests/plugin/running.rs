//! kubectl itself: that it is there, what it is called with, and a reader that leaves.

use serde_json::json;

use super::support::{Fake, Row, Said, endpoint, status};

/// Any command that asks a node.
const COMMANDS: [&[&str]; 7] = [
    &["status"],
    &["status", "--node", "n1"],
    &["status", "-o", "json"],
    &["endpoints"],
    &["endpoints", "-o", "json"],
    &["check"],
    &["explain", "--from", "10.0.0.1", "--to", "10.0.0.2", "--port", "80"],
];

/// One node, with an answer to each of them.
fn one() -> Fake {
    let mut fake = Fake::cluster(&["n1"]);
    fake.on("n1", "status", Row::says(status()));
    fake.on("n1", "endpoints", Row::says(json!([endpoint("shop/web-0", &[])])));
    fake.on("n1", "check", Row::says("ok   kernel   Linux\n"));
    fake.on("n1", "explain", Row::says("ALLOW\n"));
    fake
}

#[test]
fn without_kubectl_that_is_said() {
    let nothing = tempfile::tempdir().unwrap();
    for args in COMMANDS {
        let output = one().command(args).env("PATH", nothing.path()).output().unwrap();
        let said = Said::from(output);
        assert_ne!(said.code, 0);
        assert!(said.stderr.starts_with("kubectl np: there is no kubectl in PATH; "), "{said:?}");
        assert_eq!((said.stderr.lines().count(), said.stdout.as_str()), (1, ""));
    }
}

#[test]
fn a_kubectl_that_cannot_be_run_is_not_called_missing() {
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("kubectl")).unwrap();
    let said = Said::from(one().command(&["status"]).env("PATH", place.path()).output().unwrap());
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("cannot run kubectl: "), "{said:?}");
}

#[test]
fn global_flags_reach_every_kubectl_and_no_np_agent() {
    for args in COMMANDS {
        let fake = one();
        let flags = ["--context", "prod", "--kubeconfig=/etc/k", "--as", "me", "-n", "shop"];
        assert_eq!(fake.run(&[args, &flags[..]].concat()).code, 0, "{args:?}");
        let calls: Vec<_> = fake.calls().into_iter().filter(|call| call[0] != "end").collect();
        assert!(calls.len() > 1, "{calls:?}");
        for call in calls {
            let kubectls = call.split(|word| word == "--").next().unwrap();
            for flag in ["--context=prod", "--kubeconfig=/etc/k", "--as=me"] {
                assert!(kubectls.contains(&flag.to_owned()), "{call:?}");
                assert_eq!(call.iter().filter(|word| *word == flag).count(), 1, "{call:?}");
            }
            // The namespace is that of the pods asked about.
            assert!(!call.contains(&"shop".to_owned()), "{call:?}");
        }
    }
}

#[test]
fn agents_are_looked_for_where_they_are_said_to_be() {
    let fake = one();
    assert_eq!(fake.run(&["status", "--agent-namespace", "net"]).code, 0);
    let calls = fake.calls();
    let of = |verb: &str, what: &str| {
        calls.iter().find(|call| call[0] == verb && call.contains(&what.to_owned())).unwrap()
    };
    for call in [of("get", "pods"), of("exec", "np-agent-n1")] {
        let at = call.iter().position(|word| word == "--namespace").unwrap();
        assert_eq!(call[at + 1], "net");
    }
}

#[test]
fn what_kubectl_refuses_is_shown_with_the_remedy() {
    let forbidden = "Error from server (Forbidden): nodes is forbidden";
    let mut fake = Fake::new();
    fake.answer(&["get", "nodes"], Row::fails(forbidden));
    fake.agents(&[super::support::agent("n1")]);
    let said = fake.run(&["status"]);
    assert_eq!((said.code, said.stdout.as_str()), (1, ""));
    for part in [forbidden, "kubectl np: `kubectl get nodes", "--node"] {
        assert!(said.stderr.contains(part), "{part}: {said:?}");
    }
}

#[test]
fn a_usage_error_exits_as_kubectl_s_and_hints_at_help() {
    for args in [
        &["status", "--nodes", "n1"][..],
        &["stats"],
        // Only what follows `--` is np-agent's.
        &["status", "n1"],
        &["explain", "--from", "a/b"],
        &["status", "--node", "Node 1"],
        &["status", "--timeout", "0"],
        &["explain", "--probes", "-", "--port", "80"],
    ] {
        let fake = one();
        let said = fake.run(args);
        assert_eq!((said.code, said.stdout.as_str()), (1, ""), "{args:?}");
        assert!(said.stderr.contains("--help"), "{said:?}");
        assert_eq!(fake.calls().len(), 0, "{args:?}");
    }
    let said = one().run(&["explain", "--help"]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    assert!(said.stdout.contains("Usage: kubectl np explain"), "{said:?}");
}

/// As `head` leaves; and `2>&1 | head`.
#[test]
fn a_reader_that_leaves_ends_no_command() {
    for args in COMMANDS {
        for both in [false, true] {
            let fake = one();
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            let mut command = fake.command(args);
            if both {
                command.stderr(writer.try_clone().unwrap());
            }
            let output = command.stdout(writer).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.is_empty(), "{args:?}: {said}");
            assert_eq!(output.status.code(), Some(0), "{args:?}");
        }
    }
    // Where there is something to complain of, and nobody to hear it.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let fake = Fake::cluster(&["n1"]);
    let mut command = fake.command(&["status"]);
    let status = command.stdout(writer.try_clone().unwrap()).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

/// The table of answers itself: a call that nobody thought of must not look like an answer.
#[test]
fn the_fake_fails_where_it_has_no_answer() {
    let said = Fake::cluster(&["n1"]).run(&["status"]);
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("the fake kubectl has no answer"), "{said:?}");
}
