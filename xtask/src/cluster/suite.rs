//! Kubernetes' own tests, unmodified, against the cluster: those of network policies, and those that
//! every cluster's network must pass.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow};
use clap::ValueEnum;

use super::places::Places;
use super::programs::version;
use crate::conformance::Run;
use crate::shell;
use crate::test::{Tally, Told};

/// Which specs run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// What is about policies: with the older of the two sets, and with the API's own operations
    NetworkPolicy,
    /// What every cluster's network must do
    Conformance,
}

impl Suite {
    const fn focus(self) -> &'static str {
        match self {
            Self::NetworkPolicy => r"(\[Feature:NetworkPolicy\]|Netpol)",
            Self::Conformance => r"\[sig-network\].*\[Conformance\]",
        }
    }
}

/// These open SCTP sockets, which needs a module of the kernel.
const SKIP: &str = "SCTP";

/// What the labels of a spec begin with.
const LABELS: [&str; 2] = [" [Feature:", " [Conformance]"];

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    pub told: Told,
    /// By the name of a spec, whether it passed.
    pub specs: BTreeMap<String, bool>,
}

/// Runs the specs whose name contains `filter`; `title` is what docs/CONFORMANCE.md calls the run.
///
/// # Errors
/// If the program cannot be started. Specs that fail are told.
pub fn run(
    program: &Path,
    places: &Places,
    suite: Suite,
    title: &str,
    filter: Option<&str>,
) -> Result<Outcome> {
    let focus = match filter {
        Some(filter) => format!("{}.*{}", suite.focus(), escape(filter)),
        None => suite.focus().to_owned(),
    };
    let log = places.log().join(format!("e2e-{}", title.to_lowercase().replace(' ', "-")));
    let mut copy = File::create(&log).with_context(|| format!("making {}", log.display()))?;
    println!("==> Kubernetes' tests; all they say is in {}", log.display());
    let mut command = Command::new(program);
    command
        .arg(format!("--kubeconfig={}", places.kubeconfig().display()))
        .args(["--provider=skeleton", "--ginkgo.v", "--ginkgo.no-color", "--ginkgo.timeout=3h"])
        .arg(format!("--ginkgo.focus={focus}"))
        .arg(format!("--ginkgo.skip={SKIP}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| shell::line(&command))?;
    let output = child.stdout.take().context("the output is piped")?;
    let mut listener = Listener::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("reading what the tests say")?;
        let line = String::from_utf8_lossy(&line).into_owned();
        writeln!(copy, "{line}").with_context(|| format!("writing {}", log.display()))?;
        if let Some(said) = listener.hear(&line) {
            println!("    {said}");
            shell::flush();
        }
    }
    let status = child.wait().context("waiting for the tests")?;
    let mut told = Told { tally: listener.tally, ..Told::default() };
    if filter.is_none() {
        told.conformance = vec![run_of(&told, places, title)?];
        println!("{}", told.conformance[0]);
        shell::flush();
    }
    if !status.success() && told.tally.failed == 0 {
        told.problems.push(format!("Kubernetes' tests ended with {status}: see {}", log.display()));
    }
    Ok(Outcome { told, specs: listener.specs })
}

fn run_of(told: &Told, places: &Places, title: &str) -> Result<Run> {
    let kind = fs::read_to_string(places.kind()).context("the kind of cluster is not noted")?;
    let kind: Vec<String> = kind.split_whitespace().map(str::to_owned).collect();
    let kind = kind.try_into().map_err(|_| anyhow!("the kind of cluster has three words"))?;
    let Tally { passed, failed, .. } = told.tally;
    Ok(Run { suite: title.to_owned(), version: version()?, kind, passed, failed })
}

/// A name as a pattern that matches it alone.
fn escape(name: &str) -> String {
    let special = |c: char| !c.is_alphanumeric() && !c.is_whitespace();
    name.chars().fold(String::new(), |mut pattern, c| {
        if special(c) {
            pattern.push('\\');
        }
        pattern.push(c);
        pattern
    })
}

/// Follows what Ginkgo prints: the name of a spec after a rule, and later a bullet with how it ended.
#[derive(Debug, Default)]
struct Listener {
    name: String,
    expects_name: bool,
    tally: Tally,
    specs: BTreeMap<String, bool>,
}

impl Listener {
    /// Returns the line that tells of a spec's end.
    fn hear(&mut self, line: &str) -> Option<String> {
        if line.starts_with("------------------------------") {
            self.expects_name = true;
            return None;
        }
        if let Some(end) = line.strip_prefix("• ") {
            self.expects_name = false;
            // `• [3.1 seconds]`, and in front of that whatever is not well.
            let failed = end.matches('[').count() != 1 || !end.ends_with(" seconds]");
            let seconds = end.rsplit_once('[').map_or("", |(_, last)| last.trim_end_matches(']'));
            if failed {
                self.tally.failed += 1;
            } else {
                self.tally.passed += 1;
            }
            self.specs.insert(self.name.clone(), !failed);
            let verdict = if failed { "FAILED" } else { "ok" };
            return Some(format!("{verdict:<6} {seconds:>15}  {}", self.name));
        }
        if self.expects_name && !line.trim().is_empty() {
            self.expects_name = false;
            // Labels follow the name, all of them once more in brackets.
            let name =
                LABELS.iter().fold(line, |name, label| name.split(label).next().unwrap_or(name));
            name.trim().clone_into(&mut self.name);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = "------------------------------";
    const SPEC: &str =
        "[sig-network] Netpol NetworkPolicy should deny [Feature:NetworkPolicy] [sig-network]";

    fn end(bullet: &str) -> (Option<String>, Tally, BTreeMap<String, bool>) {
        let mut listener = Listener::default();
        let before = [RULE, SPEC, "  test.go:1", "  STEP: Creating @ 11/28"];
        assert!(before.iter().all(|line| listener.hear(line).is_none()));
        (listener.hear(bullet), listener.tally, listener.specs)
    }

    #[test]
    fn a_spec_is_reported_when_it_ends() {
        let (said, tally, specs) = end("• [13.241 seconds]");
        let want = "ok      13.241 seconds  [sig-network] Netpol NetworkPolicy should deny";
        assert_eq!(said.as_deref(), Some(want));
        assert_eq!((tally.passed, tally.failed), (1, 0));
        let name = "[sig-network] Netpol NetworkPolicy should deny".to_owned();
        assert_eq!(specs, BTreeMap::from([(name, true)]));
    }

    #[test]
    fn a_spec_that_fails_or_panics_is_a_failure() {
        for bullet in ["• [FAILED] [42.134 seconds]", "• [PANICKED] [0.1 seconds]", "• [TIMEDOUT]"]
        {
            let (said, tally, specs) = end(bullet);
            assert!(said.is_some_and(|said| said.starts_with("FAILED")), "{bullet}");
            assert_eq!((tally.passed, tally.failed), (0, 1), "{bullet}");
            assert!(specs.values().eq([&false]), "{bullet}");
        }
    }

    #[test]
    fn a_filter_is_a_name_and_no_pattern() {
        assert_eq!(escape("default-deny (all)"), r"default\-deny \(all\)");
    }
}
