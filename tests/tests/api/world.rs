//! A fake server, a source that follows it, and the index that its batches make.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use np_agent::source::Batch;
use np_agent::source::api::{Access, FeedStatus, Health, Resource, Source, Timing};
use np_policy::index::{Index, Touched};
use np_policy::model::{Change, Namespace, NodeName, Object, ObjectKey, Pod, Policy, PolicyKey};
use np_tests::fake_api::{self, FakeApi, NAMESPACES, NODES, PODS, POLICIES};
use serde_json::json;
use tokio::sync::mpsc::{Receiver, channel};

pub const NODE: &str = "node-1";
/// No test waits longer, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Deadlines as they are, a few hundred times as fast.
pub fn quick() -> Timing {
    let ms = Duration::from_millis;
    Timing {
        connect: ms(500),
        header: ms(250),
        page: ms(250),
        line: ms(400),
        watch: ms(5_000)..ms(9_000),
        backoff: ms(10)..ms(80),
        pace: ms(20),
        good: ms(500),
        gather: ms(2),
        client: Duration::from_secs(60)..Duration::from_secs(120),
        stagger: Duration::ZERO,
    }
}

/// A user of a kubeconfig whose token a program prints, and the file that it prints.
pub fn login(place: &Path, first: &str) -> (serde_json::Value, PathBuf) {
    let (program, token) = (place.join("login"), place.join("token"));
    fs::write(&token, first).expect("it is ours");
    let script = format!(
        "#!/bin/sh\nprintf '{{\"apiVersion\":\"client.authentication.k8s.io/v1\",\
         \"kind\":\"ExecCredential\",\"status\":{{\"token\":\"%s\"}}}}' \"$(cat {})\"\n",
        token.display()
    );
    fs::write(&program, script).expect("it is ours");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let exec = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1",
        "command": program, "interactiveMode": "Never"}});
    (exec, token)
}

/// A source that is followed, and what became of it.
pub struct Follower {
    pub index: Index,
    pub batches: Vec<Batch>,
    pub health: Health,
    receiver: Receiver<Batch>,
    _dir: tempfile::TempDir,
}

impl Follower {
    pub async fn start(api: &FakeApi) -> Self {
        Self::with(api, quick()).await
    }

    pub async fn with(api: &FakeApi, timing: Timing) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let file = api.kubeconfig(dir.path(), "secret").expect("it is ours");
        Self::over(dir, file, timing).await
    }

    pub async fn over(dir: tempfile::TempDir, kubeconfig: PathBuf, timing: Timing) -> Self {
        let access = Access::Kubeconfig(kubeconfig);
        let source = Source::open(access, NodeName(NODE.into()), timing).await;
        let source = source.unwrap_or_else(|error| panic!("{error}"));
        let health = source.health();
        let (sender, receiver) = channel(1);
        tokio::spawn(source.run(sender));
        let (index, batches) = (Index::default(), Vec::new());
        Self { index, batches, health, receiver, _dir: dir }
    }

    /// Takes in what comes until a property holds.
    #[track_caller]
    pub fn until(&mut self, property: impl Fn(&Self) -> bool) -> impl Future<Output = Duration> {
        let caller = std::panic::Location::caller();
        async move {
            let start = Instant::now();
            while !property(self) {
                let left = PATIENCE.saturating_sub(start.elapsed());
                assert!(!left.is_zero(), "{caller}: not in time: {:#?}", self.health);
                self.hear(left.min(Duration::from_millis(10))).await;
            }
            start.elapsed()
        }
    }

    /// Takes in what comes for so long.
    pub async fn for_a_while(&mut self, long: Duration) {
        let end = Instant::now() + long;
        while Instant::now() < end {
            self.hear(end.saturating_duration_since(Instant::now())).await;
        }
    }

    async fn hear(&mut self, patience: Duration) {
        if let Ok(batch) = tokio::time::timeout(patience, self.receiver.recv()).await {
            let batch = batch.expect("the source goes on");
            for change in &batch.changes {
                self.index.apply(change.clone(), &mut Touched::default());
            }
            self.batches.push(batch);
        }
    }

    /// Whether everything has been listed.
    pub fn whole(&self) -> bool {
        self.batches.last().is_some_and(|batch| batch.missing.is_empty())
    }

    /// Whether the index holds exactly what the server holds.
    pub fn equals(&self, api: &FakeApi) -> bool {
        self.whole() && held(&self.index) == expected(api)
    }

    pub fn feed(&self, resource: Resource) -> FeedStatus {
        let feeds = self.health.status();
        feeds.into_iter().find(|feed| feed.resource == resource).expect("every feed has a state")
    }

    pub fn relists(&self, resource: Resource, cause: &str) -> u64 {
        self.feed(resource).relists.get(cause).copied().unwrap_or(0)
    }

    pub fn policy(&self, name: &str) -> Option<&Policy> {
        self.index.policy(&PolicyKey::new("default", name)).map(|policy| &**policy)
    }

    pub fn owner(&self, address: &str) -> Option<String> {
        let address: IpAddr = address.parse().expect("an address");
        self.index.owner(address).map(|pod| pod.uid.to_string())
    }

    /// Everything that was taken away, by any batch since `from`.
    pub fn deletions(&self, from: usize) -> Vec<String> {
        let changes = self.batches[from..].iter().flat_map(|batch| &batch.changes);
        let gone = changes.filter_map(|change| match change {
            Change::Delete(key, _) => Some(key.to_string()),
            Change::Apply(_) | Change::Replace(..) => None,
        });
        gone.collect()
    }
}

/// What an index holds, in a form that can be compared.
#[derive(Debug, PartialEq, Eq)]
pub struct Held {
    pods: BTreeMap<String, String>,
    namespaces: Vec<String>,
    policies: Vec<String>,
    nodes: usize,
}

fn held(index: &Index) -> Held {
    let pod = |pod: &Pod| (pod.key.to_string(), format!("{} {:?}", pod.uid, pod.labels));
    let namespace = |namespace: &Namespace| format!("{} {:?}", namespace.name, namespace.labels);
    Held {
        // Those that policy knows: of others the feeds differ.
        pods: index.pods().filter(|pod| pod.enforceable()).map(pod).collect(),
        namespaces: index.namespaces().map(namespace).collect(),
        policies: index.policies().map(|policy| policy.key.to_string()).collect(),
        nodes: index.nodes().len(),
    }
}

fn expected(api: &FakeApi) -> Held {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let key = |object: &serde_json::Value| {
        let metadata = &object["metadata"];
        format!("{}/{}", text(&metadata["namespace"]), text(&metadata["name"]))
    };
    let labels = |object: &serde_json::Value| {
        let labels = object["metadata"]["labels"].as_object().cloned().unwrap_or_default();
        labels.iter().map(|(key, value)| (key.clone(), text(value))).collect::<BTreeMap<_, _>>()
    };
    let enforced = |pod: &serde_json::Value| {
        !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
            && pod["spec"]["hostNetwork"] != true
            && pod["status"]["podIP"].as_str().is_some_and(|address| !address.is_empty())
    };
    let uid = |object: &serde_json::Value| text(&object["metadata"]["uid"]);
    let pods = api.objects(PODS);
    let pods = pods.iter().filter(|pod| enforced(pod));
    let own = |node: &serde_json::Value| node["metadata"]["name"] == NODE;
    let namespace = |object: &serde_json::Value| {
        format!("{} {:?}", text(&object["metadata"]["name"]), labels(object))
    };
    Held {
        pods: pods.map(|pod| (key(pod), format!("{} {:?}", uid(pod), labels(pod)))).collect(),
        namespaces: api.objects(NAMESPACES).iter().map(namespace).collect(),
        policies: api.objects(POLICIES).iter().map(key).collect(),
        nodes: api.objects(NODES).iter().filter(|node| own(node)).count(),
    }
}

/// A small cluster: two pods here, one elsewhere, and a policy.
pub fn cluster() -> FakeApi {
    let api = FakeApi::start().expect("a listener");
    api.apply(NAMESPACES, fake_api::namespace("default", &[("team", "a")]));
    api.apply(
        NODES,
        json!({"metadata": {"name": NODE}, "status": {"addresses": [
        {"type": "InternalIP", "address": "192.0.2.1"}, {"type": "InternalDNS", "address": "n"}]}}),
    );
    api.apply(NODES, json!({"metadata": {"name": "node-2"}}));
    api.apply(PODS, fake_api::pod("default/web", "uid-web", NODE, "10.0.0.1", "web"));
    api.apply(PODS, fake_api::pod("default/db", "uid-db", NODE, "10.0.0.2", "db"));
    api.apply(PODS, fake_api::pod("default/far", "uid-far", "node-2", "10.0.1.1", "far"));
    api.apply(POLICIES, fake_api::policy("default/who-may", who_may("far")));
    api
}

/// Only pods of one app may speak to db.
pub fn who_may(app: &str) -> serde_json::Value {
    json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": app}}}]}]})
}

/// Whether the one policy lets pods of an app in.
pub fn admits(follower: &Follower, app: &str) -> bool {
    let labels = [("app".to_owned(), app.to_owned())].into();
    let policy = follower.policy("who-may");
    policy.and_then(|policy| policy.ingress.as_deref()).is_some_and(|rules| {
        let peers = rules.iter().filter_map(|rule| rule.peers.as_deref()).flatten();
        peers.into_iter().any(|peer| match peer {
            np_policy::model::Peer::Pods { pods, .. } => pods.matches(&labels),
            np_policy::model::Peer::IpBlock(_) => false,
        })
    })
}

/// The objects that a batch replaces a collection with.
pub fn replaced(batch: &Batch) -> Vec<&[Object]> {
    let changes = batch.changes.iter();
    let replaced = changes.filter_map(|change| match change {
        Change::Replace(_, objects) => Some(objects.as_slice()),
        Change::Apply(_) | Change::Delete(..) => None,
    });
    replaced.collect()
}

pub fn key_of_pod(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::Pod(np_policy::model::PodKey::new(namespace, name))
}
