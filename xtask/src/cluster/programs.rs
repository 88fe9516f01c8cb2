//! What Go builds of a cluster: Kubernetes, CoreDNS, flannel and Helm, from the Go module proxy in the
//! versions that the go.mod files below tests/cluster name.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::places::Places;
use crate::setup;
use crate::shell::{self, step};
use crate::workspace;

const KUBERNETES: &str = "tests/cluster";

// Modules of their own: each needs other versions of the same packages.
const HELM: &str = "tests/cluster/helm";
const COREDNS: &str = "tests/cluster/coredns";
const FLANNEL: &str = "tests/cluster/flannel";
const FLANNEL_PLUGIN: &str = "tests/cluster/flannel-plugin";

/// Without what only a debugger reads.
const STRIPPED: &str = "-s -w";

/// Kubernetes' version, as `1.36.3`.
pub fn version() -> Result<String> {
    version_of("k8s.io/kubernetes", KUBERNETES)
}

/// CoreDNS' version.
pub fn coredns_version() -> Result<String> {
    version_of("github.com/coredns/coredns", COREDNS)
}

fn version_of(module: &str, ours: &str) -> Result<String> {
    let path = workspace::root().join(ours).join("go.mod");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let version = required(&text, module);
    Ok(version.with_context(|| format!("{} names no {module}", path.display()))?.to_owned())
}

/// The version, without its `v`, that a go.mod requires of a module.
fn required<'a>(go_mod: &'a str, module: &str) -> Option<&'a str> {
    go_mod.lines().find_map(|line| {
        let line = line.trim().trim_start_matches("require ");
        line.strip_prefix(module)?.strip_prefix(" v")?.split_whitespace().next()
    })
}

/// Builds what a cluster runs: every tool of the go.mod, and what is in our own packages.
pub fn build(places: &Places) -> Result<()> {
    let mut command = compiler("build", KUBERNETES, places)?;
    command
        .args(["-ldflags", &linker_flags(&version()?), "-o"])
        .arg(places.bin().join(""))
        .args(["tool", "./pause"]);
    compile("building Kubernetes (from nothing about ten minutes on two processors)", command)?;
    let coredns = compiler("build", COREDNS, places)?;
    tool(coredns, "coredns", "building CoreDNS (from nothing about two minutes)", places)
}

/// Builds flannel's daemon, and the plugin that reads what the daemon writes. Both projects name their
/// program `flannel`; on a node the daemon is `flanneld`.
pub fn build_flannel(places: &Places) -> Result<()> {
    let mut daemon = compiler("build", FLANNEL, places)?;
    if cfg!(target_arch = "x86_64") {
        // As flannel's own Makefile: a backend that we do not use is partly C there.
        daemon.env("CGO_ENABLED", "1");
    }
    tool(daemon, "flanneld", "building flannel (from nothing about two minutes)", places)?;
    let plugin = compiler("build", FLANNEL_PLUGIN, places)?;
    tool(plugin, "cni/flannel", "building flannel's CNI plugin", places)
}

/// Where the source of agnhost is: its image has files from there.
pub fn agnhost_source(places: &Places) -> Result<PathBuf> {
    let mut command = go("list", KUBERNETES, places)?;
    command.args(["-f", "{{.Dir}}", "k8s.io/kubernetes/test/images/agnhost"]);
    Ok(shell::capture(&mut command)?.trim().into())
}

/// Builds the suite that Kubernetes tests network policies with.
pub fn build_suite(places: &Places) -> Result<PathBuf> {
    let suite = places.program("e2e.test");
    let mut command = compiler("test", KUBERNETES, places)?;
    command.args(["-ldflags", &linker_flags(&version()?), "-c", "-o"]).arg(&suite).arg("./e2e");
    compile("building Kubernetes' end-to-end tests", command)?;
    Ok(suite)
}

/// Builds Helm.
pub fn build_helm(places: &Places) -> Result<()> {
    let helm = compiler("build", HELM, places)?;
    tool(helm, "helm", "building Helm (from nothing about three minutes on two processors)", places)
}

/// Builds the one tool of a module of ours.
fn tool(mut command: Command, program: &str, what: &str, places: &Places) -> Result<()> {
    command.args(["-ldflags", STRIPPED, "-o"]).arg(places.program(program)).arg("tool");
    compile(what, command)
}

/// Go as it builds; it names each package.
fn compiler(verb: &str, module: &str, places: &Places) -> Result<Command> {
    let mut command = go(verb, module, places)?;
    command.args(["-v", "-trimpath", "-buildvcs=false"]);
    Ok(command)
}

fn go(verb: &str, module: &str, places: &Places) -> Result<Command> {
    let go_mod = workspace::root().join(module).join("go.mod");
    let go = setup::go::ensure(&go_mod, &setup::tools_dir()?)?;
    let bin = places.bin();
    fs::create_dir_all(&bin).with_context(|| format!("making {}", bin.display()))?;
    let mut command = Command::new(go);
    command
        .arg(verb)
        // Static: images have no libraries.
        .env("CGO_ENABLED", "0")
        .current_dir(workspace::root().join(module));
    Ok(command)
}

/// The programs ask each other for their versions.
fn linker_flags(version: &str) -> String {
    let minor = version.split('.').nth(1).unwrap_or_default();
    let packages = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"];
    packages.iter().fold(STRIPPED.to_owned(), |flags, package| {
        format!(
            "{flags} -X {package}.gitVersion=v{version} -X {package}.gitMajor=1 \
             -X {package}.gitMinor={minor} -X {package}.gitTreeState=clean"
        )
    })
}

/// How often a long build says how far it is.
const SAY: Duration = Duration::from_secs(20);

/// Runs a Go command that names each package it compiles, and counts instead of listing them.
fn compile(what: &str, mut command: Command) -> Result<()> {
    step(what, || {
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start go")?;
        let output = child.stderr.take().context("the output is piped")?;
        let (start, mut last) = (Instant::now(), Instant::now());
        let (mut packages, mut other) = (0u32, Vec::new());
        for line in BufReader::new(output).lines() {
            let line = line.context("reading what go says")?;
            if is_package(&line) {
                packages += 1;
            } else if !line.starts_with("go: downloading ") {
                other.push(line);
            }
            if last.elapsed() > SAY {
                last = Instant::now();
                println!("    {packages} packages compiled after {} s", start.elapsed().as_secs());
                shell::flush();
            }
        }
        let status = child.wait().context("waiting for go")?;
        if !status.success() {
            bail!("go failed ({status}):\n{}", other[other.len().saturating_sub(30)..].join("\n"));
        }
        Ok(())
    })
}

/// Whether a line is an import path and nothing else.
fn is_package(line: &str) -> bool {
    !line.is_empty() && !line.contains([' ', ':', '#'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_module() {
        let go_mod = "module x\nrequire k8s.io/kubernetes v1.36.3\nrequire (\n\tk8s.io/api v0.36.3 // indirect\n)\n";
        assert_eq!(required(go_mod, "k8s.io/kubernetes"), Some("1.36.3"));
        assert_eq!(required(go_mod, "k8s.io/api"), Some("0.36.3"));
        assert_eq!(required(go_mod, "k8s.io/kube"), None);
        assert!(version().is_ok());
    }

    #[test]
    fn packages_are_distinguished_from_complaints() {
        assert!(is_package("k8s.io/api/core/v1"));
        assert!(!is_package("# k8s.io/api/core/v1"));
        assert!(!is_package("main.go:3:1: undefined: x"));
    }
}
