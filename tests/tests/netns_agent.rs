//! The life of an agent under real traffic: it stops, dies, comes back, sees pods come and go, and
//! is told nonsense. At no moment is a packet judged by anything but the policies in force.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use np_tests::address::Family;
use np_tests::agent::{Agents, POLICIES, Status, agent_binary};
use np_tests::manifests;
use np_tests::netns::{Namespace, require_root};
use np_tests::probe::conversation::Conversation;
use np_tests::probe::{Kind, probe};
use np_tests::proxy::Mode;
use np_tests::story::cluster::spec;
use np_tests::topology::{Cluster, Wiring, ptp};

/// namespace-b takes TCP 8443 from namespace-a and nothing else.
const FROM_NAMESPACE_A: &str = include_str!("../fixtures/stories/a7-ingress-from-namespace.yaml");
const BROKEN: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: from-namespace-a, namespace: namespace-b}
spec:
  podSelector: everyone
";
const PODS: &str = "pods.yaml";
const PORT: u16 = 8443;
/// Shorter than a SYN's first repetition: what is dropped once does not get through by trying.
const PATIENCE: Duration = Duration::from_millis(700);
const SETTLE: Duration = Duration::from_secs(15);

struct Rig {
    // Agents first: they clean up while the nodes are still there.
    agents: Agents,
    cluster: Cluster,
}

impl Rig {
    fn new() -> Result<Self> {
        require_root()?;
        let cluster = Cluster::build(spec(), Mode::Nftables)?;
        let mut agents = Agents::start(&cluster)?;
        agents.apply(POLICIES, Some(FROM_NAMESPACE_A))?;
        Ok(Self { agents, cluster })
    }

    fn reaches(&self, from: &str, to: &str) -> Result<bool> {
        let to = self.cluster.address(to, Family::V4)?;
        reaches(self.cluster.namespace(from)?, to)
    }

    /// namespace-a reaches pod-b-1, others do not, and its own node always does.
    fn expect_policy(&self, when: &str) -> Result<()> {
        ensure!(self.reaches("pod-a", "pod-b-1")?, "{when}: pod-a is cut off");
        ensure!(!self.reaches("other", "pod-b-1")?, "{when}: other gets in");
        ensure!(self.reaches("node-2", "pod-b-1")?, "{when}: the node is cut off");
        Ok(())
    }

    /// The manifests of the pods, without one.
    fn pods_without(&self, name: &str) -> Result<String> {
        let files = manifests::files(&self.cluster.spec);
        let (_, pods) = files.iter().find(|(file, _)| *file == PODS).context("pods.yaml")?;
        let line = format!("  name: {name}\n");
        let kept: Vec<&str> =
            pods.split("---\n").filter(|document| !document.contains(&line)).collect();
        ensure!(kept.len() + 1 == pods.split("---\n").count(), "no pod {name} to leave out");
        Ok(kept.join("---\n"))
    }

    fn pods(&self) -> Result<String> {
        let files = manifests::files(&self.cluster.spec);
        Ok(files.into_iter().find(|(file, _)| *file == PODS).context("pods.yaml")?.1)
    }
}

fn reaches(from: &Namespace, to: IpAddr) -> Result<bool> {
    Ok(probe(from, to, Kind::Tcp(PORT), PATIENCE).replied())
}

fn role<'a>(status: &'a Status, device: &str) -> Option<&'a str> {
    let device = status.devices.iter().find(|found| found.name == device)?;
    Some(device.role.as_str())
}

#[test]
fn a_stopped_agent_leaves_policy_in_force_and_cleanup_lifts_it() -> Result<()> {
    let mut rig = Rig::new()?;
    rig.expect_policy("while the agent runs")?;
    let ended = rig.agents.on("node-2")?.terminate()?;
    ensure!(ended.success(), "SIGTERM: {ended}");
    rig.expect_policy("while the agent is down")?;

    let (code, document, _) = rig.agents.on("node-2")?.subcommand(&["status", "-o", "json"])?;
    ensure!(code == 1, "status of a node whose agent is down exits with {code}");
    ensure!(document.contains(r#""agent": "down""#), "{document}");
    ensure!(document.contains("namespace-b/from-namespace-a"), "{document}");
    ensure!(document.contains("ingress-denied"), "{document}");
    let (code, table, _) = rig.agents.on("node-2")?.subcommand(&["endpoints"])?;
    ensure!(code == 0 && table.contains("pod-b-1"), "{code}: {table}");

    rig.agents.on("node-2")?.start()?;
    rig.agents.on("node-2")?.wait_ready(SETTLE)?;
    rig.expect_policy("after the restart")?;

    rig.agents.on("node-2")?.terminate()?;
    let pins = rig.agents.on("node-2")?.pin_dir().to_owned();
    let (code, _, error) = rig.agents.on("node-2")?.subcommand(&["cleanup"])?;
    ensure!(code == 0, "cleanup: {error}");
    ensure!(!pins.exists(), "pins are left in {}", pins.display());
    ensure!(rig.reaches("other", "pod-b-1")?, "policy is in force after cleanup");
    Ok(())
}

#[test]
fn a_malformed_edit_keeps_the_last_good_version_also_over_a_restart() -> Result<()> {
    let mut rig = Rig::new()?;
    rig.agents.apply(POLICIES, Some(BROKEN))?;
    rig.expect_policy("after the edit")?;
    for agent in ["node-1", "node-2"] {
        rig.agents.on(agent)?.kill()?;
        rig.agents.on(agent)?.start()?;
        let status = rig.agents.on(agent)?.wait_ready(SETTLE)?;
        let problem = status.invalid.first().context("the broken policy is not reported")?;
        ensure!((problem.line, problem.column) == (5, 16), "{problem:?}");
        ensure!(problem.field == "spec.podSelector", "{problem:?}");
    }
    rig.expect_policy("after the restart")?;
    rig.agents.apply(POLICIES, None)?;
    ensure!(rig.reaches("other", "pod-b-1")?, "a policy that was removed is in force");
    Ok(())
}

/// The object goes first, as when a pod is deleted by force; then the device; then both come back
/// in the other order.
#[test]
fn a_veth_is_policed_before_its_pod_is_known_and_after_it_is_gone() -> Result<()> {
    let mut rig = Rig::new()?;
    let without = rig.pods_without("pod-b-1")?;
    rig.agents.apply(PODS, Some(&without))?;
    ensure!(!rig.reaches("other", "pod-b-1")?, "a pod without an object is open");
    let status = rig.agents.on("node-2")?.status()?;
    ensure!(role(&status, "v-pod-b-1") == Some("pod"), "{status:#?}");

    let ifindex = status.devices.iter().find(|d| d.name == "v-pod-b-1").context("device")?.ifindex;
    rig.cluster.namespace("node-2")?.ip("link del v-pod-b-1\n")?;
    let gone = |status: &Status| role(status, "v-pod-b-1").is_none();
    let status = rig.agents.on("node-2")?.wait(SETTLE, gone)?;
    ensure!(!status.endpoints.iter().any(|e| e.pod == "namespace-b/pod-b-1"), "{status:#?}");
    let pin = rig.agents.on("node-2")?.pin_dir().join(format!("v1/links/{ifindex}-ingress"));
    let end = Instant::now() + SETTLE;
    while pin.exists() {
        ensure!(Instant::now() < end, "{} is not removed", pin.display());
        thread::sleep(Duration::from_millis(10));
    }

    let address = rig.cluster.spec.address("pod-b-1").context("address")?;
    ptp(&Wiring {
        name: "pod-b-1",
        router: rig.cluster.namespace("node-2")?,
        inside: rig.cluster.namespace("pod-b-1")?,
        address,
    })?;
    let pending = |status: &Status| status.ready && role(status, "v-pod-b-1") == Some("pending");
    rig.agents.on("node-2")?.wait(SETTLE, pending)?;
    ensure!(!rig.reaches("pod-a", "pod-b-1")?, "a pending pod is open to pods");
    ensure!(!rig.reaches("pod-b-1", "pod-b-2")?, "a pending pod gets out");
    // What the node sends gets in, and no answer gets out.
    ensure!(!rig.reaches("node-2", "pod-b-1")?, "a pending pod answers");

    let pods = rig.pods()?;
    rig.agents.apply(PODS, Some(&pods))?;
    let bound = |status: &Status| status.ready && role(status, "v-pod-b-1") == Some("pod");
    rig.agents.on("node-2")?.wait(SETTLE, bound)?;
    rig.expect_policy("once the pod is known")
}

#[test]
fn a_second_claimant_of_an_address_stays_pending_also_over_a_restart() -> Result<()> {
    let mut rig = Rig::new()?;
    let address = rig.cluster.spec.address("pod-b-1").context("address")?;
    let thief = Namespace::new("thief")?;
    rig.cluster.namespace("node-2")?.ip(&format!(
        "link add v-thief type veth peer name eth0 netns {}\nlink set v-thief up\n",
        thief.path().display()
    ))?;
    thief.ip(&format!(
        "link set lo up\naddr add {address}/32 dev eth0\nlink set eth0 up\n\
         route add 169.254.1.1 dev eth0 scope link\nroute add default via 169.254.1.1 dev eth0\n"
    ))?;
    let settled = |status: &Status| {
        let bound = status.devices.iter().find(|d| d.name == "v-pod-b-1");
        status.ready
            && role(status, "v-thief") == Some("pending")
            && bound.is_some_and(|d| d.pod.as_deref() == Some("namespace-b/pod-b-1"))
    };
    rig.agents.on("node-2")?.wait(SETTLE, settled)?;
    rig.agents.on("node-2")?.kill()?;
    rig.agents.on("node-2")?.start()?;
    rig.agents.on("node-2")?.wait(SETTLE, settled)?;
    let to = rig.cluster.address("pod-a", Family::V4)?;
    ensure!(!reaches(&thief, to)?, "the second claimant gets out");
    rig.expect_policy("beside a second claimant")
}

/// Kills and restarts, with an edit that changes nothing for these pods right around each.
#[test]
fn kills_and_restarts_under_traffic_judge_no_packet_wrongly() -> Result<()> {
    const KILLS: u32 = 5;
    let mut rig = Rig::new()?;
    let to = rig.cluster.address("pod-b-1", Family::V4)?;
    let from = rig.cluster.namespace("pod-a")?;
    let tcp = Conversation::tcp(from, to, PORT)?;
    let intruder = rig.cluster.namespace("other")?.clone();
    let stop = AtomicBool::new(false);
    let (tries, intrusions) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| -> Result<()> {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let patience = Duration::from_millis(60);
                if probe(&intruder, to, Kind::Tcp(PORT), patience).replied() {
                    intrusions.fetch_add(1, Ordering::Relaxed);
                }
                tries.fetch_add(1, Ordering::Relaxed);
            }
        });
        let result = (0..KILLS).try_for_each(|round| {
            let manifests = rig.agents.manifests();
            rig.agents.on("node-2")?.kill()?;
            fs::write(manifests.join("round.yaml"), unrelated(round))?;
            ensure!(tcp.goes_on(20, Duration::from_secs(2)), "stalled: {:?}", tcp.progress());
            rig.agents.on("node-2")?.start()?;
            rig.agents.on("node-2")?.wait_ready(SETTLE)?;
            ensure!(tcp.goes_on(20, Duration::from_secs(2)), "stalled: {:?}", tcp.progress());
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        result
    })?;
    let (tries, intrusions) = (tries.into_inner(), intrusions.into_inner());
    println!("{KILLS} kills, {tries} denied connections tried, {:?}", tcp.progress());
    ensure!(tries >= KILLS, "the intruder hardly tried");
    ensure!(intrusions == 0, "{intrusions} of {tries} connections got in");
    ensure!(tcp.progress().ended.is_none(), "{:?}", tcp.progress());
    Ok(())
}

fn unrelated(round: u32) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{name: round-{round}, namespace: my-namespace}}\n\
         spec: {{podSelector: {{}}, policyTypes: [Ingress, Egress]}}\n"
    )
}

#[test]
fn a_bad_start_names_the_cause_and_the_remedy() -> Result<()> {
    require_root()?;
    let node = Namespace::new("node")?;
    let files = tempfile::tempdir()?;
    let run = |manifests: &Path, pin_dir: &Path| -> Result<(Option<i32>, String)> {
        let output = node
            .command(agent_binary()?)
            .args(["--node", "node-1", "--manifests"])
            .arg(manifests)
            .arg("--pin-dir")
            .arg(pin_dir)
            .arg("--run-dir")
            .arg(files.path().join("run"))
            .output()?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    let (code, text) = run(&files.path().join("absent"), files.path())?;
    ensure!(code == Some(1) && text.contains("--manifests") && text.contains("absent"), "{text}");
    let (code, text) = run(files.path(), &files.path().join("pins"))?;
    ensure!(code == Some(1) && text.contains("mount -t bpf"), "{text}");
    ensure!(!text.contains("panicked"), "{text}");

    let mut rig = Rig::new()?;
    let agent = rig.agents.on("node-2")?;
    let manifests = files.path().to_string_lossy().into_owned();
    let (code, _, text) = agent.subcommand(&["--node", "node-2", "--manifests", &manifests])?;
    ensure!(code == 1 && text.contains("another np-agent runs"), "{code}: {text}");
    let (code, _, text) = agent.subcommand(&["cleanup"])?;
    ensure!(code == 1 && text.contains("stop it first"), "{code}: {text}");
    let (code, lines, _) = agent.subcommand(&["check"])?;
    ensure!(code == 0 && !lines.contains("fail"), "{code}: {lines}");
    Ok(())
}
