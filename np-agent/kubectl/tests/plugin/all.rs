//! All nodes at once: what each says is shown, and who says nothing is named.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::{Fake, Row, agent, endpoint, status};

/// How many nodes may be asked at a time.
const AT_ONCE: usize = 8;

fn three() -> Fake {
    Fake::cluster(&["n1", "n2", "n3"])
}

/// A status with some of its fields replaced.
fn status_with(fields: Value) -> Value {
    let mut status = status();
    status.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    status
}

#[test]
fn status_sums_up_each_node_in_a_row() {
    let mut fake = three();
    let open = endpoint("shop/web-0", &[]);
    let closed = endpoint("shop/db-0", &["shop/db"]);
    let drop = |packets| json!({"hook": "to_pod", "reason": "ingress-denied", "action": "drop", "packets": packets});
    let pass = json!({"hook": "to_pod", "reason": "allowed", "action": "pass", "packets": 1000});
    let device = |role: &str| json!({"ifindex": 1, "name": "v", "role": role, "attached": true, "pod": null, "why": ""});
    fake.on(
        "n1",
        "status",
        Row::says(status_with(json!({
            "endpoints": [open, closed],
            "counters": [drop(3), pass, drop(4)],
            "devices": [device("pod"), device("pending"), device("pod"), device("uplink")],
            "invalid": [{}], "narrowed": [{}, {}],
            "api": [{"resource": "pods", "away": 7}, {"resource": "nodes", "away": null}],
        }))),
    );
    fake.on("n2", "status", Row::says(status_with(json!({"api": [{"away": null}]}))));
    fake.on("n3", "status", Row::says(status()));
    let said = fake.run(&["status"]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{said:?}");
    assert_eq!(said.row("NODE")[..2], ["NODE", "READY"]);
    assert_eq!(said.row("n1"), ["n1", "yes", "2", "1", "0", "1", "3", "7", "away 7 s"]);
    assert_eq!(said.row("n2"), ["n2", "yes", "0", "0", "0", "0", "0", "0", "ok"]);
    assert_eq!(said.row("n3"), ["n3", "yes", "0", "0", "0", "0", "0", "0", "-"]);
}

#[test]
fn a_dead_agent_is_named_and_the_others_are_shown() {
    let dead = "error: unable to upgrade connection: container not found (\"np-agent\")";
    for command in ["status", "endpoints", "check"] {
        let mut fake = three();
        let good = match command {
            "status" => status().to_string(),
            "endpoints" => json!([endpoint("shop/web-0", &[])]).to_string(),
            _ => "ok   kernel        Linux 6.18\n".to_owned(),
        };
        fake.on("n1", command, Row::says(&good));
        fake.on("n2", command, Row::fails(dead));
        fake.on("n3", command, Row::says(&good));
        let said = fake.run(&[command]);
        assert_eq!(said.code, 1, "{said:?}");
        for node in ["n1", "n3"] {
            assert!(said.row(node).len() > 1);
        }
        let [line] = said.stderr.lines().collect::<Vec<_>>()[..] else { panic!("{said:?}") };
        for part in ["node n2", "np-agent-n2", dead, "kubectl get nodes", "pods/exec"] {
            assert!(line.contains(part), "{part}: {line}");
        }
    }
}

#[test]
fn a_node_without_an_agent_is_named() {
    let mut fake = Fake::new();
    fake.nodes(&["n1", "n2"]);
    fake.agents(&[agent("n1")]);
    fake.on("n1", "status", Row::says(status()));
    let said = fake.run(&["status"]);
    assert_eq!(said.code, 1);
    assert_eq!(said.row("n1")[1], "yes");
    assert_eq!(said.row("n2")[1], "no agent");
    assert!(said.stderr.contains("node n2: no np-agent pod"), "{said:?}");
    assert!(said.stderr.contains("kubectl describe daemonset"), "{said:?}");
}

/// Its node object is gone, or another system's label is on it.
#[test]
fn an_agent_on_a_node_that_is_not_listed_is_asked_too() {
    let mut fake = Fake::new();
    fake.nodes(&["n2"]);
    fake.agents(&[agent("n1"), agent("n2")]);
    fake.on("n1", "status", Row::says(status()));
    fake.on("n2", "status", Row::says(status()));
    let said = fake.run(&["status"]);
    assert_eq!((said.code, said.row("n1")[1], said.row("n2")[1]), (0, "yes", "yes"));
}

#[test]
fn an_agent_that_does_not_run_is_named_with_the_reason_and_not_asked() {
    let mut crashed = agent("n1");
    crashed["status"]["containerStatuses"][0]["state"] =
        json!({"waiting": {"reason": "CrashLoopBackOff"}});
    let mut pending = agent("n2");
    pending["status"] = json!({"phase": "Pending"});
    let mut fake = Fake::new();
    fake.nodes(&["n1", "n2"]);
    fake.agents(&[crashed, pending]);
    let said = fake.run(&["status"]);
    assert_eq!(said.code, 1);
    assert_eq!(said.row("n1")[1], "no answer");
    for part in ["node n1: pod np-agent-n1", "CrashLoopBackOff", "--previous", "(Pending)"] {
        assert!(said.stderr.contains(part), "{part}: {said:?}");
    }
    assert!(fake.calls().iter().all(|call| call[0] != "exec"));
}

#[test]
fn of_two_pods_on_a_node_the_one_that_runs_and_stays_is_asked() {
    let named = |name: &str, at: &str| {
        let mut pod = agent("n1");
        pod["metadata"]["name"] = json!(name);
        pod["metadata"]["creationTimestamp"] = json!(at);
        pod
    };
    let leaving = |mut pod: Value| {
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        pod
    };
    let waiting = |mut pod: Value| {
        pod["status"] = json!({"phase": "Pending"});
        pod
    };
    let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
    for (pods, want) in [
        ([leaving(named("old", early)), named("new", late)], "new"),
        // A clock that was put back.
        ([leaving(named("old", late)), named("new", early)], "new"),
        ([leaving(named("old", early)), waiting(named("new", late))], "old"),
        ([named("old", early), waiting(named("new", late))], "old"),
        ([named("old", early), named("new", late)], "new"),
    ] {
        for pods in [pods.clone(), [pods[1].clone(), pods[0].clone()]] {
            let mut fake = Fake::new();
            fake.nodes(&["n1"]);
            fake.agents(&pods);
            fake.answer(&["exec", want], Row::says(status()));
            assert_eq!(fake.run(&["status"]).code, 0, "{want}");
            assert_eq!(fake.only_exec().0, want);
        }
    }
}

#[test]
fn why_agents_are_not_ready_is_listed_by_node() {
    let mut fake = three();
    fake.on("n1", "status", Row::says(status()));
    let reasons = json!({"ready": false, "diagnostics": ["eth0: not attached yet"]});
    fake.on("n2", "status", Row::exits(1, status_with(reasons), ""));
    let down = json!({"agent": "down", "ready": false, "diagnostics": ["no agent runs"]});
    fake.on("n3", "status", Row::exits(1, status_with(down), ""));
    let said = fake.run(&["status"]);
    assert_eq!((said.code, said.stderr.as_str()), (1, ""), "{said:?}");
    let of = |node| said.row(node)[1];
    assert_eq!([of("n1"), of("n2"), of("n3")], ["yes", "no", "down"]);
    let (_, reasons) = said.stdout.split_once("\nNot ready:\n").expect("the reasons");
    assert_eq!(reasons, "  n2: eth0: not attached yet\n  n3: no agent runs\n");
}

#[test]
fn json_has_every_node_and_what_its_agent_said_unchanged() {
    let mut fake = Fake::new();
    fake.nodes(&["n1", "n2", "n3"]);
    fake.agents(&[agent("n1"), agent("n2")]);
    // Also what this kubectl-np knows nothing of.
    let later = status_with(json!({"of_a_later_version": {"a": [1, null]}}));
    fake.on("n1", "status", Row::says(&later));
    fake.on("n2", "status", Row::fails("error: no route to host"));
    let said = fake.run(&["status", "-o", "json"]);
    assert_eq!(said.code, 1);
    let json = said.json();
    let nodes: Vec<&Value> = json.as_array().unwrap().iter().map(|node| &node["node"]).collect();
    assert_eq!(nodes, ["n1", "n2", "n3"]);
    assert_eq!(json[0], json!({"node": "n1", "pod": "np-agent-n1", "status": later}));
    assert!(json[1]["error"].as_str().unwrap().contains("no route to host"));
    assert_eq!((&json[1]["status"], &json[2]["pod"]), (&Value::Null, &Value::Null));
    assert!(json[2]["error"].as_str().unwrap().contains("no np-agent pod"));
    assert!(said.stderr.contains("node n2") && said.stderr.contains("node n3"), "{said:?}");
}

#[test]
fn endpoints_of_all_nodes_are_rows_with_their_node() {
    let mut fake = Fake::cluster(&["n1", "n2"]);
    let mut web = endpoint("shop/web-0", &[]);
    web["source_prefixes"] = json!(["10.8.0.0/24"]);
    let db = endpoint("shop/db-0", &["shop/db", "shop/default-deny"]);
    fake.on("n1", "endpoints", Row::says(json!([web])));
    fake.on("n2", "endpoints", Row::says(json!([db, endpoint("other/x", &[])])));
    let said = fake.run(&["endpoints"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(
        said.row("n1"),
        ["n1", "1", "shop", "web-0", "10.244.1.10,10.8.0.0/24", "veth1", "-", "-"]
    );
    assert_eq!(
        said.row("n2"),
        ["n2", "1", "shop", "db-0", "10.244.1.10", "veth1", "db,default-deny", "-"]
    );
    assert_eq!(said.stdout.lines().count(), 4);
    let said = fake.run(&["endpoints", "--namespace", "shop"]);
    assert!(said.stdout.lines().count() == 3 && !said.stdout.contains("other"), "{said:?}");
    let said = fake.run(&["endpoints", "-n", "shop", "-o", "json"]);
    assert_eq!(
        said.json(),
        json!([
            {"node": "n1", "pod": "np-agent-n1", "endpoints": [web]},
            {"node": "n2", "pod": "np-agent-n2", "endpoints": [db]},
        ])
    );
}

#[test]
fn check_puts_the_node_before_each_line_and_passes_the_worst_exit_code_on() {
    let mut fake = three();
    fake.on(
        "n1",
        "check",
        Row::says("ok   kernel        Linux 6.18\nok   bpffs         /sys/fs/bpf\n"),
    );
    fake.on("n2", "check", Row::exits(1, "fail bpffs         not there\n", ""));
    fake.on("n3", "check", Row::says("warn ipsec         2 policies\n"));
    let said = fake.run(&["check"]);
    assert_eq!((said.code, said.stderr.as_str()), (1, ""), "{said:?}");
    assert_eq!(
        said.stdout,
        "n1   ok   kernel        Linux 6.18\nn1   ok   bpffs         /sys/fs/bpf\n\
         n2   fail bpffs         not there\nn3   warn ipsec         2 policies\n"
    );
}

#[test]
fn what_np_agent_complains_of_is_its_node_s_answer() {
    let mut fake = three();
    let complaint = "np-agent: no agent answers in /run/np-agent\n";
    fake.on("n1", "check", Row::exits(1, "", complaint));
    fake.on("n2", "check", Row::exits(2, "", "error: unexpected argument '--x'\n"));
    fake.on("n3", "check", Row { stderr: "Warning: old\n".into(), ..Row::says("ok   a   b\n") });
    let said = fake.run(&["check"]);
    assert_eq!((said.code, said.stdout.as_str()), (1, "n3   ok   a   b\n"), "{said:?}");
    for part in [
        "node n1: pod np-agent-n1 has no answer: np-agent: no agent answers in /run/np-agent; ",
        "kubectl logs np-agent-n1 --namespace kube-system",
        "node n2: pod np-agent-n2 has no answer: error: unexpected argument '--x'; ",
        "node n3: Warning: old\n",
    ] {
        assert!(said.stderr.contains(part), "{part}: {said:?}");
    }
}

#[test]
fn an_agent_that_cannot_tell_its_status_says_why() {
    let mut fake = Fake::cluster(&["n1", "n2"]);
    fake.on("n1", "status", Row::exits(1, "", "np-agent: nothing can be read\n"));
    fake.on("n2", "status", Row::says(status()));
    let said = fake.run(&["status"]);
    assert_eq!((said.code, said.row("n1")[1], said.row("n2")[1]), (1, "no answer", "yes"));
    let want = "node n1: pod np-agent-n1 has no answer: np-agent: nothing can be read; ";
    assert!(said.stderr.contains(want), "{said:?}");
}

#[test]
fn an_answer_that_is_not_understood_is_named() {
    for answer in ["{}", "no JSON", "[1]"] {
        let mut fake = Fake::cluster(&["n1", "n2"]);
        fake.on("n1", "status", Row::says(answer));
        fake.on("n2", "status", Row::says(status()));
        let said = fake.run(&["status"]);
        assert_eq!((said.code, said.row("n2")[1]), (1, "yes"));
        for part in ["node n1", "does not understand", "version"] {
            assert!(said.stderr.contains(part), "{part}: {said:?}");
        }
    }
}

#[test]
fn a_node_that_never_answers_costs_its_time_and_nobody_else_s_answer() {
    let mut fake = three();
    fake.on("n1", "status", Row::says(status()));
    fake.on("n2", "status", Row { hangs: true, ..Row::default() });
    fake.on("n3", "status", Row::says(status()));
    let start = Instant::now();
    let said = fake.run(&["status", "--timeout", "2s"]);
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    assert_eq!((said.code, said.row("n1")[1], said.row("n3")[1]), (1, "yes", "yes"));
    for part in ["node n2", "not answered within 2 s", "--timeout"] {
        assert!(said.stderr.contains(part), "{part}: {said:?}");
    }
}

#[test]
fn nodes_are_asked_together_and_never_too_many() {
    let names: Vec<String> = (10..40).map(|number| format!("n{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut fake = Fake::cluster(&names);
    for name in &names {
        fake.on(name, "status", Row { slow: true, ..Row::says(status()) });
    }
    let said = fake.run(&["status"]);
    assert_eq!((said.code, said.stdout.lines().count()), (0, 31), "{said:?}");
    // In the order of names, not of answers.
    let shown = said.stdout.lines().skip(1).map(|line| line.split(' ').next().unwrap());
    assert_eq!(shown.collect::<Vec<_>>(), names);
    let (mut now, mut most) = (0_usize, 0);
    for call in fake.calls().iter().skip_while(|call| call[0] != "exec") {
        now = if call[0] == "end" { now - 1 } else { now + 1 };
        most = most.max(now);
    }
    assert!((2..=AT_ONCE).contains(&most), "{most} at once");
}

#[test]
fn a_cluster_without_agents_is_one_error() {
    let mut fake = Fake::new();
    fake.nodes(&["n1", "n2"]);
    fake.agents(&[]);
    let said = fake.run(&["status"]);
    assert_eq!((said.code, said.stdout.as_str()), (1, ""));
    assert_eq!(said.stderr.lines().count(), 1, "{said:?}");
    for part in ["kube-system", "k8s-app=np-agent", "--agent-namespace"] {
        assert!(said.stderr.contains(part), "{part}: {said:?}");
    }
}
