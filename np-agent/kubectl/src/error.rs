//! What can go wrong: with a whole command, or with one node of many.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::agents::{Node, SELECTOR};

/// Why a command has no answer at all.
#[derive(Debug, Error)]
pub enum Error {
    #[error(
        "there is no kubectl in PATH; install it (https://kubernetes.io/docs/tasks/tools/) or add its \
         directory to PATH"
    )]
    NoKubectl,
    #[error("cannot run kubectl: {0}; see that the kubectl in PATH is a program that you may run")]
    Kubectl(io::Error),
    #[error("`kubectl {words}` failed ({status}) and said why; {remedy}")]
    Refused { words: String, status: String, remedy: String },
    #[error(
        "`kubectl {words}` printed something unexpected: {problem}; see that the kubectl in PATH is \
         kubectl"
    )]
    Unexpected { words: String, problem: serde_json::Error },
    #[error(
        "namespace {namespace}: no np-agent pod is there (label {SELECTOR}); name the namespace of the \
         agents with --agent-namespace, or install np-agent"
    )]
    NoAgents { namespace: String },
    #[error(
        "namespace {namespace}: no np-agent pod (label {SELECTOR}) is running; `kubectl np status` says \
         why, per node"
    )]
    NoneRuns { namespace: String },
    #[error(
        "{field} {value:?} is not a valid end of a connection; give namespace/pod, the name of a pod, an \
         address, or node:NAME"
    )]
    End { field: &'static str, value: String },
    #[error("POD {value:?} is not the name of a pod; give NAME or NAMESPACE/NAME")]
    Pod { value: String },
    #[error(
        "Pod {namespace}/{name}: spec.nodeName is empty: the pod is on no node yet; `kubectl describe pod \
         {name} --namespace {namespace}` says why"
    )]
    Unscheduled { namespace: String, name: String },
    #[error("--probes {}: {source}; name a file of this machine, or - for stdin", path.display())]
    Probes { path: PathBuf, source: io::Error },
    /// The one node that could have answered has not.
    #[error("node {node}: {silence}")]
    Silent { node: String, silence: Silence },
    #[error("cannot write to standard output: {0}; see whether its device is full")]
    Output(io::Error),
}

/// Why there is no answer from the agent of a node.
#[derive(Debug, Error)]
pub enum Silence {
    #[error(
        "no np-agent pod is there (namespace {namespace}, label {SELECTOR}); `kubectl describe daemonset \
         --namespace {namespace} --selector {SELECTOR}` says why, and `kubectl get nodes` lists the nodes"
    )]
    NoAgent { namespace: String },
    #[error(
        "pod {pod} does not run ({why}); `kubectl describe pod {pod} --namespace {namespace}` and \
         `kubectl logs {pod} --namespace {namespace} --previous` say more"
    )]
    NotRunning { pod: String, namespace: String, why: String },
    #[error(
        "pod {pod} has not answered within {seconds} s; see whether the node is Ready (`kubectl get \
         nodes`), or allow more time with --timeout"
    )]
    Late { pod: String, seconds: u64 },
    #[error("cannot run kubectl: {0}; see whether this machine has processes and memory left")]
    Kubectl(io::Error),
    #[error(
        "pod {pod} cannot be asked: {said}; see whether the node is Ready (`kubectl get nodes`), and \
         whether you may: `kubectl auth can-i create pods/exec --namespace {namespace}`"
    )]
    Unreachable { pod: String, namespace: String, said: String },
    #[error(
        "pod {pod} has no answer: {said}; `kubectl logs {pod} --namespace {namespace}` says more"
    )]
    Failed { pod: String, namespace: String, said: String },
    #[error(
        "pod {pod} gives an answer that this kubectl-np {} does not understand: {problem}; use the \
         kubectl-np of that np-agent's version", env!("CARGO_PKG_VERSION")
    )]
    Unreadable { pod: String, problem: serde_json::Error },
}

impl Silence {
    /// The error of a command that asks this node only.
    pub fn on(self, node: &Node) -> Error {
        Error::Silent { node: node.name.clone(), silence: self }
    }
}
