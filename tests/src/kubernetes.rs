//! A real cluster, as `cargo xtask cluster up` makes it, through kubectl.
//!
//! Not [`crate::topology`]: nothing here is ours but the agent. Every test has namespaces of its own,
//! which go with it.

pub mod machine;

use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::agent::built;

/// The image of pods that serve and ask, loaded on every node.
const IMAGE: &str = "registry.k8s.io/e2e-test-images/agnhost:2.63.0";

/// The port that every pod here serves on.
pub const PORT: u16 = 8080;

/// How long a change may take until it shows: from the API server to both nodes, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// How often a verdict is asked for before it is believed to stay.
const STEADY: u32 = 3;

/// The agents, for kubectl.
pub const AGENTS: &str = "--namespace kube-system --selector k8s-app=np-agent";

#[derive(Debug)]
pub struct Kubernetes {
    dir: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubernetes {
    /// Finds the cluster by the directory in `NP_CLUSTER`.
    ///
    /// # Errors
    /// If there is none.
    pub fn find() -> Result<Self> {
        let dir = env::var_os("NP_CLUSTER").map(PathBuf::from);
        let dir = dir.context("NP_CLUSTER names no cluster: `cargo xtask test --tier cluster`")?;
        let kubeconfig = dir.join("kubeconfig");
        if !kubeconfig.exists() {
            bail!("there is no cluster in {}: `cargo xtask cluster up`", dir.display());
        }
        Ok(Self { dir, kubeconfig })
    }

    /// Where the cluster's files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// kubectl with words as a person would type them.
    pub fn command(&self, words: &str) -> Command {
        let mut command = Command::new(self.dir.join("bin/kubectl"));
        command.args(words.split_whitespace()).env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// kubectl with the plugin `kubectl np` in its PATH.
    ///
    /// # Errors
    /// If the plugin is not built.
    pub fn with_plugin(&self, words: &str) -> Result<Command> {
        let plugin = plugin()?;
        let path = env::var_os("PATH").unwrap_or_default();
        let plugins = plugin.parent().context("it is in a directory")?.to_owned();
        let own = [plugins, self.dir.join("bin")].into_iter();
        let mut command = self.command(words);
        command.env("PATH", env::join_paths(own.chain(env::split_paths(&path)))?);
        Ok(command)
    }

    /// What kubectl says.
    ///
    /// # Errors
    /// If it fails, with what it complains of.
    pub fn kubectl(&self, words: &str) -> Result<String> {
        let output = self.command(words).stdin(Stdio::null()).output();
        said(words, &output.context("cannot start kubectl")?)
    }

    /// Creates or changes an object.
    pub fn apply(&self, object: &Value) -> Result<()> {
        let mut command = self.command("apply --filename -");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start kubectl")?;
        let mut input = child.stdin.take().context("the input is piped")?;
        input.write_all(object.to_string().as_bytes()).context("writing to kubectl")?;
        drop(input);
        said("apply", &child.wait_with_output().context("waiting for kubectl")?).map(drop)
    }

    /// The names of the nodes that take pods.
    pub fn nodes(&self) -> Result<Vec<String>> {
        let names = self.kubectl("get nodes -o jsonpath={.items[*].metadata.name}")?;
        Ok(names.split_whitespace().map(str::to_owned).collect())
    }

    /// The first two nodes.
    pub fn two_nodes(&self) -> Result<(String, String)> {
        let mut nodes = self.nodes()?.into_iter();
        let mut next = || nodes.next().context("this needs two nodes: `cluster up --nodes 2`");
        Ok((next()?, next()?))
    }

    /// Whether every node has an agent that is ready, and none is on its way out.
    pub fn is_served(&self) -> Result<bool> {
        let ready = "-o jsonpath={.items[*].status.containerStatuses[0].ready}";
        let said = self.kubectl(&format!("get pods {AGENTS} {ready}"))?;
        let leaving = "-o jsonpath={.items[*].metadata.deletionTimestamp}";
        let leaving = self.kubectl(&format!("get pods {AGENTS} {leaving}"))?;
        let ready = said.split_whitespace().filter(|ready| *ready == "true").count();
        Ok(ready == self.nodes()?.len() && leaving.trim().is_empty())
    }

    /// Makes a namespace that goes when the value is dropped.
    pub fn namespace(&self, name: &str) -> Result<Namespace<'_>> {
        // One that an earlier run left.
        self.kubectl(&format!("delete namespace {name} --ignore-not-found --timeout=60s"))?;
        self.kubectl(&format!("create namespace {name}"))?;
        let namespace = Namespace { cluster: self, name: name.to_owned() };
        // Pods wait for it.
        eventually("a service account", || {
            self.kubectl(&format!("get serviceaccount default --namespace {name}"))
        })?;
        Ok(namespace)
    }
}

/// The program kubectl-np as last built.
///
/// # Errors
/// If there is none.
pub fn plugin() -> Result<PathBuf> {
    built("kubectl-np", "`cargo build --package kubectl-np`")
}

fn said(words: &str, output: &Output) -> Result<String> {
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("`kubectl {words}` failed ({}): {}", output.status, errors.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Asks until there is an answer.
///
/// # Errors
/// If there is none soon: the last reason why not.
pub fn eventually<T>(what: &str, ask: impl FnMut() -> Result<T>) -> Result<T> {
    within(SOON, what, ask)
}

/// Asks until there is an answer, for so long.
///
/// # Errors
/// If there is none: the last reason why not.
pub fn within<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) if start.elapsed() > limit => {
                return Err(error.context(format!("{what}: not within {} s", limit.as_secs())));
            }
            Err(_) => thread::sleep(Duration::from_millis(200)),
        }
    }
}

#[derive(Debug)]
pub struct Namespace<'a> {
    cluster: &'a Kubernetes,
    pub name: String,
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        let words = format!("delete namespace {} --wait=false", self.name);
        if let Err(error) = self.cluster.kubectl(&words) {
            eprintln!("{error:#}");
        }
    }
}

impl Namespace<'_> {
    /// Starts a pod that serves, with the label `app` of its name, and waits until kubelet's probe says
    /// that it does.
    pub fn pod(&self, name: &str, node: &str) -> Result<()> {
        self.cluster.apply(&self.serving(name, node))?;
        self.wait(name, "condition=Ready")
    }

    /// A pod that serves.
    pub fn serving(&self, name: &str, node: &str) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": self.name, "labels": {"app": name}},
            "spec": {
                "nodeName": node,
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "serve",
                    "image": IMAGE,
                    "args": ["netexec", format!("--http-port={PORT}")],
                    "readinessProbe": {
                        "httpGet": {"path": "/healthz", "port": PORT},
                        "periodSeconds": 1,
                    },
                }],
            },
        })
    }

    /// Waits for a pod, as `kubectl wait --for` does.
    pub fn wait(&self, pod: &str, what: &str) -> Result<()> {
        let (cluster, namespace) = (self.cluster, &self.name);
        cluster
            .kubectl(&format!("wait --for={what} pod/{pod} --namespace {namespace} --timeout=90s"))
            .map(drop)
    }

    /// The address of a pod.
    pub fn address(&self, pod: &str) -> Result<String> {
        let (cluster, namespace) = (self.cluster, &self.name);
        let get = format!("get pod {pod} --namespace {namespace} -o jsonpath={{.status.podIP}}");
        cluster.kubectl(&get)
    }

    /// The addresses of all pods with a label that have one.
    pub fn addresses(&self, label: &str) -> Result<Vec<String>> {
        let (cluster, namespace) = (self.cluster, &self.name);
        let addresses = cluster.kubectl(&format!(
            "get pods --namespace {namespace} --selector {label} -o jsonpath={{.items[*].status.podIP}}"
        ))?;
        Ok(addresses.split_whitespace().map(str::to_owned).collect())
    }

    /// Makes a Service for the pods with the label `app`, and returns its address.
    pub fn service(&self, app: &str, port: u16) -> Result<String> {
        self.cluster.apply(&json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": app, "namespace": self.name},
            "spec": {"selector": {"app": app}, "ports": [{"port": port, "targetPort": PORT}]},
        }))?;
        let (cluster, namespace) = (self.cluster, &self.name);
        let get =
            format!("get service {app} --namespace {namespace} -o jsonpath={{.spec.clusterIP}}");
        cluster.kubectl(&get)
    }

    /// Creates or changes a NetworkPolicy.
    pub fn policy(&self, name: &str, spec: &Value) -> Result<()> {
        self.cluster.apply(&json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": self.name},
            "spec": spec,
        }))
    }

    /// Creates the policy `only-CLIENT`: pods with the label `app` of a server are reached only by those
    /// with that of a client.
    pub fn admit_only(&self, client: &str, server: &str) -> Result<()> {
        self.policy(
            &format!("only-{client}"),
            &json!({
                "podSelector": {"matchLabels": {"app": server}},
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": client}}}]}],
            }),
        )
    }

    /// Whether a pod opens a TCP connection to an address.
    ///
    /// # Errors
    /// If it fails otherwise than by silence, which is how policy denies.
    pub fn reaches(&self, pod: &str, address: &str, port: u16) -> Result<bool> {
        let namespace = &self.name;
        let target = if address.contains(':') {
            format!("[{address}]:{port}")
        } else {
            format!("{address}:{port}")
        };
        let words =
            format!("exec {pod} --namespace {namespace} -- /agnhost connect {target} --timeout=1s");
        let output = self.cluster.command(&words).output().context("cannot start kubectl")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            Ok(true)
        } else if errors.contains("TIMEOUT") {
            Ok(false)
        } else {
            bail!("`kubectl {words}`: {}", errors.trim())
        }
    }

    /// Waits until a connection passes, or does not, several times in a row.
    ///
    /// # Errors
    /// If that is not so soon.
    pub fn expect(&self, pod: &str, address: &str, port: u16, passes: bool) -> Result<()> {
        self.expect_within(SOON, pod, address, port, passes)
    }

    /// The same, within some time.
    pub fn expect_within(
        &self,
        limit: Duration,
        pod: &str,
        address: &str,
        port: u16,
        passes: bool,
    ) -> Result<()> {
        let namespace = &self.name;
        let what = if passes { "reaches" } else { "is kept from" };
        let what = format!("{namespace}/{pod} {what} {address}:{port}");
        within(limit, &what, || {
            for _ in 0..STEADY {
                if self.reaches(pod, address, port)? != passes {
                    bail!("it is the other way");
                }
            }
            Ok(())
        })
    }
}
