//! The world: two nodes that differ in all they can, their agents, and pods that come and go.

use std::fs;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::chronicle::Chronicle;
use super::host::{Host, HostId, Kind};
use super::plan::{self, LEAF, Make, router_of, silence};
use super::seen::Seen;
use super::stage::{Actor, Heard, Link, Stage};
use super::tap::{Frame, SECOND, Taps, Time, now};
use super::version::Version;
use super::wishes;
use crate::agent::{Agents, POLICIES, Status};
use crate::generate::dice::Dice;
use crate::netns::Namespace;
use crate::proxy::Mode;
use crate::topology::{Cluster, Wiring, host_device};

/// How long an agent may take for anything, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const GUESTS: &str = "guests.yaml";

#[derive(Debug)]
pub struct World {
    // Dropped in this order: agents go before the namespaces they run in.
    pub agents: Agents,
    pub taps: Taps,
    guests: Vec<Guest>,
    pub cluster: Cluster,
    pub stage: Arc<Stage>,
    pub make: Make,
    /// By node.
    pub running: [bool; 2],
    /// Since when, by node.
    pub started: [Time; 2],
    /// Until when an agent may refuse to be ready, because of a stranger's TC program.
    pub excused: Time,
    policies: Vec<Value>,
    residents: Vec<HostId>,
    /// Pods that are gone, until their packets are too.
    graves: Vec<(Time, HostId)>,
    born: usize,
    pub figures: Figures,
}

/// A pod that came after the start.
#[derive(Debug)]
pub struct Guest {
    pub id: HostId,
    pub inside: Namespace,
    /// The index of its device on the node.
    pub ifindex: u32,
    /// Whether its object shows its address.
    pub shown: bool,
    /// What limits it.
    pub ifb: Option<String>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub edits: usize,
    pub born: usize,
    pub died: usize,
    pub restarts: usize,
    pub neighbours: usize,
    pub lost: u32,
    /// The longest time from a device's making until an agent that ran said it was attached.
    pub window: Time,
}

impl World {
    pub fn build(make: Make) -> Result<Self> {
        let cluster = Cluster::build(plan::spec(make), Mode::Iptables)?;
        let stage = Arc::new(Stage::default());
        let ears = Arc::clone(&stage);
        let taps = Taps::new(move |frame| hear(&ears, frame))?;
        plan::prepare(&cluster, make)?;
        stage.chronicle().services.clone_from(&cluster.spec.services);
        let agents = Agents::start(&cluster)?;
        let mut world = Self {
            agents,
            taps,
            guests: Vec::new(),
            cluster,
            stage,
            make,
            running: [true; 2],
            started: [now(); 2],
            excused: 0,
            policies: Vec::new(),
            residents: Vec::new(),
            graves: Vec::new(),
            born: 0,
            figures: Figures::default(),
        };
        world.cast()?;
        Ok(world)
    }

    pub fn node(&self, node: usize) -> Result<&Namespace> {
        self.cluster.namespace(self.cluster.spec.nodes[node].name)
    }

    pub fn node_name(&self, node: usize) -> &'static str {
        self.cluster.spec.nodes[node].name
    }

    pub fn guests(&self) -> &[Guest] {
        &self.guests
    }

    /// Everybody who is there from the start.
    fn cast(&mut self) -> Result<()> {
        let start = now();
        let host = |name: &str, kind, node, v4, labels: &[(&'static str, &'static str)]| Host {
            name: name.to_owned(),
            kind,
            node,
            v4,
            labels: labels.to_vec(),
            born: start,
            attached: Some(start),
            bound: Some(start),
            died: None,
        };
        let nodes = self.cluster.spec.nodes.clone();
        for (index, node) in nodes.iter().enumerate() {
            let mut chronicle = self.stage.chronicle();
            let id = chronicle.add(host(node.name, Kind::Node, index, node.address, &[]));
            let actor = Actor::of_node(&chronicle, id, self.node(index)?)?;
            drop(chronicle);
            self.stage.enter(actor);
        }
        for one in self.cluster.spec.outside.clone() {
            let inside = self.cluster.namespace(one.name)?.clone();
            inside.sysctls(LEAF)?;
            silence(&inside)?;
            let link = Link {
                mac: inside.hardware_address("eth0")?,
                gateway: router_of(&inside)?,
                bridged: false,
            };
            let mut chronicle = self.stage.chronicle();
            let id = chronicle.add(host(one.name, Kind::Outside, 9, one.address, &[]));
            let actor = Actor::of_frames(&chronicle, id, &inside, link)?;
            drop(chronicle);
            self.taps.add(id, &inside, "eth0")?;
            self.stage.enter(actor);
        }
        for pod in self.cluster.spec.pods.clone() {
            let node = usize::from(pod.node != nodes[0].name);
            let inside = self.cluster.namespace(pod.name)?.clone();
            inside.sysctls(LEAF)?;
            silence(&inside)?;
            let v4 = pod.address.context("every pod has an address")?;
            let id = self.stage.chronicle().add(host(pod.name, Kind::Pod, node, v4, pod.labels));
            self.listen(id, &inside)?;
            self.residents.push(id);
        }
        Ok(())
    }

    /// Captures at a pod and lets the adversary speak through it.
    pub fn listen(&self, id: HostId, inside: &Namespace) -> Result<()> {
        self.taps.add(id, inside, "eth0")?;
        let (node, name) = {
            let chronicle = self.stage.chronicle();
            (chronicle.host(id).node, chronicle.host(id).name.clone())
        };
        let bridged = node == self.make.bridged;
        let router = if bridged { "cni0".to_owned() } else { host_device(&name) };
        let link = Link {
            mac: inside.hardware_address("eth0")?,
            gateway: self.node(node)?.hardware_address(&router)?,
            bridged,
        };
        let actor = Actor::of_frames(&self.stage.chronicle(), id, inside, link)?;
        self.stage.enter(actor);
        Ok(())
    }

    /// Makes a host for a new pod; its device is not made yet.
    pub fn conceive(&mut self, node: usize, v4: Ipv4Addr, app: &'static str) -> HostId {
        self.born += 1;
        self.figures.born += 1;
        self.stage.chronicle().add(Host {
            name: format!("guest-{}", self.born),
            kind: Kind::Pod,
            node,
            v4,
            labels: vec![("app", app)],
            born: now(),
            attached: None,
            bound: None,
            died: None,
        })
    }

    /// Makes a pod's namespace and its device.
    pub fn wire(&mut self, id: HostId) -> Result<()> {
        let (name, node, v4) = {
            let mut chronicle = self.stage.chronicle();
            let host = chronicle.host_mut(id);
            host.born = now();
            (host.name.clone(), host.node, host.v4)
        };
        let inside = Namespace::new(&name)?;
        inside.sysctls(LEAF)?;
        silence(&inside)?;
        let router = self.node(node)?.clone();
        let block = self.cluster.spec.nodes[node].pod_block;
        let wiring =
            Wiring { name: &name, router: &router, inside: &inside, address: v4, block, mtu: 1500 };
        (self.cluster.spec.shape.attach)(&wiring)?;
        // Somebody else may have had the address.
        router.ip("neigh flush all")?;
        let shown = inside.call("ip -o link show eth0")?;
        let ifindex = shown.split("@if").nth(1).and_then(|rest| rest.split(':').next());
        let ifindex = ifindex.and_then(|number| number.parse().ok());
        let ifindex = ifindex.with_context(|| format!("the other end of eth0: {shown}"))?;
        self.listen(id, &inside)?;
        self.guests.push(Guest { id, inside, ifindex, shown: false, ifb: None });
        Ok(())
    }

    /// Limits what a pod on the routed node sends, as the CNI plugin `bandwidth` does it: all of it goes
    /// through an ifb.
    pub fn limit(&mut self, id: HostId) -> Result<()> {
        let (name, node) = {
            let chronicle = self.stage.chronicle();
            (chronicle.host(id).name.clone(), chronicle.host(id).node)
        };
        self.tell(format!("{name} is limited by an ifb"));
        let (device, ifb) = (host_device(&name), format!("ifb{}", id.0));
        let node = self.node(node)?;
        node.ip(&format!("link add {ifb} type ifb\nlink set {ifb} up"))?;
        node.call(&format!("tc qdisc add dev {device} ingress"))?;
        node.call(&format!(
            "tc filter add dev {device} parent ffff: protocol all prio 1 u32 match u32 0 0 action \
             mirred egress redirect dev {ifb}"
        ))?;
        for guest in self.guests.iter_mut().filter(|guest| guest.id == id) {
            guest.ifb = Some(ifb.clone());
        }
        Ok(())
    }

    /// Says whether the API shows a guest's address.
    pub fn show(&mut self, id: HostId) {
        for guest in self.guests.iter_mut().filter(|guest| guest.id == id) {
            guest.shown = true;
        }
    }

    /// Takes a pod's device away.
    pub fn unwire(&mut self, id: HostId) -> Result<()> {
        let at = self.guests.iter().position(|guest| guest.id == id);
        let guest = self.guests.remove(at.context("only guests go")?);
        self.stage.leave(id);
        self.stage.chronicle().host_mut(id).died = Some(now());
        guest.inside.ip("link del eth0")?;
        if let Some(ifb) = guest.ifb {
            let node = self.stage.chronicle().host(id).node;
            self.node(node)?.ip(&format!("link del {ifb}"))?;
        }
        thread::sleep(Duration::from_millis(10));
        self.figures.lost += self.taps.remove(id)?;
        self.figures.died += 1;
        self.graves.push((now() + 10 * SECOND, id));
        Ok(())
    }

    /// Forgets what can no longer matter.
    pub fn tidy(&mut self) {
        let mut chronicle = self.stage.chronicle();
        // On a slow machine the judge is behind, and still asks what those who are gone had sent.
        let judged = chronicle.arrivals.front().map_or_else(now, |frame| frame.time);
        for (_, id) in self.graves.extract_if(.., |(due, _)| *due < judged) {
            chronicle.bury(id);
        }
    }

    /// Writes other policies and waits until they are in force.
    pub fn police(&mut self, dice: &mut Dice<'_>) -> Result<()> {
        self.policies = wishes::policies(dice);
        self.figures.edits += 1;
        let text = wishes::manifest(&self.policies);
        self.tell(format!("{} policies are written", self.policies.len()));
        self.wish(POLICIES, &text)
    }

    /// Writes the guests' objects and waits until they are known.
    pub fn present(&mut self) -> Result<()> {
        let mut text = wishes::manifest(&self.objects(&self.guest_ids()));
        if text.is_empty() {
            text = "# nobody\n".to_owned();
        }
        self.wish(GUESTS, &text)
    }

    fn guest_ids(&self) -> Vec<(HostId, bool)> {
        self.guests.iter().map(|guest| (guest.id, guest.shown)).collect()
    }

    fn objects(&self, ids: &[(HostId, bool)]) -> Vec<Value> {
        let chronicle = self.stage.chronicle();
        let object = |(id, shown): &(HostId, bool)| {
            let host = chronicle.host(*id);
            wishes::pod(host, self.node_name(host.node), *shown)
        };
        ids.iter().map(object).collect()
    }

    /// Writes a file, as a version of its own, and waits for the agents that run.
    fn wish(&mut self, file: &str, text: &str) -> Result<()> {
        let mut ids: Vec<(HostId, bool)> = self.residents.iter().map(|id| (*id, true)).collect();
        ids.extend(self.guest_ids());
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
            "name": "default", "labels": {"kubernetes.io/metadata.name": "default"}}});
        let version = Version {
            written: now(),
            in_force: [None; 2],
            pods: wishes::typed(&self.objects(&ids))?,
            namespaces: wishes::typed(&[namespace])?,
            policies: wishes::typed(&self.policies)?,
            listed: ids.iter().filter(|(_, shown)| *shown).map(|(id, _)| *id).collect(),
        };
        self.stage.chronicle().versions.push(version);
        let mut before = Vec::new();
        let running = self.running;
        for node in (0..2).filter(|node| running[*node]) {
            before.push((node, self.status(node)?.batches));
        }
        let manifests = self.agents.manifests();
        let aside = manifests.with_extension("aside");
        fs::write(&aside, text).with_context(|| format!("write {}", aside.display()))?;
        fs::rename(&aside, manifests.join(file)).with_context(|| format!("write {file}"))?;
        for (node, before) in before {
            self.wait(node, |status| status.batches > before)
                .with_context(|| format!("the edit of {file}: {text}"))?;
            self.in_force(node);
        }
        Ok(())
    }

    pub fn status(&mut self, node: usize) -> Result<Status> {
        let name = self.node_name(node);
        self.agents.on(name)?.status()
    }

    /// Waits until a node's agent is ready, unless a stranger's program keeps it from that, and has a
    /// property.
    pub fn wait(&mut self, node: usize, holds: impl Fn(&Status) -> bool) -> Result<Status> {
        let (name, excused) = (self.node_name(node), now() < self.excused);
        let agent = self.agents.on(name)?;
        let status = agent.wait(PATIENCE, |status| (status.ready || excused) && holds(status))?;
        if !status.ready {
            // What it has begun to write it may still be writing.
            thread::sleep(Duration::from_millis(300));
        }
        Ok(status)
    }

    /// All that was written so far is in force on a node.
    pub fn in_force(&mut self, node: usize) {
        let time = now();
        let mut chronicle = self.stage.chronicle();
        for version in chronicle.versions.iter_mut().rev() {
            if version.in_force[node].is_some() {
                break;
            }
            version.in_force[node] = Some(time);
        }
        chronicle.tell(format!("{}: all of it is in force", self.node_name(node)));
    }

    /// Waits until a node's agent has its programs on all guests' devices, and knows whose they are
    /// where the objects show it.
    pub fn settle(&mut self, node: usize) -> Result<()> {
        let (name, excused) = (self.node_name(node), now() < self.excused);
        let Self { agents, stage, guests, figures, started, .. } = self;
        let started = started[node];
        let settled = |status: &Status| {
            let whole = note(&mut stage.chronicle(), guests, figures, (node, started), status);
            whole && status.batches > 0 && (status.ready || excused)
        };
        agents.on(name)?.wait(PATIENCE, settled).map(drop)
    }

    pub fn tell(&self, what: String) {
        self.stage.chronicle().tell(what);
    }
}

/// Notes what an agent, started at some time, says of its node's guests; true when nothing is missing.
fn note(
    chronicle: &mut Chronicle,
    guests: &[Guest],
    figures: &mut Figures,
    (node, started): (usize, Time),
    status: &Status,
) -> bool {
    let time = now();
    let mut whole = true;
    for guest in guests {
        let host = chronicle.host_mut(guest.id);
        if host.node != node {
            continue;
        }
        let key = host.key();
        let device = status.devices.iter().find(|d| d.ifindex == guest.ifindex && d.attached);
        if device.is_some() && host.attached.is_none() {
            host.attached = Some(time);
            figures.window = figures.window.max(time.saturating_sub(host.born.max(started)));
        }
        let bound = device.is_some_and(|device| device.pod.as_ref() == Some(&key));
        if bound && host.bound.is_none() {
            host.bound = Some(time);
        }
        whole &= if guest.shown { bound } else { device.is_some() };
    }
    whole
}

/// Takes a frame that was captured.
fn hear(stage: &Stage, frame: Frame) {
    if !frame.outgoing
        && let Some(ip) = Seen::read(&frame.bytes).and_then(|seen| seen.ip)
    {
        stage.hear(Heard { host: frame.host, flow: ip.flow, form: ip.form });
    }
    stage.chronicle().hear(frame);
}
