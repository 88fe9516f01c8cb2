//! One node, four pods, one agent: small, so that every test has its own.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use np_agent::dataplane::Mechanism;
use np_tests::address::Family;
use np_tests::agent::{Agent, Agents, DeviceStatus, POLICIES, Status};
use np_tests::netns::Namespace;
use np_tests::probe::conversation::Conversation;
use np_tests::probe::server::{Listen, Servers};
use np_tests::probe::{IMPATIENCE, Kind, Outcome, PATIENCE, probe};
use np_tests::proxy::Mode;
use np_tests::topology::{self, Cluster, NamespaceSpec, NodeSpec, PodSpec, Spec, host_device};

pub const NODE: &str = "node-1";
/// How long an agent may take to see and do something on a busy machine.
pub const SETTLE: Duration = Duration::from_secs(60);

const LISTEN: Listen = Listen { tcp: &[80], udp: &[8443], dns: false };
const NOTHING: Listen = Listen { tcp: &[], udp: &[], dns: false };

/// Only `client` may speak to pods that serve.
pub const CLIENT: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: who-may
  namespace: default
spec:
  podSelector:
    matchLabels: {app: server}
  policyTypes: [Ingress]
  ingress:
    - from:
        - podSelector:
            matchExpressions:
              - {key: app, operator: In, values: [client]}
";

/// As [`CLIENT`], and `guest` may too.
pub fn client_and_guest() -> String {
    CLIENT.replace("[client]", "[client, guest]")
}

#[derive(Debug)]
pub struct World {
    // Dropped in this order: the agent cleans up while its node exists.
    pub agents: Agents,
    pub cluster: Cluster,
    late: Vec<Namespace>,
    servers: Servers,
}

impl World {
    /// Builds the cluster and starts its agent with a file of policies.
    pub fn new(policies: &str) -> Self {
        Self::build(policies).unwrap_or_else(|error| panic!("{error:#}"))
    }

    fn build(policies: &str) -> Result<Self> {
        let cluster = Cluster::build(spec(), Mode::Nftables)?;
        let agents = Agents::start(&cluster)?;
        let mut world = Self { agents, cluster, late: Vec::new(), servers: Servers::new()? };
        world.agents.apply(POLICIES, Some(policies))?;
        Ok(world)
    }

    pub fn agent(&mut self) -> &mut Agent {
        self.agents.on(NODE).expect("an agent runs on the one node")
    }

    pub fn node(&self) -> &Namespace {
        self.cluster.namespace(NODE).expect("the node has a namespace")
    }

    /// The namespace of a pod, also of one that came late.
    pub fn pod(&self, name: &str) -> &Namespace {
        let late = self.late.iter().rev().find(|inside| inside.name() == name);
        late.unwrap_or_else(|| self.cluster.namespace(name).expect("the pod is one of the spec"))
    }

    /// Builds the cluster and prepares its agent over an API server, which the caller fills and
    /// starts the agent for.
    pub fn over_server(kubeconfig: impl FnOnce(&Namespace) -> PathBuf) -> Self {
        let build = || -> Result<Self> {
            let cluster = Cluster::build(spec(), Mode::Nftables)?;
            let kubeconfig = kubeconfig(cluster.namespace(NODE)?);
            let agents = Agents::over_server(&cluster, &kubeconfig)?;
            Ok(Self { agents, cluster, late: Vec::new(), servers: Servers::new()? })
        };
        build().unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Writes or removes a manifest without waiting for the agent.
    pub fn write(&self, file: &str, content: Option<&str>) {
        let target = self.agents.manifests().join(file);
        let Some(content) = content else {
            return fs::remove_file(target).expect("the manifest is there");
        };
        let aside = self.agents.manifests().with_extension("aside");
        fs::write(&aside, content).expect("the directory is ours");
        fs::rename(aside, target).expect("the directory is ours");
    }

    pub fn apply(&mut self, file: &str, content: Option<&str>) {
        self.agents.apply(file, content).unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Waits until the agent is ready and its status has a property.
    pub fn wait(&mut self, what: &str, mut property: impl FnMut(&Status) -> bool) -> Status {
        let waited = self.agent().wait(SETTLE, |status| status.ready && property(status));
        waited.unwrap_or_else(|error| panic!("{what}: {error:#}"))
    }

    /// Waits until a device has a role.
    pub fn wait_role(&mut self, device: &str, role: &str) -> DeviceStatus {
        let status = self.wait(&format!("{device} is {role}"), |status| {
            device_of(status, device).is_some_and(|device| device.role == role && device.attached)
        });
        device_of(&status, device).expect("it was there").clone()
    }

    /// Waits until a device has a role, although the agent is not ready: pods are without a device.
    pub fn wait_role_unready(&mut self, device: &str, role: &str) -> DeviceStatus {
        let status = self.wait_unready(&format!("{device} is {role}"), |status| {
            device_of(status, device).is_some_and(|device| device.role == role && device.attached)
        });
        device_of(&status, device).expect("it was there").clone()
    }

    /// Waits until the agent is not ready and its status has a property.
    pub fn wait_unready(
        &mut self,
        what: &str,
        mut property: impl FnMut(&Status) -> bool,
    ) -> Status {
        let waited = self.agent().wait(SETTLE, |status| !status.ready && property(status));
        waited.unwrap_or_else(|error| panic!("{what}: {error:#}"))
    }

    /// Starts the agent, which will not be ready.
    pub fn start_unready(&mut self) {
        self.agent().start().unwrap_or_else(|error| panic!("{error:#}"));
    }

    pub fn start(&mut self) {
        let started = self.agent().start().and_then(|()| self.agent().wait_ready(SETTLE));
        started.unwrap_or_else(|error| panic!("{error:#}"));
    }

    pub fn stop(&mut self) {
        let status = self.agent().terminate().unwrap_or_else(|error| panic!("{error:#}"));
        assert_eq!(status.code(), Some(0), "{}", self.agent().log());
    }

    /// Adds a pod's namespace, servers and veth; its object is the caller's to write.
    pub fn wire(&mut self, pod: &Late) {
        self.wired(pod).unwrap_or_else(|error| panic!("{error:#}"));
    }

    fn wired(&mut self, pod: &Late) -> Result<()> {
        let inside = Namespace::new(pod.name)?;
        let (address, device) = (pod.address, pod.device());
        let index = pod.index.map(|index| format!("index {index}")).unwrap_or_default();
        self.node().ip(&format!(
            "link add {device} {index} type veth peer name eth0 netns {}",
            inside.path().display()
        ))?;
        match pod.shape {
            Shape::Routed => {
                self.node()
                    .ip(&format!("link set {device} up\nroute add {address}/32 dev {device}"))?;
                topology::answer_for_gateway(self.node(), &device)?;
                inside.ip(&format!(
                    "link set lo up\naddr add {address}/32 dev eth0\nlink set eth0 up\n\
                     route add 169.254.1.1 dev eth0 scope link\n\
                     route add default via 169.254.1.1 dev eth0"
                ))?;
            }
            Shape::Bridged => {
                self.node().ip(&format!("link set {device} master {BRIDGE} up"))?;
                inside.ip(&format!(
                    "link set lo up\naddr add {address}/25 dev eth0\nlink set eth0 up\n\
                     route add default via {GATEWAY} dev eth0 onlink"
                ))?;
            }
        }
        self.servers.start(pod.name, &inside, LISTEN, &[])?;
        self.late.push(inside);
        Ok(())
    }

    /// A bridge for pods without host routes: nothing the node made tells their addresses.
    pub fn add_bridge(&self) {
        let made = self.node().ip(&format!(
            "link add {BRIDGE} type bridge\naddr add {GATEWAY}/25 dev {BRIDGE}\n\
             link set {BRIDGE} up"
        ));
        made.unwrap_or_else(|error| panic!("{error:#}"));
    }

    pub fn unwire(&self, pod: &Late) {
        let gone = self.node().ip(&format!("link del {}", pod.device()));
        gone.unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Whether a new TCP connection to port 80 gets through.
    pub fn reaches(&self, from: &Namespace, to: Ipv4Addr, expected: bool) -> Result<()> {
        self.connects(from, to, 80, expected)
    }

    /// Whether a new TCP connection gets through. Anything but an answer or silence is a failure
    /// of the test.
    pub fn connects(
        &self,
        from: &Namespace,
        to: Ipv4Addr,
        port: u16,
        expected: bool,
    ) -> Result<()> {
        let patience = if expected { PATIENCE } else { IMPATIENCE };
        let outcome = probe(from, IpAddr::V4(to), Kind::Tcp(port), patience);
        let as_expected =
            if expected { outcome.replied() } else { matches!(outcome, Outcome::Timeout) };
        ensure!(as_expected, "{} to {to}: {outcome}", from.name());
        Ok(())
    }

    /// That new connections from `from` to `to` are (not) answered.
    #[track_caller]
    pub fn assert_reaches(&self, from: &str, to: Ipv4Addr, expected: bool) {
        let reached = self.reaches(self.pod(from), to, expected);
        reached.unwrap_or_else(|error| panic!("expected to reach: {expected}; {error:#}"));
    }

    /// That `server` answers exactly those of the other pods that it should.
    #[track_caller]
    pub fn assert_served(&self, client: bool, guest: bool, stranger: bool) {
        let server = self.address("server");
        for (from, expected) in [("client", client), ("guest", guest), ("stranger", stranger)] {
            self.assert_reaches(from, server, expected);
        }
    }

    pub fn address(&self, name: &str) -> Ipv4Addr {
        self.cluster.spec.address(name).expect("the pod is one of the spec")
    }

    pub fn talk(&self, from: &str, to: &str) -> Conversation {
        let to = self.cluster.address(to, Family::V4).expect("the pod is one of the spec");
        let talk = Conversation::tcp(self.pod(from), to, 80);
        let talk = talk.unwrap_or_else(|error| panic!("{error:#}"));
        assert!(talk.goes_on(10, PATIENCE), "{from} → {to}: {:?}", talk.progress());
        talk
    }
}

/// That a conversation continues, and that none of its segments had to be sent again (which TCP
/// does after 200 ms at the earliest).
#[track_caller]
pub fn assert_lost_nothing(talk: &Conversation) {
    assert!(talk.goes_on(20, Duration::from_secs(10)), "it stalls: {:?}", talk.progress());
    let progress = talk.progress();
    assert_eq!(progress.ended, None);
    assert!(progress.longest_wait < Duration::from_millis(200), "{progress:?}");
}

pub fn device_of<'a>(status: &'a Status, name: &str) -> Option<&'a DeviceStatus> {
    status.devices.iter().find(|device| device.name == name)
}

/// Waits for something outside the agent's status.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + SETTLE;
    while !is_so() {
        assert!(Instant::now() < end, "not within {SETTLE:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A pod that is attached by hand, after the agent has started.
#[derive(Clone, Copy, Debug)]
pub struct Late {
    pub name: &'static str,
    pub address: Ipv4Addr,
    pub shape: Shape,
    /// The device's index, where the test wants a certain one.
    pub index: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A host route leads to the pod.
    Routed,
    /// The pod is a port of a bridge; only its own address tells who it is.
    Bridged,
}

pub const BRIDGE: &str = "pods";
pub const GATEWAY: &str = "100.68.1.129";

impl Late {
    pub fn new(name: &'static str, last: u8, shape: Shape) -> Self {
        Self { name, address: Ipv4Addr::new(100, 68, 1, last), shape, index: None }
    }

    pub fn device(&self) -> String {
        host_device(self.name)
    }

    /// The pod's object.
    pub fn object(&self, app: &str) -> String {
        let Self { name, address, .. } = self;
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: default\n  \
             labels: {{app: {app}}}\nspec:\n  nodeName: {NODE}\nstatus:\n  phase: Running\n  \
             podIP: {address}\n"
        )
    }
}

fn spec() -> Spec {
    let pod = |(name, labels, last)| PodSpec {
        name,
        namespace: "default",
        node: NODE,
        labels,
        address: Some(Ipv4Addr::new(100, 68, 1, last)),
        host_ports: &[],
    };
    let block = |text: &str| text.parse().context("a block").expect("blocks are literals");
    Spec {
        node_network: block("192.168.64.0/19"),
        router: Ipv4Addr::new(192, 168, 64, 1),
        pod_range: block("100.68.0.0/14"),
        unmasqueraded: vec![block("100.64.0.0/10"), block("192.168.0.0/16")],
        namespaces: vec![NamespaceSpec { name: "default", labels: &[] }],
        nodes: vec![NodeSpec {
            name: NODE,
            address: Ipv4Addr::new(192, 168, 65, 10),
            pod_block: block("100.68.1.0/24"),
        }],
        pods: [
            ("server", &[("app", "server")] as np_tests::topology::Labels, 10),
            ("client", &[("app", "client")], 20),
            ("guest", &[("app", "guest")], 30),
            ("stranger", &[("app", "stranger")], 40),
        ]
        .map(pod)
        .to_vec(),
        outside: Vec::new(),
        services: Vec::new(),
        pod_ports: LISTEN,
        node_ports: NOTHING,
        outside_ports: NOTHING,
        shape: topology::Shape::PTP,
    }
}

/// The links that are pinned for so many devices. Before TCX there are filters, which go with their
/// device and need none.
pub fn links_at(devices: usize) -> usize {
    match Mechanism::of_kernel().expect("the kernel can be asked") {
        Mechanism::Tcx => 2 * devices,
        Mechanism::Clsact => 0,
    }
}
