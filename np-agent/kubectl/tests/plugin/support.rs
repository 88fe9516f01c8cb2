//! A cluster that is a table of answers: what a kubectl would print, by the words that it is called with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A row of the table.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub stdout: String,
    pub stderr: String,
    pub code: i32,
    /// Prints its input first.
    pub reads: bool,
    /// Takes a moment.
    pub slow: bool,
    /// Never ends by itself.
    pub hangs: bool,
}

impl Row {
    pub fn says(stdout: impl ToString) -> Self {
        Self { stdout: stdout.to_string(), ..Self::default() }
    }

    /// A command in a pod that exits with a code, as kubectl tells of it.
    pub fn exits(code: i32, stdout: impl ToString, stderr: &str) -> Self {
        let stderr = format!("{stderr}command terminated with exit code {code}\n");
        Self { stdout: stdout.to_string(), stderr, code, ..Self::default() }
    }

    /// kubectl itself fails.
    pub fn fails(stderr: &str) -> Self {
        Self { stderr: format!("{stderr}\n"), code: 1, ..Self::default() }
    }
}

pub struct Fake {
    place: TempDir,
    rows: usize,
}

impl Fake {
    pub fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("rows")).unwrap();
        fs::write(place.path().join("calls"), "").unwrap();
        Self { place, rows: 0 }
    }

    /// A cluster of nodes, each with the agent's pod `np-agent-NODE`.
    pub fn cluster(nodes: &[&str]) -> Self {
        let mut fake = Self::new();
        fake.nodes(nodes);
        let pods: Vec<Value> = nodes.iter().map(|node| agent(node)).collect();
        fake.agents(&pods);
        fake
    }

    pub fn nodes(&mut self, nodes: &[&str]) {
        let lines: String = nodes.iter().map(|node| format!("node/{node}\n")).collect();
        self.answer(&["get", "nodes", "kubernetes.io/os=linux", "name"], Row::says(lines));
    }

    /// What there is of the agents' pods: all of them, and those of each node.
    pub fn agents(&mut self, pods: &[Value]) {
        let list = |pods: Vec<&Value>| Row::says(json!({"kind": "List", "items": pods}));
        let words = ["get", "pods", "k8s-app=np-agent", "json"];
        for pod in pods {
            let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
            let selector = format!("spec.nodeName={node}");
            let here = pods.iter().filter(|pod| pod["spec"]["nodeName"] == node).collect();
            self.answer(&[&words[..], &["--field-selector", &selector]].concat(), list(here));
        }
        let nobody = list(Vec::new());
        self.answer(&[&words[..], &["--field-selector"]].concat(), nobody);
        self.answer(&words, list(pods.iter().collect()));
    }

    /// A pod of the cluster.
    pub fn pod(&mut self, namespace: &str, name: &str, spec: Value) {
        let pod = json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec});
        self.answer(&["get", "pod", name, "--namespace", namespace], Row::says(&pod));
    }

    /// What np-agent's command says on a node.
    pub fn on(&mut self, node: &str, command: &str, row: Row) {
        self.answer(&["exec", &format!("np-agent-{node}"), command], row);
    }

    /// A row of the table. The first counts whose words are all there.
    pub fn answer(&mut self, words: &[&str], row: Row) {
        let dir = self.place.path().join(format!("rows/{:04}", self.rows));
        self.rows += 1;
        fs::create_dir(&dir).unwrap();
        let lines: String = words.iter().map(|word| format!("{word}\n")).collect();
        for (name, text) in [
            ("words", &lines),
            ("stdout", &row.stdout),
            ("stderr", &row.stderr),
            ("code", &row.code.to_string()),
        ] {
            fs::write(dir.join(name), text).unwrap();
        }
        for (name, is) in [("reads", row.reads), ("slow", row.slow), ("hangs", row.hangs)] {
            if is {
                fs::write(dir.join(name), "").unwrap();
            }
        }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-np"));
        let fake = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake");
        let path = std::env::join_paths([fake, PathBuf::from("/usr/bin"), PathBuf::from("/bin")]);
        command.args(args).env("PATH", path.unwrap()).env("FAKE_KUBECTL", self.place.path());
        command.stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Said {
        Said::from(self.command(args).output().unwrap())
    }

    /// What the script was called with: the words of each call, or `end` alone when one ended.
    pub fn calls(&self) -> Vec<Vec<String>> {
        let text = fs::read_to_string(self.place.path().join("calls")).unwrap();
        let words = |line: &str| {
            let line = line.trim_start_matches('[').trim_end_matches(']');
            line.split("][").map(str::to_owned).collect()
        };
        text.lines().map(words).collect()
    }

    /// The words of the only command that was run in a pod, as np-agent gets them, and the pod.
    pub fn only_exec(&self) -> (String, Vec<String>) {
        let calls = self.calls();
        let mut execs = calls.iter().filter(|call| call[0] == "exec");
        let (call, further) = (execs.next().expect("an exec"), execs.next());
        assert_eq!(further, None);
        let dashes = call.iter().position(|word| word == "--").expect("two dashes");
        assert_eq!(call[dashes + 1], "np-agent");
        (call[dashes - 1].clone(), call[dashes + 2..].to_vec())
    }
}

/// What the command printed, and its exit code.
#[derive(Debug)]
pub struct Said {
    pub stdout: String,
    pub stderr: String,
    pub code: i32,
}

impl From<Output> for Said {
    fn from(Output { status, stdout, stderr }: Output) -> Self {
        Self {
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
            code: status.code().expect("it exits"),
        }
    }
}

impl Said {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The cells of the table's row that begins so; columns are three blanks apart.
    pub fn row(&self, first: &str) -> Vec<&str> {
        let lines = self.stdout.lines().map(|line| {
            line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>()
        });
        let mut lines = lines.filter(|cells| cells.first() == Some(&first));
        lines.next().unwrap_or_else(|| panic!("no row {first}: {self:?}"))
    }
}

/// The pod of a node's agent, running and ready.
pub fn agent(node: &str) -> Value {
    json!({
        "metadata": {"name": format!("np-agent-{node}"), "namespace": "kube-system"},
        "spec": {"nodeName": node},
        "status": {
            "phase": "Running",
            "containerStatuses": [{
                "name": "np-agent",
                "ready": true,
                "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
            }],
        },
    })
}

/// np-agent's status document, of an agent that is ready and enforces nothing.
pub fn status() -> Value {
    json!({
        "node": "n", "agent": "running", "ready": true, "generation": 1, "batches": 1,
        "objects": {"pods": 0, "namespaces": 0, "policies": 0}, "devices": [], "endpoints": [],
        "counters": [], "invalid": [], "narrowed": [], "api": [], "refused_sources": [],
        "held": [], "not_recorded": [], "diagnostics": [], "warnings": [], "repairs": 0,
    })
}

/// An endpoint of np-agent's list.
pub fn endpoint(pod: &str, ingress: &[&str]) -> Value {
    json!({
        "id": 1, "pod": pod, "uid": "u", "addresses": ["10.244.1.10"], "labels": {},
        "named_ports": [], "device": "veth1", "ifindex": 2,
        "ingress": {"isolated": !ingress.is_empty(), "policies": ingress},
        "egress": {"isolated": false, "policies": []},
    })
}
