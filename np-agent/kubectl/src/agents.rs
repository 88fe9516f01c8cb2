//! Which pod is the np-agent of a node, from what kubectl says of pods.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::{Error, Silence};
use crate::kubectl::Kubectl;

/// What deploy/base gives the agents' pods.
pub const SELECTOR: &str = "k8s-app=np-agent";
/// The container that runs the agent.
pub const CONTAINER: &str = "np-agent";
/// The nodes that the DaemonSet is for.
pub const NODES: &str = "kubernetes.io/os=linux";

/// The agent's pod of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    pub pod: String,
    pub state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Running {
        ready: bool,
    },
    /// It cannot be asked, and why.
    Not(String),
}

/// A node, and the agent that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub agent: Option<Agent>,
}

impl Node {
    /// The pod to ask.
    ///
    /// # Errors
    /// If there is none.
    pub fn pod(&self, namespace: &str) -> Result<&str, Silence> {
        let namespace = namespace.to_owned();
        match &self.agent {
            None => Err(Silence::NoAgent { namespace }),
            Some(Agent { pod, state: State::Running { .. } }) => Ok(pod),
            Some(Agent { pod, state: State::Not(why) }) => {
                Err(Silence::NotRunning { pod: pod.clone(), namespace, why: why.clone() })
            }
        }
    }
}

/// A list of pods, as far as it is read.
#[derive(Debug, Deserialize)]
struct Pods {
    items: Vec<Pod>,
}

/// A pod, as far as it is read.
#[derive(Debug, Deserialize)]
pub struct Pod {
    pub metadata: Metadata,
    #[serde(default)]
    pub spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    pub name: String,
    #[serde(default)]
    pub namespace: String,
    /// In one format and in UTC, so that the text's order is that of time.
    creation_timestamp: Option<String>,
    deletion_timestamp: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    pub node_name: Option<String>,
    pub host_network: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    phase: Option<String>,
    container_statuses: Vec<Container>,
}

#[derive(Debug, Deserialize)]
struct Container {
    name: String,
    #[serde(default)]
    ready: bool,
    #[serde(default)]
    state: ContainerState,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerState {
    running: Option<IgnoredAny>,
    waiting: Option<Reason>,
    terminated: Option<Reason>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reason {
    reason: String,
}

impl Pod {
    /// `namespace/name`, as np-agent names pods.
    pub fn key(&self) -> String {
        format!("{}/{}", self.metadata.namespace, self.metadata.name)
    }

    /// Returns the node that the pod is on.
    ///
    /// # Errors
    /// If it is on none yet.
    pub fn node(&self) -> Result<String, Error> {
        let node = self.spec.node_name.clone().filter(|node| !node.is_empty());
        node.ok_or_else(|| {
            let Metadata { namespace, name, .. } = &self.metadata;
            Error::Unscheduled { namespace: namespace.clone(), name: name.clone() }
        })
    }

    fn state(&self) -> State {
        let Status { phase, container_statuses } = &self.status;
        let container = container_statuses.iter().find(|container| container.name == CONTAINER);
        let state = container.map(|container| &container.state);
        if let Some(Container { ready, state: ContainerState { running: Some(_), .. }, .. }) =
            container
        {
            return State::Running { ready: *ready };
        }
        let reason = state.and_then(|state| state.waiting.as_ref().or(state.terminated.as_ref()));
        let reason = reason.map(|reason| &reason.reason).filter(|reason| !reason.is_empty());
        State::Not(reason.or(phase.as_ref()).map_or("no status yet", String::as_str).to_owned())
    }
}

/// Returns the agent of each node that has one. While a pod is replaced a node has two: one that runs
/// can be asked, and of two that run the one that stays.
fn by_node(pods: Vec<Pod>) -> BTreeMap<String, Agent> {
    let mut best = BTreeMap::new();
    for pod in pods {
        let state = pod.state();
        let Pod { metadata, spec: Spec { node_name: Some(node), .. }, .. } = pod else { continue };
        let stays = metadata.deletion_timestamp.is_none();
        let runs = matches!(state, State::Running { .. });
        let rank = (stays && runs, runs, stays, metadata.creation_timestamp);
        let agent = Agent { pod: metadata.name, state };
        match best.get(&node) {
            Some((other, _)) if *other > rank => {}
            _ => {
                best.insert(node, (rank, agent));
            }
        }
    }
    best.into_iter().map(|(node, (_, agent))| (node, agent)).collect()
}

/// Returns all nodes that should have an agent, and those that have one, by name.
///
/// # Errors
/// If kubectl fails or finds no agent.
pub fn everywhere(kubectl: &Kubectl) -> Result<Vec<Node>, Error> {
    let mut agents = agents(kubectl)?;
    let remedy = "this needs the right to list nodes, unless --node names one";
    let names = kubectl.get(&["nodes", "--selector", NODES, "-o", "name"], remedy)?;
    let names = names.lines().map(|line| line.strip_prefix("node/").unwrap_or(line));
    let mut nodes: Vec<Node> =
        names.map(|name| Node { name: name.to_owned(), agent: agents.remove(name) }).collect();
    nodes.extend(agents.into_iter().map(|(name, agent)| Node { name, agent: Some(agent) }));
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(nodes)
}

/// Returns one node with its agent.
///
/// # Errors
/// If kubectl fails.
pub fn on(kubectl: &Kubectl, node: &str) -> Result<Node, Error> {
    let selector = format!("spec.nodeName={node}");
    let found = list(kubectl, &["--field-selector", &selector])?;
    Ok(Node { name: node.to_owned(), agent: by_node(found).remove(node) })
}

/// Returns any node whose agent runs, a ready one if there is one.
///
/// # Errors
/// If kubectl fails, or no agent runs.
pub fn any(kubectl: &Kubectl) -> Result<Node, Error> {
    let agents = agents(kubectl)?;
    let find = |wanted: &[State]| agents.iter().find(|(_, agent)| wanted.contains(&agent.state));
    let found = find(&[State::Running { ready: true }])
        .or_else(|| find(&[State::Running { ready: false }]));
    let (name, agent) =
        found.ok_or_else(|| Error::NoneRuns { namespace: kubectl.agent_namespace.clone() })?;
    Ok(Node { name: name.clone(), agent: Some(agent.clone()) })
}

fn agents(kubectl: &Kubectl) -> Result<BTreeMap<String, Agent>, Error> {
    let pods = list(kubectl, &[])?;
    if pods.is_empty() {
        return Err(Error::NoAgents { namespace: kubectl.agent_namespace.clone() });
    }
    Ok(by_node(pods))
}

fn list(kubectl: &Kubectl, words: &[&str]) -> Result<Vec<Pod>, Error> {
    let namespace = &kubectl.agent_namespace;
    let all = ["pods", "--namespace", namespace, "--selector", SELECTOR];
    let remedy = format!(
        "this needs the right to list pods in namespace {namespace}, where np-agent is unless \
         --agent-namespace names another one"
    );
    let Pods { items } = kubectl.get_json(&[&all[..], words].concat(), &remedy)?;
    Ok(items)
}
