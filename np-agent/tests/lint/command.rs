//! The command: what it prints and how it exits.

use std::path::Path;
use std::process::{Command, Output};

use np_policy::lint::{Code, document};

use super::support::policy;

fn np_agent(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_np-agent")).arg("lint").args(args).output().unwrap()
}

fn file(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

const SERVICE_BLOCK: &str = "
podSelector: {}
policyTypes: [Ingress]
ingress:
- from: [{ipBlock: {cidr: 10.96.0.0/12}}]
- ports: [{port: 80}, {port: 80}]";

#[test]
fn exit_codes_follow_the_severity() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "a.yaml", &policy(SERVICE_BLOCK, &[]));
    let code = |args: &[&str]| np_agent(args).status.code();
    // Without the range there is only the repeated port, which is information.
    assert_eq!(code(&[&path]), Some(0));
    assert_eq!(code(&[&path, "--fail-on", "info"]), Some(1));
    let range = ["--service-cidr", "10.96.0.0/12,fd00:10:96::/112"];
    assert_eq!(code(&[&path, range[0], range[1]]), Some(1));
    assert_eq!(code(&[&path, range[0], range[1], "--fail-on", "error"]), Some(0));
    assert_eq!(code(&[&path, range[0], range[1], "--fail-on", "never"]), Some(0));
}

#[test]
fn refused_manifests_are_errors_and_hide_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    file(dir.path(), "a.yaml", &policy("podSelektor: {}", &[]));
    let other = policy("podSelector: {}\negress: []", &[]);
    file(dir.path(), "b.yaml", &other.replace("name: web", "name: other"));
    let output = np_agent(&[dir.path().to_str().unwrap(), "--fail-on", "error"]);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("error    NP001 refused"), "{text}");
    assert!(text.contains("podSelector"), "{text}");
    assert!(text.contains("warning  NP402 egress-not-isolated"), "{text}");
    assert!(
        text.contains("1 error, 1 warning, 0 info, 2 files with findings, 1 policy read"),
        "{text}"
    );
}

#[test]
fn unreadable_input_is_not_a_clean_one() {
    let output = np_agent(&["/nowhere/at/all"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("/nowhere/at/all"));
}

#[test]
fn json_is_an_array_of_findings() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "a.yaml", &policy(SERVICE_BLOCK, &[]));
    let output = np_agent(&[&path, "--service-cidr", "10.96.0.0/12", "-o", "json"]);
    let findings: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let first = &findings[0];
    assert_eq!(first["file"], path);
    assert_eq!((&first["line"], &first["column"]), (&9.into(), &29.into()));
    assert_eq!(first["code"], "NP101");
    assert_eq!(first["name"], "service-cidr");
    assert_eq!(first["severity"], "warning");
    assert_eq!(first["object"], "NetworkPolicy default/web");
    assert_eq!(first["field"], "spec.ingress[0].from[0].ipBlock.cidr");
    for field in ["message", "remedy"] {
        assert!(first[field].as_str().is_some_and(|text| !text.is_empty()), "{field}");
    }
    let clean = file(dir.path(), "b.yaml", &policy("podSelector: {}", &[]));
    assert_eq!(text(&np_agent(&[&clean, "-o", "json"])).trim(), "[]");
}

/// A policy is judged with what other files say.
#[test]
fn files_and_directories_are_read_together() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "a.yaml", &policy(SERVICE_BLOCK, &[]));
    let range = "{apiVersion: networking.k8s.io/v1, kind: ServiceCIDR, metadata: {name: a}, spec: \
                 {cidrs: [10.96.0.0/12]}}";
    let other = tempfile::tempdir().unwrap();
    file(other.path(), "range.yaml", range);
    assert_eq!(np_agent(&[&path, other.path().to_str().unwrap()]).status.code(), Some(1));
    // The same file once more is not a second policy of the same name.
    let again = np_agent(&[&path, dir.path().to_str().unwrap(), "--fail-on", "error"]);
    assert_eq!(again.status.code(), Some(0), "{}", text(&again));
}

#[test]
fn a_code_explains_itself() {
    let listed = text(&np_agent(&["--codes"]));
    for code in Code::ALL {
        let entry = code.entry();
        assert!(listed.contains(entry.id) && listed.contains(entry.name));
        let told = text(&np_agent(&["--explain", entry.id]));
        assert!(told.contains(entry.example.bad()) && told.contains(entry.remedy), "{told}");
    }
    assert_eq!(text(&np_agent(&["--explain", "all"])), document());
    assert_eq!(np_agent(&["--explain", "NP999"]).status.code(), Some(1));
}

/// As `head` leaves, of this command and any other.
#[test]
fn a_reader_that_leaves_ends_no_command() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().to_str().unwrap();
    for args in [&["lint", "--codes"][..], &["check", "--pin-dir", dir, "--run-dir", dir]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_np-agent"));
        let output = command.args(args).stdout(writer).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !said.contains("panicked") && !said.contains("standard output"),
            "{args:?}: {said}"
        );
        assert!(output.status.code().is_some_and(|code| code < 2), "{args:?}: {output:?}");
    }
}
