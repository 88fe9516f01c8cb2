//! A text means what kubectl makes of it, or it is refused: there is no third reading.
//!
//! What kubectl 1.32 makes of each text here was asked by
//! `kubectl annotate --local -f FILE a=b -o json`, which needs no cluster.

use np_policy::model::{Object, Pod, PortMatch, Ports, Protocol};

use crate::support::{Dir, HEAD, changes, messages, policy, read};

/// Unquoted, kubectl takes these for something that is not a string.
const TYPED: &str = "\
    on On ON yes Yes YES y Y true True TRUE off OFF Off no No NO n N false False FALSE \
    null Null NULL ~ \
    0 010 0o10 0O10 0x10 0X1F 0b11 0B11 1_000 1__0 1_ 9_ 08 09 0_7 +1 -1 -0 1.10 1.0 1. .5 +.5 \
    -.5 1e3 1E3 1e+3 1.5e3 1e-7 1.e3 .5e1 .5_0 .inf .Inf .INF -.inf +.inf .nan .NaN .NAN 1_0.5 \
    9223372036854775807 9223372036854775808 18446744073709551615 18446744073709551616 \
    99999999999999999999 -9223372036854775808 0xffffffffffffffff 077777 0777_7 123456789012 \
    1234567.0 0.1 1e21 1e20 100000000000000000000000.0 -0x10 +0x10 -010 0x_1 0b1_1 -0b11 +010 \
    0.0 -0.0 00 000 0_ 1e3_0 1_000.5e1_0 0b-1 0b+1 1.7976931348623157e308";

/// And these for strings, of which those without a colon may be a label's key and value.
const STRINGS: &str = "\
    oN yEs nO tRue nUll 0xg 0b12 1e400 1:30 1:30:15 190:20:30 190:20:30.15 12:30.5 2024-01-01 \
    2024-01-01T00:00:00Z 2024-1-1 2001-12-14T21:59:43.1-05:00 0b 0x 0o8 1e 1.2.3 infinity nan inf \
    0x1.8p3 0x1p3 0o-1 0x-1 0xFFFFFFFFFFFFFFFFF 1e309 0b102 00x1 1-2 a = .. _1 -1e309";

fn pod(metadata: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n{metadata}")
}

fn labels(metadata: &str) -> Vec<(String, String)> {
    match read(&pod(metadata)) {
        Object::Pod(Pod { labels, .. }) => {
            labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
        }
        other => panic!("not a pod: {other:?}"),
    }
}

fn refusals(text: &str) -> Vec<String> {
    let dir = Dir::with("a.yaml", text);
    let batch = dir.load();
    assert_eq!(batch.changes, [], "{text}");
    messages(&batch.invalid, dir.0.path())
}

#[test]
fn a_name_that_kubectl_takes_for_something_else_is_refused() {
    for form in TYPED.split_whitespace() {
        for map in ["labels", "annotations"] {
            let text = pod(&format!("  {map}:\n    {form}: v\n"));
            let found = refusals(&text);
            let remedy = format!("another name; put the name in quotes: \"{form}\":");
            assert!(
                found.len() == 1
                    && found[0].starts_with("a.yaml:6:5: Pod default/a: metadata.")
                    && found[0].contains("without quotes kubectl reads this name as ")
                    && found[0].ends_with(&remedy),
                "{form}: {found:#?}"
            );
            let quoted = pod(&format!("  {map}:\n    \"{form}\": v\n    'a': w\n"));
            let refused = Dir::with("a.yaml", quoted).load().invalid;
            let valid = map == "annotations"
                || form.ends_with(|c: char| c.is_ascii_alphanumeric())
                    && form.starts_with(|c: char| c.is_ascii_alphanumeric())
                    && !form.contains('+');
            assert_eq!(refused.is_empty(), valid, "{form}: {refused:#?}");
        }
        let text = format!("{HEAD}spec:\n  podSelector: {{matchLabels: {{? {form} : v}}}}\n");
        let found = refusals(&text);
        assert!(found.len() == 1 && found[0].ends_with("\":"), "{form}: {found:#?}");
    }
}

#[test]
fn a_value_that_kubectl_takes_for_something_else_is_refused() {
    for form in TYPED.split_whitespace() {
        for value in [form.to_owned(), format!("&x {form}")] {
            let found = refusals(&pod(&format!("  labels:\n    k: {value}\n")));
            let field = "Pod default/a: metadata.labels.k";
            assert!(found.len() == 1 && found[0].contains(field), "{value}: {found:#?}");
        }
    }
}

#[test]
fn a_name_or_value_that_kubectl_takes_for_a_string_is_one() {
    for form in STRINGS.split_whitespace() {
        let valid = form.starts_with(|c: char| c.is_ascii_alphanumeric())
            && form.ends_with(|c: char| c.is_ascii_alphanumeric())
            && !form.contains(':');
        if !valid {
            // What is said of it shows that it was taken for a string.
            let found = refusals(&pod(&format!("  labels:\n    k: {form}\n")));
            let problem = format!("labels.k: {form:?}: not a valid label value");
            assert!(found.len() == 1 && found[0].contains(&problem), "{found:#?}");
            continue;
        }
        let found = labels(&format!("  labels:\n    {form}: {form}\n"));
        assert_eq!(found, [(form.to_owned(), form.to_owned())]);
    }
}

#[test]
fn a_word_that_kubectl_takes_for_a_boolean_is_one() {
    for (words, expected) in [("yes On y TRUE", true), ("no off N False", false)] {
        for word in words.split(' ') {
            let Object::Pod(pod) = read(&pod(&format!("spec: {{hostNetwork: {word}}}\n"))) else {
                panic!("not a pod");
            };
            assert_eq!(pod.host_network, expected, "{word}");
        }
    }
}

/// kubectl reads 010 as 8, and YAML 1.2 as 10: neither is taken.
#[test]
fn a_number_that_is_read_in_two_ways_is_no_port() {
    for port in ["0443", "010", "0x50", "0o120", "0b11", "1_0", "+80", "80.0", "8e1"] {
        let found =
            refusals(&format!("{HEAD}spec: {{ingress: [{{ports: [{{port: {port}}}]}}]}}\n"));
        let problem = format!("ports[0].port: {port:?}: not a port");
        assert!(found.len() == 1 && found[0].contains(&problem), "{found:#?}");
    }
}

const ANCHORS: &str = "\
ingress:
- ports:
  - &dns {protocol: UDP, port: 53}
  - &web {protocol: TCP, port: 80}
  - &range {<<: *dns, endPort: 60}
";

#[test]
fn a_merge_key_assigns_where_it_is_written() {
    for (port, expected) in [
        ("{protocol: TCP, <<: *dns}", (Protocol::Udp, 53, 53)),
        ("{<<: *dns, protocol: TCP}", (Protocol::Tcp, 53, 53)),
        ("{<<: *web, <<: *dns}", (Protocol::Udp, 53, 53)),
        ("{<<: *dns, <<: *web}", (Protocol::Tcp, 80, 80)),
        ("{<<: [*web, *dns]}", (Protocol::Tcp, 80, 80)),
        ("{<<: [*dns, *web], port: 7}", (Protocol::Udp, 7, 7)),
        ("{<<: *range, port: 50}", (Protocol::Udp, 50, 60)),
        ("{port: 9, <<: *range}", (Protocol::Udp, 53, 60)),
        ("{<<: {port: 5}, protocol: UDP}", (Protocol::Udp, 5, 5)),
        ("{port: null, <<: *dns}", (Protocol::Udp, 53, 53)),
        ("{<<: [], port: 1}", (Protocol::Tcp, 1, 1)),
        ("{<<: [{port: 5}, *dns]}", (Protocol::Udp, 5, 5)),
        ("{port: 1, <<: {port: 3, <<: *dns}}", (Protocol::Udp, 53, 53)),
        ("{!!merge <<: *dns, endPort: 99}", (Protocol::Udp, 53, 99)),
    ] {
        let policy = policy(&format!("{ANCHORS}  - {port}\n"));
        let rule = &policy.ingress.as_ref().unwrap()[0];
        let PortMatch { protocol, ports } = rule.ports.as_ref().unwrap().last().unwrap();
        let (given, first, last) = expected;
        assert_eq!((*protocol, ports), (given, &Ports::Range(first, last)), "{port}");
    }
}

#[test]
fn what_kubectl_does_not_merge_is_refused() {
    let spec: String = ANCHORS.lines().map(|line| format!("  {line}\n")).collect();
    for (port, problem) in [
        ("{<<: 5, port: 1}", "\"<<\" merges fields, and this has none; give \"<<\" an alias"),
        ("{<<: null, port: 1}", "\"<<\" merges fields"),
        ("{<<: [*dns, 5], port: 1}", "\"<<\" merges fields"),
        ("{<<: [[*dns]], port: 1}", "\"<<\" merges fields"),
        ("{'<<': *dns, port: 1}", "unknown field \"<<\""),
        ("{<<: *dns, port: 1, port: 2}", "\"port\" appears twice"),
        ("{<<: {port: 1, port: 2}}", "\"port\" appears twice"),
        ("{<<: *nothing, port: 1}", "a.yaml:11:"),
    ] {
        let found = refusals(&format!("{HEAD}spec:\n{spec}    - {port}\n"));
        assert!(found.iter().any(|found| found.contains(problem)), "{port}: {found:#?}");
    }
}

#[test]
fn labels_are_merged_like_any_fields() {
    let text = "\
apiVersion: v1
kind: Pod
metadata:
  name: a
  annotations: &x {app: web, tier: front}
  labels: {tier: back, <<: *x, app: db}
";
    let Object::Pod(pod) = read(text) else { panic!("not a pod") };
    let labels: Vec<_> = pod.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(labels, ["app=db", "tier=front"]);
}

const BOM: &str = "\u{feff}";

fn yaml(name: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n")
}

fn json(name: &str) -> String {
    format!(
        r#"{{"apiVersion": "v1", "kind": "Pod", "metadata":
            {{"name": "{name}", "annotations": {{"a": "\/ \ud83d\ude00"}}}}}}"#
    )
}

#[test]
fn a_byte_order_mark_may_stand_before_any_document() {
    let (a, b) = (yaml("a"), yaml("b"));
    for text in [
        format!("{BOM}{a}---\n{BOM}{b}"),
        format!("{BOM}---\n{a}---\n\n# c\n{BOM}{b}"),
        format!("{a}---\n{BOM}---\n{b}"),
        format!("{a}{BOM}---\n{b}"),
        format!("{BOM}{BOM}{a}---\n{b}"),
        format!("{BOM}{}\n---\n{BOM}{}\n", json("a"), json("b")),
        format!("{BOM}%YAML 1.1\n---\n{a}---\n{b}"),
    ] {
        let batch = Dir::with("a.yaml", &text).load();
        assert_eq!(batch.invalid, [], "{text}");
        assert_eq!(changes(&batch), ["+Pod default/a", "+Pod default/b"], "{text}");
    }
}

#[test]
fn json_objects_may_follow_each_other() {
    let (a, b) = (json("a"), json("b"));
    for text in [
        format!("{a}\n{b}\n"),
        format!("{a}{b}"),
        format!("\n  {a}  {b}\n\n"),
        format!("---\n{a}\n---\n{b}\n"),
        format!("{}---\n{a}\n{b}", yaml("c")),
        format!(r#"{{"apiVersion":"v1","kind":"List","items":[{a}]}}{b}"#),
        format!(
            "{{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"PodList\",\n\t\"items\": [{a},\n\t{b}]\n}}"
        ),
    ] {
        let dir = Dir::with("a.json", &text);
        dir.write("b.yaml", yaml("c"));
        let batch = dir.load();
        let found = changes(&batch);
        assert_eq!(found[..2], ["+Pod default/a", "+Pod default/b"], "{text}");
    }
    // Each keeps its own place, and a bad one hides no other.
    let dir = Dir::with("a.json", format!("{a}\n\n {} {b}", r#"{"kind": "Pod", "kind": "Pod"}"#));
    let batch = dir.load();
    assert_eq!(changes(&batch), ["+Pod default/a", "+Pod default/b"]);
    let found = messages(&batch.invalid, dir.0.path());
    assert!(found[0].starts_with("a.json:4:2: Pod: apiVersion: missing"), "{found:#?}");
}

#[test]
fn what_is_not_json_throughout_is_yaml() {
    let text = "{apiVersion: v1, kind: Pod, metadata: {name: a, annotations: {b: '} {'}}}\n";
    assert_eq!(changes(&Dir::with("a.yaml", text).load()), ["+Pod default/a"]);
    for text in [
        format!("{},\n{}", json("a"), json("b")),
        format!("{}\n{}", json("a"), yaml("b")),
        format!("{text}{text}"),
    ] {
        let found = refusals(&text);
        assert_eq!(found.len(), 1, "{text}\n{found:#?}");
    }
}
