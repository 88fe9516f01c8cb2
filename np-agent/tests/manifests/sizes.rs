//! Files of any size: a list is read item by item, and says the same as when it is read whole.

use np_agent::source::Batch;

use crate::support::{Dir, changes, messages};

/// Enough filling for every list to be large.
const LARGE: usize = 1 << 20;

fn filling(items: usize) -> String {
    "x".repeat(LARGE / items + 1)
}

/// A List as kubectl prints it, of items whose lines are given.
fn block(items: &[String], tail: &str) -> String {
    let mut text = "apiVersion: v1\nitems:\n".to_owned();
    for item in items {
        let mut begin = "- ";
        for line in item.lines() {
            text.push_str(&format!("{begin}{line}\n"));
            begin = "  ";
        }
    }
    text + tail
}

fn pod(name: &str, filling: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  annotations:\n    long: {filling}\n    text: |\n      - \
         a\n\n      kind: List\n  name: {name}\n{more}"
    )
}

/// The batch, and its messages with the name of the file.
fn load(name: &str, text: &str) -> (Batch, Vec<String>) {
    let dir = Dir::with(name, text);
    let batch = dir.load();
    let found = messages(&batch.invalid, dir.0.path());
    (batch, found)
}

const KIND: &str = "kind: List\nmetadata: {resourceVersion: \"\"}\n";

#[test]
fn a_large_list_says_what_a_small_one_says() {
    let long = filling(3);
    let items = |filling: &str| {
        [
            pod("a", filling, "status: {podIP: 10.0.0.1}\n"),
            pod("b", filling, "status: {podIP: 10.0.0.300}\n"),
            pod("c", filling, "spec:\n  nodeName: n\n   x: [\n"),
            "kind: Pod\nmetadata: {}".to_owned(),
            "5".to_owned(),
            pod("d", filling, "---- : &a 1\n"),
        ]
    };
    let good = |filling: &str| {
        let [a, b, _, d, e, f] = items(filling);
        [a, b, d, e, f]
    };
    let (small, small_found) = load("a.yaml", &block(&good("x"), KIND));
    let (large, large_found) = load("a.yaml", &block(&good(&long), KIND));
    assert_eq!(small.changes, large.changes);
    assert_eq!(changes(&large), ["+Pod default/a", "+Pod default/d"]);
    // With its line and column, and its number in the list.
    assert_eq!(small_found, large_found);
    let expected =
        "a.yaml:24:19: Pod default/b: items[1].status.podIP: \"10.0.0.300\": not an IP address";
    assert!(large_found[0].starts_with(expected), "{large_found:#?}");
    // A small list with an item that is not YAML is lost as a whole, a large one is not.
    let (large, found) = load("a.yaml", &block(&items(&long), KIND));
    assert_eq!(changes(&large), ["+Pod default/a", "+Pod default/d"]);
    let expected = "a.yaml:37:7: items[2].spec.x: \"x: [\": not YAML: ";
    assert!(found[1].starts_with(expected), "{found:#?}");
}

#[test]
fn every_shape_of_a_large_list_is_read() {
    let items = [pod("a", &filling(2), ""), pod("b", &filling(2), "")];
    let typed =
        ["metadata: {name: a}".to_owned(), format!("x: {}\nmetadata: {{name: b}}", filling(1))];
    let indented = |text: String| text.replace('\n', "\n  ").replace("  items:", "items:") + "\n";
    let json = |name: &str| {
        format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","annotations":
                {{"x":"]}} {{{}"}}}}}}"#,
            filling(2)
        )
    };
    let (a, b) = (json("a"), json("b"));
    for text in [
        block(&items, KIND),
        format!("{KIND}{}", block(&items, "")),
        format!("# c\n%YAML 1.1\n---\n{}---\n{}", block(&items, KIND), "# e\n"),
        format!("\u{feff}{}...\n", block(&items, KIND)),
        indented(block(&items, "")) + KIND,
        block(&items, KIND).replace('\n', "\r\n"),
        block(&typed, "kind: PodList\n"),
        format!(r#"{{"apiVersion":"v1","items":[{a},{b}],"kind":"List"}}"#),
        format!(
            "{{\n\t\"kind\":\"List\",\n\t\"apiVersion\":\"v1\",\"items\":\n[\n{a}\n,\n{b} ]\n}}\n"
        ),
        format!("{a}\n{b}\n"),
        format!("\u{feff}{a}{b}"),
    ] {
        let (batch, found) = load("a.yaml", &text);
        assert_eq!(found, [""; 0], "{}", &text[..60]);
        assert_eq!(changes(&batch), ["+Pod default/a", "+Pod default/b"], "{}", &text[..60]);
    }
}

#[test]
fn the_places_of_a_large_json_list_are_those_of_the_file() {
    let bad = r#"{"kind":"Pod","metadata":{"name":"é","x":1}}"#;
    let long = filling(1);
    let text = format!(
        "{{\"apiVersion\":\"v1\",\"items\":[{{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"x\":\"{long}\"}}, \
         {bad},\n {bad}],\"kind\":\"List\",\"kind\":\"List\"}}"
    );
    let (_, found) = load("a.json", &text);
    let column = text.lines().nth(1).unwrap().rfind("\"kind\"").unwrap();
    assert_eq!(found.len(), 1, "{found:#?}");
    // One of the two characters before it takes two bytes.
    let place = format!("a.json:2:{column}: List: kind: ");
    assert!(found[0].starts_with(&place) && found[0].contains("twice"), "{place} {found:#?}");
    let (_, found) = load("a.json", &text.replace(",\"kind\":\"List\"}", "}"));
    let column = text.find("{\"kind\":\"Pod\"").unwrap() + 1;
    assert!(
        found[0].starts_with(&format!("a.json:1:{column}: Pod default/é: items[1].")),
        "{found:#?}"
    );
    assert!(found.iter().any(|found| found.starts_with("a.json:2:2: Pod default/é: items[2].")));
}

#[test]
fn what_only_looks_like_a_large_list_is_not_taken_for_one() {
    let items = [pod("a", &filling(2), ""), pod("b", &filling(2), "")];
    let config = block(&items, "kind: ConfigMap\n");
    let (batch, found) = load("a.yaml", &config);
    assert_eq!((changes(&batch), batch.ignored, found), (vec![], 1, vec![]));
    let (batch, found) = load("a.yaml", &block(&items, "kind: Pod\nmetadata: {name: c}\n"));
    assert_eq!(changes(&batch), [""; 0]);
    assert!(found[0].contains("no such object has \"items\""), "{found:#?}");
    let (batch, found) = load("a.yaml", &block(&items, "kind: List\nitems: []\n"));
    assert_eq!(changes(&batch), [""; 0]);
    assert!(found[0].contains("items: \"[]\": appears twice here"), "{found:#?}");
    // A quotation that is not indented makes no item.
    let text = block(&items, KIND).replacen("    text: |\n", "    text: \"\n- x\n\"\n", 1);
    let (batch, found) = load("a.yaml", &text);
    assert_eq!((changes(&batch), found.len()), (vec![], 1), "{found:#?}");
}

/// As `kubectl get pods -A -o yaml` prints a cluster of 3,000 pods: 20 MiB.
#[test]
fn a_list_of_any_length_is_read() {
    let filling = "x".repeat(7_000);
    let items: Vec<_> = (0..3_000).map(|i| pod(&format!("p{i}"), &filling, "")).collect();
    let (batch, found) = load("a.yaml", &block(&items, KIND));
    assert_eq!((batch.changes.len(), found), (3_000, vec![]));
}
