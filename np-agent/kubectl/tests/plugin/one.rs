//! One node: the one that is named, or the pod's.

use serde_json::json;

use super::support::{Fake, Row, endpoint, status};

#[test]
fn a_node_that_is_named_is_asked_alone_and_its_words_and_exit_code_are_passed_on() {
    for (command, code) in [("status", 0), ("status", 1), ("check", 0), ("check", 1), ("check", 7)]
    {
        let mut fake = Fake::cluster(&["n1", "n2"]);
        let text = "Node:        n2\n\n  as it is   \n";
        let row = Row::exits(code, text, "np-agent: a word\n");
        fake.on("n2", command, if code == 0 { Row::says(text) } else { row });
        let said = fake.run(&[command, "--node", "n2"]);
        assert_eq!((said.code, said.stdout.as_str()), (code, text));
        assert_eq!(said.stderr, if code == 0 { "" } else { "np-agent: a word\n" });
        assert_eq!(fake.only_exec().0, "np-agent-n2");
        // So it needs no right to list nodes.
        assert!(fake.calls().iter().all(|call| !call.contains(&"nodes".to_owned())));
    }
}

#[test]
fn json_of_one_node_is_np_agent_s_own() {
    let mut fake = Fake::cluster(&["n1"]);
    fake.on("n1", "status", Row::exits(1, status(), ""));
    let said = fake.run(&["status", "--node", "n1", "-o", "json"]);
    assert_eq!((said.json(), said.code), (status(), 1));
    assert_eq!(fake.only_exec().1, ["status", "-o", "json"]);
}

#[test]
fn a_node_without_an_answer_is_named() {
    let mut fake = Fake::cluster(&["n1"]);
    fake.on("n1", "status", Row::fails("error: no route to host"));
    for (node, part) in [("n1", "no route to host"), ("n9", "no np-agent pod")] {
        let said = fake.run(&["status", "--node", node]);
        assert_eq!((said.code, said.stdout.as_str()), (1, ""));
        assert!(said.stderr.contains(&format!("kubectl np: node {node}: ")), "{said:?}");
        assert!(
            said.stderr.contains(part) && said.stderr.contains("kubectl get nodes"),
            "{said:?}"
        );
    }
}

#[test]
fn what_follows_two_dashes_reaches_np_agent_unchanged() {
    let mut fake = Fake::cluster(&["n1"]);
    fake.on("n1", "check", Row::says("ok\n"));
    fake.run(&["check", "--node", "n1", "--", "--run-dir", "/run/other", "-n", "a b"]);
    assert_eq!(fake.only_exec().1, ["check", "--run-dir", "/run/other", "-n", "a b"]);
}

#[test]
fn endpoints_of_a_pod_are_asked_of_its_node() {
    for args in
        [&["shop/db-0"][..], &["db-0", "--namespace", "shop"], &["shop/db-0", "-n", "other"]]
    {
        let mut fake = Fake::cluster(&["n1", "n2"]);
        fake.pod("shop", "db-0", json!({"nodeName": "n2"}));
        let all = json!([endpoint("shop/db-0", &["shop/db"]), endpoint("shop/db-01", &[])]);
        fake.on("n2", "endpoints", Row::says(all));
        let said = fake.run(&[&["endpoints"], args].concat());
        assert_eq!((said.code, said.stdout.lines().count()), (0, 2), "{said:?}");
        assert_eq!(said.row("n2")[2..4], ["shop", "db-0"]);
        assert_eq!(fake.only_exec().0, "np-agent-n2");
    }
}

#[test]
fn a_pod_without_an_endpoint_is_said_to_have_none() {
    for (spec, part) in [
        (json!({"nodeName": "n1"}), "kubectl np status --node n1"),
        (json!({"nodeName": "n1", "hostNetwork": true}), "hostNetwork"),
    ] {
        let mut fake = Fake::cluster(&["n1"]);
        fake.pod("shop", "db-0", spec);
        fake.on("n1", "endpoints", Row::says("[]"));
        let said = fake.run(&["endpoints", "shop/db-0"]);
        assert_eq!(said.code, 1);
        assert!(said.stderr.contains("Pod shop/db-0") && said.stderr.contains(part), "{said:?}");
    }
}
