//! What documents show of np-agent's output is what it prints.

use std::fs;
use std::path::Path;
use std::process::Command;

use np_tests::agent::agent_binary;

/// The blocks of a page that show a command and its output.
fn shown(page: &str) -> Vec<(String, String)> {
    let blocks = page.split("```console\n").skip(1);
    let blocks = blocks.map(|rest| rest.split("```").next().unwrap_or(rest));
    let blocks = blocks.filter_map(|block| block.strip_prefix("$ ")?.split_once('\n'));
    blocks.map(|(command, output)| (command.to_owned(), output.to_owned())).collect()
}

#[test]
fn commands_print_what_documents_show() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    // The documents call the fixture `policies/`.
    let place = tempfile::tempdir().expect("a directory");
    fs::create_dir(place.path().join("policies")).expect("it is ours");
    let fixture = root.join("tests/fixtures/explain/cluster.yaml");
    fs::copy(fixture, place.path().join("policies/cluster.yaml")).expect("the fixture");
    let mut seen = 0;
    for document in ["README.md", "docs/EXPLAIN.md"] {
        let page = fs::read_to_string(root.join(document)).expect(document);
        for (command, output) in shown(&page) {
            let words = command.split_whitespace().skip(1);
            let ran = Command::new(agent_binary().expect("the agent is built"))
                .args(words)
                .current_dir(place.path())
                .output()
                .expect("it starts");
            let said = String::from_utf8_lossy(&ran.stdout);
            assert_eq!(said, output, "{document}: {command}");
            seen += 1;
        }
    }
    assert!(seen >= 3, "{seen} outputs");
}
