//! The documentation of the codes, made from their table.

use super::code::{Code, Entry};

/// Describes all codes, as in `docs/LINT.md`.
pub fn document() -> String {
    let mut text = INTRODUCTION.to_owned();
    text.push_str("\n| code | name | at most | |\n|---|---|---|---|\n");
    for code in Code::ALL {
        let Entry { id, name, severity, summary, .. } = code.entry();
        text.push_str(&format!(
            "| [{id}](#{}-{name}) | {name} | {severity} | {summary} |\n",
            id.to_lowercase()
        ));
    }
    for code in Code::ALL {
        text.push('\n');
        text.push_str(&section(*code));
    }
    text
}

/// One code.
pub fn section(code: Code) -> String {
    let Entry { id, name, severity, summary, explanation, remedy, example } = code.entry();
    let mut text = format!(
        "## {id} {name}\n\n{summary} At most: {severity}.\n\n{}\n\n**Remedy.** {remedy}\n",
        wrapped(explanation)
    );
    for (title, yaml) in [
        ("Flagged:", example.bad()),
        ("Not flagged:", example.good()),
        ("Context of both:", example.given()),
    ] {
        if !yaml.is_empty() {
            text.push_str(&format!("\n{title}\n\n```yaml\n{yaml}```\n"));
        }
    }
    text
}

const INTRODUCTION: &str = "\
# Lint

`np-agent lint FILE|DIR...` reads manifests and reports which of them are malformed, and which
policies are valid but probably mistakes. It needs neither a cluster nor root. It knows only what it
is given: with Pods (or Deployments and the like), Namespaces, Services and Nodes, such as
`kubectl get pods,namespaces,services,nodes -A -o yaml` prints, it finds more. A finding that needs
evidence is not reported without it.

Exit code: 0 when there is no finding of the severity of `--fail-on` (default: warning) or above, 1
when there is, 2 when the input cannot be read. `-o json` prints an array of findings with `file`,
`line`, `column`, `code`, `name`, `severity`, `object`, `field`, `message` and `remedy`.
`np-agent lint --explain CODE` prints one of the sections below; `--explain all` prints this document.
";

/// Lines of at most 100 characters.
fn wrapped(text: &str) -> String {
    const WIDTH: usize = 100;
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}
