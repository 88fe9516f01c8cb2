//! `np-agent explain`: its verdicts are the oracle's, its explanations fit its verdicts, and what
//! the command prints and exits with is what a CI can rely on.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use np_policy::explain::{EndError, Explain, Family, Judgement, Probe, Protocol, Side, Standing};
use np_policy::index::{Index, Touched};
use np_policy::model::{Change, Node, NodeName, Object};
use np_tests::agent::agent_binary;
use np_tests::generate::{Case, Cases, NODES, changes, node_addresses};
use np_tests::oracle::{self, Conn, End};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::Value;

const CASES: u32 = 3_000;
const PROBES: usize = 16;

/// How often each answer was met, by its name.
type Met = BTreeMap<&'static str, u64>;

fn index(case: &Case) -> Option<Index> {
    let mut index = Index::default();
    let mut touched = Touched::default();
    for change in changes(&case.cluster).ok()? {
        index.apply(change, &mut touched);
    }
    for (number, name) in NODES.iter().enumerate() {
        let node = Node {
            name: NodeName((*name).into()),
            addresses: node_addresses(number).to_vec(),
            pod_cidrs: Vec::new(),
        };
        index.apply(Change::Apply(Object::Node(node)), &mut touched);
    }
    Some(index)
}

/// A packet to a node's address is for the node, whichever node is asked.
fn normal(mut conn: Conn) -> Conn {
    if let End::Address(address) = conn.dst {
        let node = (0..NODES.len()).find(|node| node_addresses(*node).contains(&address));
        if let Some(node) = node {
            conn.dst = End::Node { node: NODES[node].to_owned(), address };
        }
    }
    conn
}

fn named(end: &End) -> String {
    match end {
        End::Pod { pod, .. } => pod.clone(),
        End::Node { node, .. } => format!("node:{node}"),
        End::Address(address) => address.to_string(),
    }
}

fn probe<'e>(explain: &'e Explain<'_>, conn: &Conn) -> Result<Option<Probe<'e>>, EndError> {
    let protocol = match conn.protocol {
        oracle::Protocol::Tcp => Protocol::Tcp,
        oracle::Protocol::Udp => Protocol::Udp,
        oracle::Protocol::Sctp => Protocol::Sctp,
        oracle::Protocol::IcmpEcho => Protocol::Icmp,
        oracle::Protocol::Other(_) => return Ok(None),
    };
    let v4 = conn.src.address().is_ipv4();
    let family = if v4 { Family::V4 } else { Family::V6 };
    let (from, to) = explain.ends(&named(&conn.src), &named(&conn.dst), Some(family))?;
    Ok(Some(Probe { from, to, protocol, port: conn.port }))
}

fn same(side: &Side<'_>, oracle: &oracle::Side) -> bool {
    match oracle {
        oracle::Side::NotSubject => side.standing == Standing::NotSubject,
        oracle::Side::SamePod => side.standing == Standing::SamePod,
        oracle::Side::OwnNode => side.standing == Standing::OwnNode,
        oracle::Side::NotIsolated => {
            side.standing == Standing::NotIsolated && side.isolated_by.is_empty()
        }
        // The oracle stops at the first rule that it finds.
        oracle::Side::Allowed { policy, rule } => {
            side.standing == Standing::Allowed
                && side
                    .allowed_by
                    .iter()
                    .any(|by| by.policy.key.to_string() == *policy && by.number == *rule)
        }
        oracle::Side::Denied => {
            side.standing == Standing::Denied
                && side.allowed_by.is_empty()
                && !side.isolated_by.is_empty()
        }
    }
}

/// Whether the explanation gives a reason for the verdict: allowed if and only if each side has a
/// rule that allows it, or nobody who isolates it, or is none of policy's business.
fn explained(judgement: &Judgement<'_>) -> bool {
    let free = |side: &Side<'_>| match side.standing {
        Standing::NotSubject | Standing::SamePod | Standing::OwnNode => true,
        Standing::NotIsolated | Standing::Allowed | Standing::Denied => {
            side.isolated_by.is_empty() || !side.allowed_by.is_empty()
        }
    };
    judgement.allowed == (free(&judgement.egress) && free(&judgement.ingress))
        && judgement.is_consistent()
        && judgement.policies().is_empty()
            == (judgement.allowed
                && judgement.egress.allowed_by.is_empty()
                && judgement.ingress.allowed_by.is_empty())
}

fn agree(case: &Case, met: &mut Met) -> Result<(), TestCaseError> {
    let Some(index) = index(case) else {
        return Err(TestCaseError::reject("an object that the API would refuse"));
    };
    let explain = Explain::new(&index);
    let oracle = case.cluster.oracle();
    for conn in &case.probes {
        let conn = normal(conn.clone());
        let fail = |what: String| TestCaseError::fail(format!("{conn}\n  {what}"));
        let probe = match probe(&explain, &conn) {
            Ok(Some(probe)) => probe,
            Ok(None) => continue,
            // While a case shrinks, its pods go: that is not the fault looked for.
            Err(_) => {
                *met.entry("nobody").or_default() += 1;
                continue;
            }
        };
        let judgement = explain.judge(&probe);
        let verdict = oracle.verdict(&conn);
        let sides =
            same(&judgement.egress, &verdict.egress) && same(&judgement.ingress, &verdict.ingress);
        if judgement.allowed != verdict.allowed() || !sides || !explained(&judgement) {
            return Err(fail(format!("oracle: {verdict:?}\n  explain: {judgement:#?}")));
        }
        *met.entry(judgement.verdict()).or_default() += 1;
        for side in [&judgement.egress, &judgement.ingress] {
            *met.entry(side.standing.name()).or_default() += 1;
            *met.entry("nearly").or_default() += u64::from(!side.near.is_empty());
        }
    }
    Ok(())
}

/// Both sides of every connection, with the rule that allows: a verdict can be right for a wrong
/// reason.
#[test]
fn explain_says_what_the_oracle_says_and_why() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    let mut runner = TestRunner::new(Config {
        cases: cases.unwrap_or(CASES),
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..Config::default()
    });
    let met = std::cell::RefCell::new(Met::new());
    let result = runner.run(&Cases { probes: PROBES }, |case| agree(&case, &mut met.borrow_mut()));
    let met = met.into_inner();
    println!("{met:?}");
    if let Err(error) = result {
        panic!("{error}");
    }
    assert_eq!(met.get("nobody"), None, "an end of the generator's is not known: {met:?}");
    let [allowed, denied] = ["allow", "deny"].map(|verdict| met.get(verdict).copied().unwrap_or(0));
    assert!(allowed.min(denied) * 5 > allowed + denied, "{met:?}");
    for answer in ["no-pod", "same-pod", "own-node", "not-isolated", "allowed", "denied", "nearly"]
    {
        assert!(met.get(answer).is_some_and(|times| *times > 100), "{answer}: {met:?}");
    }
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/explain")
}

fn run(manifests: &Path, args: &str, input: &str) -> Output {
    let mut child = Command::new(agent_binary().expect("the agent is built"))
        .arg("explain")
        .arg("--manifests")
        .arg(manifests)
        .args(args.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the agent starts");
    // A command that refuses its arguments does not read.
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).ok();
    child.wait_with_output().expect("the agent ends")
}

fn explain(args: &str) -> (i32, String, String) {
    let output = run(&fixture(), args, "");
    (
        output.status.code().expect("an exit code"),
        String::from_utf8(output.stdout).expect("text"),
        String::from_utf8(output.stderr).expect("text"),
    )
}

fn probes(args: &str, lines: &str) -> (i32, Vec<Value>, String) {
    let output = run(&fixture(), &format!("--probes - {args}"), lines);
    let answers = String::from_utf8(output.stdout).expect("text");
    let answers = answers.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let code = output.status.code().expect("an exit code");
    (code, answers, String::from_utf8(output.stderr).expect("text"))
}

#[test]
fn an_answer_names_policies_rules_and_the_nearest_misses() {
    for (args, verdict, said) in [
        (
            "--from shop/web-0 --to shop/api-0 --port 8443",
            "ALLOW (allowed)",
            &["shop/web-to-api spec.egress[1]:", "shop/api-from-web spec.ingress[0]:"][..],
        ),
        (
            "--from shop/web-0 --to shop/db-0 --port 5432",
            "DENY (egress-denied)",
            &[
                "isolated by  shop/default-deny, shop/web-to-api",
                "shop/web-to-api spec.egress[0]: right peer, wrong port: it allows TCP 3306",
                "no rule is near",
            ],
        ),
        (
            "--from other/client --to shop/api-0 --port https",
            "DENY (ingress-denied)",
            &[
                "Egress of other/client: allowed, no policy isolates",
                "right port, wrong peer: other/client is not pods app=web of namespace shop",
            ],
        ),
        (
            "--from shop/web-0 --to shop/web-0 --port 1",
            "ALLOW (hairpin)",
            &["a pod is never kept from itself"],
        ),
    ] {
        let (code, out, _) = explain(args);
        assert_eq!(code, 0, "{args}");
        assert!(out.contains(verdict), "{args}\n{out}");
        for said in said {
            assert!(out.contains(said), "{args}: {said}\n{out}");
        }
    }
}

/// A process of the pod's own node always gets in, one of another node is judged, and so is
/// whoever only bears the node's address.
#[test]
fn only_what_the_node_itself_sends_is_free() {
    for (args, verdict) in [
        ("--from shop/scraper --to shop/api-0 --port 1", "ALLOW (own)"),
        ("--from node:n1 --to shop/api-0 --port 1", "ALLOW (own)"),
        ("--from shop/scraper --to shop/db-0 --port 1", "DENY (ingress-denied)"),
        ("--from 192.168.65.10 --to shop/api-0 --port 1", "DENY (ingress-denied)"),
        ("--from shop/web-0 --to 192.168.65.10 --port 1", "ALLOW (entered)"),
        ("--from shop/web-0 --to shop/scraper --port 1", "ALLOW (entered)"),
    ] {
        let (code, out, _) = explain(args);
        assert_eq!(code, 0, "{args}");
        assert!(out.contains(verdict), "{args}\n{out}");
    }
    let (_, out, _) = explain("--from 192.168.65.10 --to shop/api-0 --port 1");
    assert!(out.contains("give node:n1"), "{out}");
}

/// Nothing in a manifest proves that an address is not the node's own, where nothing is judged.
#[test]
fn a_denial_says_when_it_rests_on_whose_an_address_is() {
    let unless = |from: &str, to: &str, protocol: &str| {
        let ends = format!("--from {from} --to {to} --protocol {protocol} --port 53");
        let (code, out, error) = explain(&format!("{ends} -o json"));
        assert_eq!(code, 0, "{error}");
        let answer: Value = serde_json::from_str(&out).expect("JSON");
        let (_, text, _) = explain(&ends);
        assert_eq!(answer["unless"] == "own-node", text.contains(", unless "), "{text}");
        (answer["verdict"] == "allow", answer["unless"] == "own-node", text)
    };
    for (from, to, expected) in [
        ("shop/web-0", "169.254.20.10", (false, true)),
        ("shop/web-0", "fe80::1", (false, true)),
        ("shop/web-0", "10.1.0.254", (false, true)),
        ("169.254.20.10", "shop/api-0", (false, true)),
        ("10.1.0.1", "10.1.0.254", (false, true)),
        // Another node's, and nobody's.
        ("shop/web-0", "10.1.1.254", (false, false)),
        ("shop/web-0", "203.0.113.1", (false, false)),
        ("shop/web-0", "192.168.65.11", (false, false)),
        ("other/client", "169.254.20.10", (true, false)),
    ] {
        let (allowed, unless, text) = unless(from, to, "UDP");
        assert_eq!((allowed, unless), expected, "{from} {to}\n{text}");
    }
    let (_, _, text) = unless("shop/web-0", "169.254.20.10", "UDP");
    assert!(text.contains("DENY (egress-denied), unless 169.254.20.10 is node n1's own"), "{text}");
    assert!(text.contains("for that, give node:n1 instead"), "{text}");
    let (_, answers, _) =
        probes("", r#"{"from":"shop/web-0","to":"169.254.20.10","port":53,"protocol":"UDP"}"#);
    assert_eq!(answers[0]["unless"], "own-node");
}

/// A webhook that the API server calls, or a scraper with hostNetwork: over VXLAN the rule for the
/// node's address does not let it in.
#[test]
fn a_node_may_come_through_an_overlay_under_another_address() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::copy(fixture().join("cluster.yaml"), dir.path().join("cluster.yaml")).expect("a copy");
    let policy = |cidr: &str| {
        let policy = format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p, namespace: \
             shop}}, spec: {{podSelector: {{matchLabels: {{app: db}}}}, ingress: [{{from: [{{ipBlock: \
             {{cidr: {cidr}}}}}]}}]}}}}"
        );
        std::fs::write(dir.path().join("policy.yaml"), policy).expect("a file");
    };
    let ask = |from: &str| {
        let output = run(dir.path(), &format!("--from {from} --to shop/db-0 --port 9443"), "");
        String::from_utf8(output.stdout).expect("text")
    };
    policy("192.168.65.10/32");
    for from in ["node:n1", "shop/scraper"] {
        let out = ask(from);
        assert!(out.contains("ALLOW (allowed)"), "{out}");
        assert!(out.contains("podCIDR, 10.1.0.0. Judged by it, the verdict is DENY.\n"), "{out}");
    }
    policy("10.1.0.0/32");
    let out = ask("node:n1");
    assert!(out.contains("DENY (ingress-denied)"), "{out}");
    assert!(out.contains("10.1.0.0. Judged by it, the verdict is ALLOW.\n"), "{out}");
    let out = ask("10.1.0.0");
    assert!(out.contains("ALLOW (allowed)"), "{out}");
    assert!(out.contains("10.1.0.0 is the first address of node n1's podCIDR"), "{out}");
    policy("10.0.0.0/8");
    assert!(!ask("node:n2").contains("overlay"), "its own node");
    assert!(ask("192.168.65.10").contains("DENY (ingress-denied)"));
}

#[test]
fn pods_are_asked_about_by_either_address() {
    let ends = "--from shop/web-0 --to shop/api-0 --port 8443 -o json";
    for (family, address) in
        [("", "10.1.0.1"), ("--family 4", "10.1.0.1"), ("--family 6", "fd00:1::1")]
    {
        let (code, out, _) = explain(&format!("{ends} {family}"));
        let answer: Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!((code, answer["verdict"].as_str()), (0, Some("allow")), "{family}\n{out}");
        assert!(answer["from"].as_str().expect("a string").contains(address), "{out}");
    }
    let (code, out, _) = explain("--from fd00:1::1 --to shop/api-0 --port 8443");
    assert!(code == 0 && out.contains("shop/web-0 (fd00:1::1"), "{out}");
}

#[test]
fn the_exit_code_compares_with_what_is_expected() {
    let allowed = "--from shop/web-0 --to shop/api-0 --port 8443";
    let denied = "--from shop/web-0 --to shop/api-0 --protocol icmp";
    for (args, code) in [
        (format!("{allowed} --expect allow"), 0),
        (format!("{allowed} --expect deny"), 1),
        (format!("{denied} --expect deny"), 0),
        (format!("{denied} --expect allow"), 1),
        (denied.to_owned(), 0),
    ] {
        assert_eq!(explain(&args).0, code, "{args}");
    }
}

#[test]
fn bad_input_says_what_to_give_instead() {
    for (args, said) in [
        ("--from shop/web-0 --to shop/none --port 1", "there is no pod shop/none"),
        ("--from shop/web-0 --to web --port 1", "give namespace/pod, an address, or node:NAME"),
        ("--from node:n9 --to shop/web-0 --port 1", "there is no Node n9"),
        ("--from shop/web-0 --to shop/migrate --port 1", "has finished"),
        ("--from shop/web-0 --to shop/db-0", "add --port"),
        ("--from shop/web-0 --to shop/db-0 --port 65536", "is not a port"),
        ("--from shop/web-0 --to shop/db-0 --port http", "it names none"),
        ("--from shop/web-0 --to shop/api-0 --port admin", "9000 and 9001"),
        ("--from shop/web-0 --to 203.0.113.1 --port https", "give the number"),
        ("--from shop/web-0 --to shop/db-0 --protocol icmp --port 8", "ICMP has no ports"),
        ("--from shop/web-0 --to shop/db-0 --port 1 --family 6", "no address of the same family"),
        ("--from shop/web-0 --to 127.0.0.1 --port 1", "never on the wire"),
        ("--from shop/web-0 --to 10.96.0.20 --port 443", "give a pod behind it (shop/api-0)"),
        ("--from shop/web-0 --to shop/api --port 443", "its targetPort (https for 443)"),
        (
            "--from shop/web-0 --to default/kubernetes --port 443",
            "it has no selector: give the address of an endpoint (192.168.65.10, 192.168.65.11, \
             192.168.65.12) and its port (6443)",
        ),
        ("--from shop/web-0 --to 10.96.0.1 --port 443", "(192.168.65.10, 192.168.65.11, "),
        ("--from shop/web-0 --to 10.96.0.2 --port 443", "`kubectl get endpoints,endpointslices`"),
    ] {
        let (code, out, error) = explain(args);
        assert_eq!((code, out.as_str()), (2, ""), "{args}\n{error}");
        assert!(error.contains(said), "{args}: {said}\n{error}");
    }
}

/// A policy that is refused must not make a connection look allowed.
#[test]
fn nothing_is_judged_while_a_manifest_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::copy(fixture().join("cluster.yaml"), dir.path().join("cluster.yaml")).expect("a copy");
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec: {podSelectr: {}}\n";
    std::fs::write(dir.path().join("broken.yaml"), policy).expect("a file");
    let output = run(dir.path(), "--from shop/web-0 --to shop/api-0 --port 8443", "");
    let error = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("podSelector") && error.contains("broken.yaml"), "{error}");
    assert!(output.stdout.is_empty());
}

#[test]
fn probes_are_answered_in_order_and_a_bad_line_spoils_no_other() {
    let (code, answers, said) = probes(
        "",
        r#"{"from":"shop/web-0","to":"shop/api-0","port":8443}
{"from":"shop/web-0","to":"shop/api-0","port":"https","protocol":"TCP"}

{"from":"shop/web-0","to":"shop/db-0","port":5432,"protcol":"UDP"}
not JSON
{"from":"shop/web-0","to":"10.96.0.20","port":443}
{"from":"other/client","to":"shop/api-0","port":8443,"protocol":"tcp"}
"#,
    );
    let verdicts: Vec<_> = answers.iter().map(|answer| answer["verdict"].as_str()).collect();
    assert_eq!(verdicts, [Some("allow"), Some("allow"), None, None, None, Some("deny")]);
    assert_eq!((&answers[2]["line"], &answers[3]["line"]), (&Value::from(4), &Value::from(5)));
    assert!(answers[2]["error"].as_str().is_some_and(|text| text.contains("protcol")));
    assert!(answers[4]["error"].as_str().is_some_and(|text| text.contains("after DNAT")));
    let last = &answers[5];
    assert_eq!(last["reason"], "ingress-denied");
    assert_eq!(last["egress"]["why"], "not-isolated");
    assert_eq!(last["ingress"]["near"][0]["wrong"], "peer");
    assert_eq!(last["policies"], serde_json::json!(["shop/api-from-web", "shop/default-deny"]));
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("3 probes answered") && said.contains("3 lines malformed"), "{said}");
}

#[test]
fn probes_compare_with_their_own_expectation_before_the_common_one() {
    let allowed = r#"{"from":"shop/web-0","to":"shop/api-0","port":8443"#;
    let lines = format!("{allowed}}}\n{allowed},\"expect\":\"deny\"}}\n");
    let (code, answers, said) = probes("--expect allow", &lines);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("1 not as expected"), "{said}");
    assert_eq!(answers[0].get("expected"), None);
    assert_eq!(answers[1]["expected"], "deny");
    assert_eq!(probes("", &format!("{allowed}}}\n")).0, 0);
}

/// Without `--manifests` the objects are those that the agent keeps in its run directory.
#[test]
fn a_run_directory_answers_like_the_manifests_it_was_filled_from() {
    let run_dir = tempfile::tempdir().expect("a directory");
    np_agent::source::Manifests::open(fixture())
        .expect("a directory of manifests")
        .remember_in(run_dir.path().join("manifests.json"))
        .load();
    let ask = |dir: &Path| {
        Command::new(agent_binary().expect("the agent is built"))
            .arg("explain")
            .arg("--run-dir")
            .arg(dir)
            .args("--from shop/web-0 --to shop/api-0 --port https".split(' '))
            .output()
            .expect("the agent runs")
    };
    let (_, from_manifests, _) = explain("--from shop/web-0 --to shop/api-0 --port https");
    assert_eq!(String::from_utf8(ask(run_dir.path()).stdout).expect("text"), from_manifests);
    let nobody = ask(&run_dir.path().join("none"));
    assert_eq!(nobody.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("--manifests DIR"));
}
