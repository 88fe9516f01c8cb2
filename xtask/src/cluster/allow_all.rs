//! A policy that allows everything, in every namespace that there is and in every one that comes: then
//! every pod is isolated, and every packet is allowed by a rule.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::control_plane::{apply, kubectl};
use super::places::Places;

const NAME: &str = "allow-all";

fn policy(namespace: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": NAME, "namespace": namespace},
        "spec": {
            "podSelector": {},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{}],
            "egress": [{}],
        },
    })
}

/// Watches namespaces until it is dropped or asked to end.
#[derive(Debug)]
pub struct AllowAll {
    watch: Child,
    thread: Option<JoinHandle<Result<u64>>>,
}

impl AllowAll {
    pub fn start(places: &Places) -> Result<Self> {
        let mut watch: Command = kubectl(places);
        watch.args(["get", "namespaces", "--watch", "--output-watch-events", "--no-headers"]);
        // Longer than a run of the tests takes.
        watch.arg("--request-timeout=5h").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut watch = watch.spawn().context("cannot start kubectl")?;
        let events = watch.stdout.take().context("the output is piped")?;
        let places = places.clone();
        let thread = thread::spawn(move || follow(events, &places));
        Ok(Self { watch, thread: Some(thread) })
    }

    /// Ends it, and returns in how many namespaces it wrote the policy.
    ///
    /// # Errors
    /// If it ended before, or could not write one.
    pub fn end(mut self) -> Result<u64> {
        let early = self.watch.try_wait().context("looking after kubectl")?;
        self.watch.kill().context("ending kubectl")?;
        self.watch.wait().context("waiting for kubectl")?;
        let thread = self.thread.take().context("it runs")?;
        let Ok(written) = thread.join() else { bail!("the thread that writes {NAME} panicked") };
        let written = written?;
        ensure!(early.is_none(), "kubectl ended after {written} namespaces, and no more were seen");
        Ok(written)
    }
}

impl Drop for AllowAll {
    fn drop(&mut self) {
        if self.thread.is_some() {
            // The run has failed already, and says why.
            drop(self.watch.kill());
            drop(self.watch.wait());
        }
    }
}

fn follow(events: ChildStdout, places: &Places) -> Result<u64> {
    let mut written = 0;
    for line in BufReader::new(events).lines() {
        let line = line.context("reading what kubectl says")?;
        let Some(namespace) = added(&line) else { continue };
        match apply(places, &[policy(namespace)]) {
            Ok(()) => written += 1,
            // Some tests make and remove one at once.
            Err(error) if is_gone(&format!("{error:#}")) => {}
            Err(error) => return Err(error.context(format!("namespace {namespace}"))),
        }
    }
    Ok(written)
}

/// The namespace of an event such as `ADDED   shop   Active   3s`.
fn added(event: &str) -> Option<&str> {
    let mut words = event.split_whitespace();
    (words.next()? == "ADDED").then(|| words.next()).flatten()
}

fn is_gone(error: &str) -> bool {
    error.contains("not found") || error.contains("being terminated")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_taken_when_it_comes_and_not_when_it_goes() {
        assert_eq!(added("ADDED      shop   Active        3s"), Some("shop"));
        assert_eq!(added("MODIFIED   shop   Terminating   9s"), None);
        assert_eq!(added("DELETED    shop   Terminating   9s"), None);
        assert_eq!(added(""), None);
    }

    #[test]
    fn only_a_namespace_that_goes_may_refuse() {
        assert!(is_gone(
            "unable to create new content in namespace x because it is being terminated"
        ));
        assert!(!is_gone("connection refused"));
    }
}
