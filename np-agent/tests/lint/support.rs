//! Manifests in, findings out.

use np_agent::source::{self, Invalid};
use np_policy::index::{Index, Touched};
use np_policy::lint::{self, Code, Finding, Severity};
use tempfile::TempDir;

/// What is refused, and what is found about the rest.
pub struct Linted {
    pub refused: Vec<Invalid>,
    pub findings: Vec<Finding>,
}

pub fn lint(text: &str) -> Linted {
    let dir: TempDir = tempfile::tempdir().unwrap();
    let file = dir.path().join("manifests.yaml");
    std::fs::write(&file, text).unwrap();
    let batch = source::read(&[file]).unwrap();
    let mut index = Index::default();
    for change in batch.changes {
        index.apply(change, &mut Touched::default());
    }
    Linted { refused: batch.invalid, findings: lint::check(&index, &batch.background) }
}

/// Findings about manifests of which none is refused.
pub fn findings(text: &str) -> Vec<Finding> {
    let Linted { refused, findings } = lint(text);
    assert_eq!(refused, [], "{text}");
    findings
}

pub fn of(code: Code, findings: &[Finding]) -> Vec<&Finding> {
    findings.iter().filter(|finding| finding.code == code).collect()
}

pub fn above_info(findings: &[Finding]) -> Vec<String> {
    let above = findings.iter().filter(|finding| finding.severity > Severity::Info);
    above.map(ToString::to_string).collect()
}

/// A policy `default/web` with this spec, and other documents.
pub fn policy(spec: &str, others: &[&str]) -> String {
    let spec: String = spec.trim_matches('\n').lines().map(|line| format!("  {line}\n")).collect();
    let head =
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: web\nspec:\n";
    let others: String = others.iter().map(|other| format!("---\n{other}\n")).collect();
    format!("{head}{spec}{others}")
}

/// A pod with labels and addresses, both as in a flow list.
pub fn pod(namespace: &str, name: &str, labels: &str, addresses: &[&str]) -> String {
    let addresses: Vec<String> =
        addresses.iter().map(|addr| format!("{{ip: \"{addr}\"}}")).collect();
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {namespace}, labels: \
         {{{labels}}}}}, status: {{podIPs: [{}]}}}}",
        addresses.join(", ")
    )
}

pub fn pod_with_ports(name: &str, labels: &str, ports: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{{labels}}}}}, spec: \
         {{containers: [{{name: main, ports: [{ports}]}}]}}}}"
    )
}

pub fn namespace(name: &str, labels: &str) -> String {
    format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{{labels}}}}}}}")
}

pub fn service(name: &str, selector: &str, rest: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{selector: \
         {{{selector}}}, {rest}}}}}"
    )
}

/// All findings as "NP101 warning".
pub fn all(text: &str) -> Vec<String> {
    let shown = |finding: &Finding| format!("{} {}", finding.code.entry().id, finding.severity);
    findings(text).iter().map(shown).collect()
}

/// Asserts what is found about one spec in several worlds.
pub fn table(spec: &str, rows: &[(&str, &[&str], &[&str])]) {
    for (title, others, expected) in rows {
        assert_eq!(all(&policy(spec, others)), *expected, "{title}\n{}", policy(spec, others));
    }
}

pub fn from(items: &str) -> String {
    let items: String = items.lines().map(|line| format!("  {line}\n")).collect();
    format!("podSelector: {{}}\npolicyTypes: [Ingress]\ningress:\n- from:\n{items}")
}

pub fn block(cidr: &str) -> String {
    from(&format!("- ipBlock: {{cidr: \"{cidr}\"}}"))
}
