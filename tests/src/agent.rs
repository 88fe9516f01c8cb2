//! Real np-agent processes, one per node, each with pins of its own, over one directory of
//! manifests.
//!
//! An edit is a file replaced as a whole (written aside, then renamed), and it is in force when
//! every agent says so: its count of batches rose and it is ready again.

mod process;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

pub use process::{Agent, Source, agent_binary, built};

use crate::manifests;
use crate::topology::Cluster;

/// The file the harness writes policies to.
pub const POLICIES: &str = "policies.yaml";

/// How long an agent may take to be ready, or to apply an edit, on a busy machine.
const SETTLE: Duration = Duration::from_secs(60);

/// An agent's status document, as far as the harness reads it.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    pub ready: bool,
    pub batches: u64,
    pub devices: Vec<DeviceStatus>,
    pub endpoints: Vec<EndpointStatus>,
    pub counters: Vec<Counter>,
    pub invalid: Vec<InvalidObject>,
    pub diagnostics: Vec<String>,
    /// What is not understood of the API server's objects.
    pub narrowed: Vec<serde_json::Value>,
    /// How far the agent is with each collection; empty without an API server.
    pub api: Vec<ApiStatus>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ApiStatus {
    pub resource: String,
    pub state: String,
    pub listed: bool,
    /// For how many seconds it has been away, and why.
    pub away: Option<u64>,
    pub problem: Option<String>,
}

impl Status {
    /// Packets counted at a hook for a reason.
    pub fn count(&self, hook: &str, reason: &str) -> u64 {
        let all = self.counters.iter().filter(|c| c.hook == hook && c.reason == reason);
        all.map(|counter| counter.packets).sum()
    }
}

#[derive(Clone, Debug, Deserialize)]
pub struct DeviceStatus {
    pub name: String,
    pub ifindex: u32,
    pub role: String,
    pub attached: bool,
    pub pod: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct EndpointStatus {
    pub pod: String,
    pub ingress: Isolation,
    pub egress: Isolation,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Isolation {
    pub isolated: bool,
    pub policies: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Counter {
    pub hook: String,
    pub reason: String,
    pub action: String,
    pub packets: u64,
}

/// What the user sees about something malformed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct InvalidObject {
    pub file: String,
    /// Counted from one; zero when it is about the whole file.
    pub line: u32,
    pub column: u32,
    pub object: Option<String>,
    pub field: String,
    pub value: String,
    pub problem: String,
    pub remedy: String,
}

/// The agents of a cluster and the manifests they read.
#[derive(Debug)]
pub struct Agents {
    // Dropped in this order: agents clean up before their pins' and sockets' directories go.
    agents: Vec<Agent>,
    pins: Pins,
    files: tempfile::TempDir,
}

impl Agents {
    /// Writes the cluster's manifests and starts an agent on every node.
    pub fn start(cluster: &Cluster) -> Result<Self> {
        let files = directory()?;
        let manifests = files.path().join("manifests");
        fs::create_dir(&manifests).context("make the directory of manifests")?;
        for (name, content) in manifests::files(&cluster.spec) {
            replace(&manifests, name, &content)?;
        }
        let mut started = Self::of(cluster, files, &Source::Manifests(manifests))?;
        for agent in &mut started.agents {
            agent.start()?;
        }
        started.find_pods(cluster)?;
        Ok(started)
    }

    /// Prepares agents that follow an API server; the caller starts them.
    pub fn over_server(cluster: &Cluster, kubeconfig: &Path) -> Result<Self> {
        Self::of(cluster, directory()?, &Source::Kubeconfig(kubeconfig.to_owned()))
    }

    fn of(cluster: &Cluster, files: tempfile::TempDir, source: &Source) -> Result<Self> {
        let binary = agent_binary()?;
        let pins = Pins::new()?;
        let mut agents = Vec::new();
        for node in &cluster.spec.nodes {
            let run_dir = files.path().join(node.name);
            fs::create_dir(&run_dir).with_context(|| format!("make {}", run_dir.display()))?;
            let inside = cluster.namespace(node.name)?.clone();
            let pin_dir = pins.0.join(node.name);
            agents.push(Agent::new(node.name, &binary, inside, source.clone(), pin_dir, run_dir));
        }
        Ok(Self { agents, pins, files })
    }

    /// Waits until every agent is ready and has found every pod of its node: one without the other
    /// is not enforcement.
    pub fn find_pods(&mut self, cluster: &Cluster) -> Result<()> {
        for agent in &mut self.agents {
            let pods: Vec<String> = cluster
                .spec
                .pods
                .iter()
                .filter(|pod| pod.node == agent.node() && pod.address.is_some())
                .map(|pod| format!("{}/{}", pod.namespace, pod.name))
                .collect();
            let found = |status: &Status, pod: &String| {
                status.devices.iter().any(|d| d.attached && d.pod.as_ref() == Some(pod))
            };
            agent
                .wait(SETTLE, |status| status.ready && pods.iter().all(|pod| found(status, pod)))?;
        }
        Ok(())
    }

    pub fn on(&mut self, node: &str) -> Result<&mut Agent> {
        self.agents
            .iter_mut()
            .find(|agent| agent.node() == node)
            .with_context(|| format!("no agent runs on {node}"))
    }

    pub fn each(&self) -> impl Iterator<Item = &Agent> {
        self.agents.iter()
    }

    pub fn manifests(&self) -> PathBuf {
        self.files.path().join("manifests")
    }

    pub fn pins(&self) -> &Path {
        &self.pins.0
    }

    /// Replaces one file of the manifests (`None` removes it) and waits until every agent has
    /// applied or refused it. A file that is already so is left alone.
    pub fn apply(&mut self, file: &str, content: Option<&str>) -> Result<Duration> {
        let path = self.manifests().join(file);
        let present = fs::read_to_string(&path).ok();
        if present.as_deref() == content {
            return Ok(Duration::ZERO);
        }
        let before: Vec<u64> = self
            .agents
            .iter_mut()
            .map(|agent| agent.status().map(|status| status.batches))
            .collect::<Result<_>>()?;
        let start = Instant::now();
        match content {
            Some(content) => replace(&self.manifests(), file, content)?,
            None => fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?,
        }
        for (agent, before) in self.agents.iter_mut().zip(before) {
            agent
                .wait(SETTLE, |status| status.batches > before && status.ready)
                .with_context(|| format!("the edit of {file} is not in force"))?;
        }
        Ok(start.elapsed())
    }

    /// Packets counted on all nodes for reasons that contain a word.
    pub fn counted(&mut self, reason: &str) -> Result<u64> {
        let mut sum = 0;
        for agent in &mut self.agents {
            let counters = agent.status()?.counters;
            sum += counters
                .iter()
                .filter(|counter| counter.reason.contains(reason))
                .map(|counter| counter.packets)
                .sum::<u64>();
        }
        Ok(sum)
    }

    /// What was dropped so far, for a message about a packet that did not come.
    pub fn drops(&mut self) -> String {
        let mut told = Vec::new();
        for agent in &mut self.agents {
            let counters = agent.status().map(|status| status.counters).unwrap_or_default();
            let dropped = counters.into_iter().filter(|counter| counter.action == "drop");
            told.extend(
                dropped.map(|Counter { hook, reason, packets, .. }| {
                    format!("{hook} {reason} {packets}")
                }),
            );
        }
        format!(
            "dropped so far: {}",
            if told.is_empty() { "nothing".into() } else { told.join(", ") }
        )
    }
}

fn directory() -> Result<tempfile::TempDir> {
    let named = tempfile::Builder::new().prefix("np-tests-").tempdir();
    named.context("make a directory for manifests")
}

/// Replaces a file as a whole: no reader sees half of it.
fn replace(directory: &Path, name: &str, content: &str) -> Result<()> {
    let aside = directory.with_extension("new");
    fs::write(&aside, content).with_context(|| format!("write {}", aside.display()))?;
    let target = directory.join(name);
    fs::rename(&aside, &target).with_context(|| format!("replace {}", target.display()))
}

/// This program's own directory on the bpffs.
#[derive(Debug)]
struct Pins(PathBuf);

impl Pins {
    fn new() -> Result<Self> {
        let root = Path::new("/sys/fs/bpf");
        mount_bpffs(root)?;
        sweep(root)?;
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = root.join(format!("{PIN_PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        remove_pins(&self.0);
    }
}

const PIN_PREFIX: &str = "np-demo-";

fn mount_bpffs(root: &Path) -> Result<()> {
    let magic = nix::sys::statfs::statfs(root)
        .with_context(|| format!("look at {}: is this kernel built with BPF?", root.display()))?;
    if magic.filesystem_type() == nix::sys::statfs::BPF_FS_MAGIC {
        return Ok(());
    }
    nix::mount::mount(Some("bpf"), root, Some("bpf"), nix::mount::MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mount a bpffs at {}", root.display()))
}

/// Removes pins of earlier runs that were killed before they could do it themselves.
fn sweep(root: &Path) -> Result<()> {
    for entry in fs::read_dir(root).with_context(|| format!("list {}", root.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(PIN_PREFIX))
            .and_then(|rest| rest.split('-').next())
            .and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove_pins(&entry.path());
        }
    }
    Ok(())
}

/// Removing a pinned link detaches its program. The devices are gone or go with us.
fn remove_pins(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path) {
        eprintln!("cannot remove the pins under {}: {error}", path.display());
    }
}

/// Waits for a condition, looking often.
fn poll<T>(within: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + within;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > end {
            bail!("not within {within:?}");
        }
        std::thread::sleep(Duration::from_millis(4));
    }
}
