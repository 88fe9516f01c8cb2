//! `kubectl np explain`: whom it asks, with which words, and what becomes of the answer.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::json;

use super::support::{Fake, Row, Said, agent};

/// Pods shop/web on n1, shop/db on n2, default/solo on n3, and shop/new on no node yet.
fn shop() -> Fake {
    let mut fake = Fake::cluster(&["n1", "n2", "n3"]);
    fake.pod("shop", "web", json!({"nodeName": "n1"}));
    fake.pod("shop", "db", json!({"nodeName": "n2"}));
    fake.pod("shop", "new", json!({}));
    // The context's namespace.
    let solo =
        json!({"metadata": {"name": "solo", "namespace": "default"}, "spec": {"nodeName": "n3"}});
    fake.answer(&["get", "pod", "solo"], Row::says(solo));
    fake.answer(&["exec", "explain"], Row::says("an answer\n"));
    fake
}

#[test]
fn the_agent_of_the_pod_in_question_is_asked() {
    for (from, to, further, node) in [
        ("shop/web", "shop/db", &[][..], "n2"),
        ("shop/db", "shop/web", &[], "n1"),
        ("203.0.113.7", "shop/db", &[], "n2"),
        ("node:n3", "shop/db", &[], "n2"),
        ("shop/web", "203.0.113.7", &[], "n1"),
        ("shop/db", "fd00::1", &[], "n2"),
        ("shop/web", "node:n3", &[], "n1"),
        ("203.0.113.7", "node:n3", &[], "n3"),
        ("node:n2", "203.0.113.7", &[], "n2"),
        ("shop/web", "shop/db", &["--node", "n3"], "n3"),
        ("shop/web", "solo", &[], "n3"),
    ] {
        let fake = shop();
        let ends = ["explain", "--from", from, "--to", to, "--port", "80"];
        let said = fake.run(&[&ends[..], further].concat());
        assert_eq!((said.stdout.as_str(), said.code), ("an answer\n", 0), "{from} {to}: {said:?}");
        assert_eq!(fake.only_exec().0, format!("np-agent-{node}"), "{from} to {to}");
    }
}

#[test]
fn between_addresses_any_agent_that_is_ready_is_asked() {
    let mut crashed = agent("n1");
    crashed["status"]["containerStatuses"][0]["state"] = json!({"terminated": {"reason": "Error"}});
    let mut starting = agent("n2");
    starting["status"]["containerStatuses"][0]["ready"] = json!(false);
    let ask = ["explain", "--from", "10.0.0.1", "--to", "10.0.0.2", "--port", "80"];
    for (agents, pod) in [
        (vec![crashed.clone(), starting.clone(), agent("n3")], "np-agent-n3"),
        (vec![crashed.clone(), starting], "np-agent-n2"),
    ] {
        let mut fake = Fake::new();
        fake.agents(&agents);
        fake.answer(&["exec", "explain"], Row::says(""));
        assert_eq!(fake.run(&ask).code, 0);
        assert_eq!(fake.only_exec().0, pod);
    }
    let mut fake = Fake::new();
    fake.agents(&[crashed]);
    let said = fake.run(&ask);
    assert_eq!(said.code, 2);
    assert!(
        said.stderr.contains("is running") && said.stderr.contains("kubectl np status"),
        "{said:?}"
    );
}

#[test]
fn np_agent_gets_whole_names_and_every_flag() {
    let fake = shop();
    let args = "explain -n shop --from web --to db --port http --protocol UDP --family 4 --expect deny \
                -o json -- --run-dir /run/x";
    fake.run(&args.split_whitespace().collect::<Vec<_>>());
    assert_eq!(
        fake.only_exec().1,
        [
            "explain",
            "--from=shop/web",
            "--to=shop/db",
            "--port=http",
            "--protocol=UDP",
            "--family=4",
            "--expect=deny",
            "--output=json",
            "--run-dir",
            "/run/x",
        ]
    );
    let fake = shop();
    fake.run(&["explain", "--from", "solo", "--to", "shop/db"]);
    assert_eq!(fake.only_exec().1, ["explain", "--from=default/solo", "--to=shop/db"]);
}

#[test]
fn exit_codes_and_complaints_are_np_agent_s() {
    for code in [1, 2, 137] {
        let mut fake = Fake::cluster(&["n1"]);
        fake.pod("shop", "db", json!({"nodeName": "n1"}));
        fake.on(
            "n1",
            "explain",
            Row::exits(code, "DENY\n", "np-agent: expected allow, found deny\n"),
        );
        let said = fake.run(&["explain", "--from", "10.0.0.1", "--to", "shop/db", "--port", "80"]);
        assert_eq!((said.code, said.stdout.as_str()), (code, "DENY\n"));
        assert_eq!(said.stderr, "np-agent: expected allow, found deny\n");
    }
}

fn explain(fake: &Fake, from: &str, to: &str) -> Said {
    fake.run(&["explain", "--from", from, "--to", to, "--port", "80"])
}

#[test]
fn where_there_is_no_verdict_the_exit_code_is_2_and_the_reason_is_given() {
    let mut fake = shop();
    let missing = "Error from server (NotFound): pods \"gone\" not found";
    fake.answer(&["get", "pod", "gone"], Row::fails(missing));
    fake.pod("shop", "lost", json!({"nodeName": "n9"}));
    for (from, to, parts) in [
        ("shop/web", "shop/gone", &[missing, "--to must be a pod, never a Service"][..]),
        ("shop/gone", "10.0.0.1", &[missing, "--from", "kubectl get pods --namespace shop"]),
        ("shop/web", "shop/new", &["Pod shop/new: spec.nodeName is empty", "kubectl describe pod"]),
        ("shop/web", "shop/lost", &["node n9: no np-agent pod", "kubectl describe daemonset"]),
        ("shop/web", "svc/a/b", &["--to \"svc/a/b\"", "give namespace/pod"]),
        ("--all", "shop/db", &["--from \"--all\"", "give namespace/pod"]),
    ] {
        let said =
            fake.run(&["explain", &format!("--from={from}"), &format!("--to={to}"), "--port=80"]);
        assert_eq!((said.code, said.stdout.as_str()), (2, ""), "{said:?}");
        for part in parts {
            assert!(said.stderr.contains(part), "{part}: {said:?}");
        }
    }
    let mut fake = Fake::cluster(&["n1"]);
    fake.pod("shop", "db", json!({"nodeName": "n1"}));
    fake.on("n1", "explain", Row::fails("error: no route to host"));
    let said = explain(&fake, "10.0.0.1", "shop/db");
    assert_eq!(said.code, 2);
    assert!(said.stderr.contains("node n1: pod np-agent-n1"), "{said:?}");
}

#[test]
fn probes_are_read_here_and_judged_there() {
    let probes = "{\"from\":\"shop/web\",\"to\":\"shop/db\",\"port\":80}\n";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), probes).unwrap();
    let path = file.path().to_str().unwrap();
    for source in [path, "-"] {
        let mut fake = Fake::cluster(&["n1", "n2"]);
        let row = Row { reads: true, ..Row::exits(1, "{}\n", "") };
        fake.answer(&["exec", "--stdin", "explain"], row);
        let args = ["explain", "--probes", source, "--expect", "allow", "--node", "n2"];
        let mut command = fake.command(&args);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        if source == "-" {
            input.write_all(probes.as_bytes()).unwrap();
        }
        drop(input);
        let said = Said::from(child.wait_with_output().unwrap());
        assert_eq!((said.stdout, said.code), (format!("{probes}{{}}\n"), 1), "{source}");
        let (pod, words) = fake.only_exec();
        assert_eq!(pod, "np-agent-n2");
        assert_eq!(words, ["explain", "--probes=-", "--expect=allow"]);
    }
    let said = Fake::cluster(&["n1"]).run(&["explain", "--probes", "/nowhere/at/all"]);
    assert_eq!(said.code, 2);
    assert!(said.stderr.contains("--probes /nowhere/at/all"), "{said:?}");
}
