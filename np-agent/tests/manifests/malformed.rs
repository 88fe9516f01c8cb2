//! The mistakes people make: each has its place, object, field, value and remedy.

use std::fs;
use std::path::Path;

use crate::support::{Dir, HEAD, messages};

/// Every fixture is one mistake, with exactly these messages.
#[test]
fn each_mistake_has_its_message() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/manifests/malformed");
    let mut names: Vec<_> = fs::read_dir(&fixtures)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    names.sort();
    for name in &names {
        let dir = Dir::with(name, fs::read(fixtures.join(name)).unwrap());
        let batch = dir.load();
        let found = messages(&batch.invalid, dir.0.path()).join("\n");
        let expected = fixtures.join(name).with_extension("expected");
        let expected = fs::read_to_string(&expected).unwrap();
        assert_eq!(found.trim(), expected.trim(), "{name}");
        // The text after a `---` is a document of its own.
        assert_eq!(batch.changes.len(), usize::from(name == "text-after-marker.yaml"), "{name}");
    }
    assert_eq!(names.len(), 20);
}

/// Lines 5 and following are the text; the message is looked for without the file's name.
fn refused(spec: &str, expected: &[&str]) {
    let dir = Dir::with("a.yaml", format!("{HEAD}{spec}"));
    let batch = dir.load();
    assert_eq!(batch.changes, [], "{spec}");
    let found = messages(&batch.invalid, dir.0.path());
    assert_eq!(found.len(), expected.len(), "{spec}\n{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        let (start, end) = expected.split_once(" … ").unwrap_or((expected, ""));
        let whole = format!("a.yaml:{start}");
        assert!(found.starts_with(&whole) && found.ends_with(end), "{spec}\n{found}\n{expected}");
    }
}

/// A rule for ingress with this item in `from` (line 8, column 7) or `ports`.
fn refused_peer(peer: &str, expected: &[&str]) {
    refused(&format!("spec:\n  ingress:\n  - from:\n    - {peer}\n"), expected);
}

fn refused_port(port: &str, expected: &[&str]) {
    refused(&format!("spec:\n  ingress:\n  - ports:\n    - {port}\n"), expected);
}

#[test]
fn blocks_that_are_none() {
    let field = "NetworkPolicy default/web: spec.ingress[0].from[0].ipBlock";
    for (block, at, value, remedy) in [
        ("{cidr: 10.0.0.0/33}", "23: F.cidr", "10.0.0.0/33", "\"10.0.0.0/32\""),
        ("{cidr: 10.0.0.1}", "23: F.cidr", "10.0.0.1", "\"10.0.0.1/32\""),
        ("{cidr: db.example/8}", "23: F.cidr", "db.example/8", "\"fd00::/8\""),
        (
            "{cidr: fd00::/8, except: [10.0.0.0/16]}",
            "42: F.except[0]",
            "10.0.0.0/16",
            "each family",
        ),
        (
            "{cidr: 10.0.0.0/8, except: [10.9.0.0/8]}",
            "44: F.except[0]",
            "10.9.0.0/8",
            "this ipBlock",
        ),
        ("{cidr: 10.0.0.0/8, except: [0.0.0.0/0]}", "44: F.except[0]", "0.0.0.0/0", "inside it"),
        ("{cidr: 10.0.0.0/8, except: 10.1.0.0/16}", "43: F.except", "10.1.0.0/16", "\"- …\""),
        ("{cidr: 10}", "23: F.cidr", "10", "\"10\""),
        ("{except: []}", "16: F.cidr", "", "10.0.0.0/8\""),
        ("10.0.0.0/8", "16: F", "10.0.0.0/8", "cidr: 10.0.0.0/8}\""),
    ] {
        let value = if value.is_empty() { String::new() } else { format!(": {value:?}") };
        let start = format!("8:{}{value}: ", at.replace('F', field));
        let expected = format!("{start} … {remedy}");
        refused_peer(&format!("ipBlock: {block}"), &[&expected]);
    }
}

#[test]
fn peers_that_name_nobody_or_two_things() {
    let field = "NetworkPolicy default/web: spec.ingress[0].from[0]";
    refused_peer("{}", &[&format!("8:7: {field}: \"{{}}\": an empty peer … is for everyone")]);
    refused_peer("podSelector:", &[&format!("8:7: {field}: \"{{podSelector}}\": an empty peer")]);
    refused_peer("", &[&format!("8:7: {field}: an empty list item … belongs to it")]);
    refused_peer(
        "{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}",
        &[&format!("8:17: {field}.ipBlock: \"{{cidr}}\": ipBlock beside a selector … \"- \"")],
    );
}

#[test]
fn selectors_that_do_not_select() {
    let field = "NetworkPolicy default/web: spec.ingress[0].from[0].podSelector";
    let expression = format!("{field}.matchExpressions[0]");
    for (selector, expected) in [
        ("web", format!("8:20: {field}: \"web\": … for all")),
        (
            "app==web",
            format!(
                "8:20: {field}: \"app==web\": … {{matchLabels: {{app: web}}}}\", or \"{{}}\" for all"
            ),
        ),
        (
            "{app: web}",
            format!("8:21: {field}.app: \"web\": unknown field \"app\"; … \"matchLabels:\""),
        ),
        (
            "{matchLabels: {tier: 1}}",
            format!("8:41: {field}.matchLabels.tier: \"1\": … quotes: \"1\""),
        ),
        (
            "{matchLabels: {'on': yes}}",
            format!("8:41: {field}.matchLabels.on: \"yes\": … quotes: \"yes\""),
        ),
        (
            "{matchLabels: {a: b/c}}",
            format!("8:38: {field}.matchLabels.a: \"b/c\": not a valid label value"),
        ),
        (
            "{matchLabels: {-a: b}}",
            format!("8:35: {field}.matchLabels.-a: \"b\": not a valid label"),
        ),
        (
            "{matchExpressions: [{key: a, operator: In}]}",
            format!("8:40: {expression}.values: operator In needs"),
        ),
        (
            "{matchExpressions: [{key: a, operator: NotIn, values: []}]}",
            format!("8:74: {expression}.values: \"[]\": operator NotIn needs"),
        ),
        (
            "{matchExpressions: [{key: a, operator: Exists, values: [b]}]}",
            format!("8:75: {expression}.values: \"[…]\": operator Exists takes no values … use In"),
        ),
        (
            "{matchExpressions: [{key: a, operator: in, values: [b]}]}",
            format!("8:59: {expression}.operator: \"in\": unknown operator; did you mean \"In\"?"),
        ),
        (
            "{matchExpressions: [{key: a, operator: Gt, values: [b]}]}",
            format!("8:59: {expression}.operator: \"Gt\": unknown operator; use In, NotIn"),
        ),
        ("{matchExpressions: [{key: a}]}", format!("8:40: {expression}.operator: missing")),
        ("{matchExpressions: [{operator: Exists}]}", format!("8:40: {expression}.key: missing")),
        (
            "{matchExpressions: [{key: a b, operator: Exists}]}",
            format!("8:46: {expression}.key: \"a b\": not a valid label"),
        ),
        (
            "{matchExpressions: [{key: a, operator: In, values: [b, c_]}]}",
            format!("8:75: {expression}.values[1]: \"c_\": not a valid label value"),
        ),
    ] {
        refused_peer(&format!("podSelector: {selector}"), &[&expected]);
    }
}

#[test]
fn ports_that_are_none() {
    let field = "NetworkPolicy default/web: spec.ingress[0].ports[0]";
    for (port, expected) in [
        ("port: 0", format!("8:13: {field}.port: \"0\": not a port; … 1 to 65535")),
        ("port: 65536", format!("8:13: {field}.port: \"65536\": not a port; … 1 to 65535")),
        ("port: -1", format!("8:13: {field}.port: \"-1\": not a port; … 1 to 65535")),
        ("port: 80.5", format!("8:13: {field}.port: \"80.5\": not a port; … 1 to 65535")),
        (
            "port: \"80\"",
            format!("8:13: {field}.port: \"80\": a number in quotes … without quotes: 80"),
        ),
        ("port: HTTP", format!("8:13: {field}.port: \"HTTP\": not a valid port name; … \"http\"")),
        ("port: a_b", format!("8:13: {field}.port: \"a_b\": not a valid port name")),
        ("port: 8000-8080", format!("8:13: {field}.port: \"8000-8080\": … \"endPort: 8080\"")),
        ("port: []", format!("8:13: {field}.port: \"[]\": a number is needed")),
        ("endPort: 80", format!("8:16: {field}.endPort: \"80\": endPort without port")),
        (
            "{port: http, endPort: 80}",
            format!("8:29: {field}.endPort: \"80\": endPort beside a named"),
        ),
        (
            "{port: 80, endPort: 79}",
            format!("8:27: {field}.endPort: \"79\": endPort is below port (80)"),
        ),
        ("{port: 80, endPort: 65536}", format!("8:27: {field}.endPort: \"65536\": not a port")),
        (
            "{port: 80, endPort: \"90\"}",
            format!("8:27: {field}.endPort: \"90\": a number is needed"),
        ),
        ("protocol: udp", format!("8:17: {field}.protocol: \"udp\": … write \"UDP\"")),
        ("protocol: ICMP", format!("8:17: {field}.protocol: \"ICMP\": … every protocol")),
        ("protocol: 6", format!("8:17: {field}.protocol: \"6\": a string is needed")),
        ("80", format!("8:7: {field}: \"80\": fields")),
    ] {
        refused_port(port, &[&expected]);
    }
}

#[test]
fn the_frame_of_the_object() {
    let object = "NetworkPolicy default/web";
    for (spec, expected) in [
        (
            "spec:\n  policyTypes: [ingress]\n",
            format!(
                "6:17: {object}: spec.policyTypes[0]: \"ingress\": unknown policy type; did you mean \"Ingress\"?"
            ),
        ),
        (
            "spec:\n  policyTypes: [Both]\n",
            format!("6:17: {object}: spec.policyTypes[0]: \"Both\": unknown policy type"),
        ),
        (
            "spec:\n  policyTypes: Ingress\n",
            format!("6:16: {object}: spec.policyTypes: \"Ingress\": a list"),
        ),
        (
            "spec:\n  policyTypes: [Ingress, Egress, Ingress]\n",
            format!("6:16: {object}: spec.policyTypes: \"[…]\": more than two"),
        ),
        ("spec: []\n", format!("5:7: {object}: spec: \"[]\": fields")),
        (
            "podSelector: {}\n",
            format!(
                "5:1: {object}: podSelector: \"{{}}\": unknown field \"podSelector\"; \"podSelector\" belongs in spec"
            ),
        ),
        (
            "ingress: []\n",
            format!("5:1: {object}: ingress: \"[]\": unknown field \"ingress\"; … under \"spec:\""),
        ),
        (
            "spec:\n  ingress:\n    from: []\n",
            format!("7:5: {object}: spec.ingress: \"{{from}}\": a list"),
        ),
        (
            "spec:\n  egress:\n  - from: []\n",
            format!(
                "7:5: {object}: spec.egress[0].from: \"[]\": unknown field \"from\"; … has \"to\""
            ),
        ),
        ("spec:\n  ingress:\n  -\n", format!("7:4: {object}: spec.ingress[0]: an empty list item")),
        (
            "  lables: {}\nspec: {}\n",
            format!(
                "5:3: {object}: metadata.lables: \"{{}}\": unknown field \"lables\"; did you mean \"labels\"?"
            ),
        ),
    ] {
        refused(spec, &[&expected]);
    }
}

#[test]
fn all_mistakes_of_an_object_are_reported_at_once() {
    refused(
        "spec:\n  ingress:\n  - from:\n    - ipBlock: {cidr: 10.0.0.0/64}\n    ports:\n    - port: 0\n  Egress: []\n",
        &[
            "8:23: NetworkPolicy default/web: spec.ingress[0].from[0].ipBlock.cidr",
            "10:13: NetworkPolicy default/web: spec.ingress[0].ports[0].port",
            "11:3: NetworkPolicy default/web: spec.Egress",
        ],
    );
}

fn whole(text: &str, expected: &str) {
    let dir = Dir::with("a.yaml", text);
    let batch = dir.load();
    assert_eq!(batch.changes, [], "{text}");
    let found = messages(&batch.invalid, dir.0.path());
    assert_eq!(found.len(), 1, "{text}: {found:#?}");
    assert!(found[0].starts_with(&format!("a.yaml:{expected}")), "{text}\n{}", found[0]);
}

#[test]
fn names_and_kinds() {
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n";
    whole(&format!("{policy}spec: {{}}\n"), "1:1: NetworkPolicy: metadata: missing");
    whole(&format!("{policy}metadata: {{}}\n"), "3:11: NetworkPolicy: metadata.name: missing");
    whole(
        &format!("{policy}metadata: {{name: Web}}\n"),
        "3:18: NetworkPolicy default/Web: metadata.name: \"Web\": not a valid name",
    );
    whole(
        &format!("{policy}metadata: {{name: 7}}\n"),
        "3:18: NetworkPolicy: metadata.name: \"7\": a string is needed",
    );
    whole(
        &format!("{policy}metadata: {{name: a, namespace: b.c}}\n"),
        "3:32: NetworkPolicy b.c/a: metadata.namespace: \"b.c\"",
    );
    whole("kind: Pod\nmetadata: {name: a}\n", "1:1: Pod default/a: apiVersion: missing");
    whole("apiVersion: v1\nmetadata: {name: a}\n", "1:1: kind: missing");
    whole(
        "apiVersion: v1\nkind: pod\nmetadata: {name: a}\n",
        "2:7: pod default/a: kind: \"pod\": no such kind; did you mean \"Pod\"?",
    );
    whole("- a\n- b\n", "1:1: \"- a\": a Kubernetes object is needed");
    whole("apiVersion: v1\nkind: List\nitems: {}\n", "3:8: List: items: \"{}\": a list");
}

#[test]
fn fields_that_are_read_in_other_kinds_are_strict_too() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a";
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: a}\n";
    for (text, expected) in [
        (format!("{pod}, labels: {{a: 1}}}}\n"), "3:33: Pod default/a: metadata.labels.a: \"1\""),
        (
            format!("{pod}, labels: {{a/b.c: d e}}}}\n"),
            "3:37: Pod default/a: metadata.labels[a/b.c]: \"d e\"",
        ),
        (
            format!("{pod}, creationTimestamp: now}}\n"),
            "3:40: Pod default/a: metadata.creationTimestamp: \"now\"",
        ),
        (
            format!("{pod}}}\nspec: {{hostNetwork: \"true\"}}\n"),
            "4:21: Pod default/a: spec.hostNetwork: \"true\"",
        ),
        (
            format!(
                "{pod}}}\nspec: {{containers: [{{ports: [{{name: A, containerPort: 1}}]}}]}}\n"
            ),
            "4:37: Pod default/a: spec.containers[0].ports[0].name: \"A\"",
        ),
        (
            format!("{pod}}}\nstatus: {{phase: Done}}\n"),
            "4:17: Pod default/a: status.phase: \"Done\"",
        ),
        (
            format!("{pod}}}\nstatus: {{podIP: 10.0.0.1/32}}\n"),
            "4:17: Pod default/a: status.podIP: \"10.0.0.1/32\"",
        ),
        (
            format!("{pod}}}\nstatus: {{podIPs: [{{ip: 10.0.0.1}}, {{ip: 10.0.0.2}}]}}\n"),
            "4:40: Pod default/a: status.podIPs[1].ip: \"10.0.0.2\": a second",
        ),
        (
            format!("{pod}}}\nstatus: {{podIPs: [10.0.0.1]}}\n"),
            "4:19: Pod default/a: status.podIPs[0]: \"10.0.0.1\": fields",
        ),
        (
            format!("{node}spec: {{podCIDRs: [10.0.0.0]}}\n"),
            "4:19: Node a: spec.podCIDRs[0]: \"10.0.0.0\"",
        ),
        (
            format!("{node}status: {{addresses: [{{type: InternalIP, address: node-1}}]}}\n"),
            "4:50: Node a: status.addresses[0].address: \"node-1\"",
        ),
    ] {
        whole(&text, expected);
    }
}
