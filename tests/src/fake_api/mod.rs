//! An API server of our own making: lists and watches over plain HTTP/1.1, as kube-apiserver sends
//! them, and everything that can go wrong between it and a client.
//!
//! It keeps objects as JSON, with resourceVersions and a history that watches resume from. A
//! [`Fault`] is played to the next requests that fit.

mod from_model;
mod select;
mod serve;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::address::Family;
use crate::topology::{NamespaceSpec, Spec};

pub use from_model::from_model;
pub use select::matches;

pub const NAMESPACES: &str = "/api/v1/namespaces";
pub const NODES: &str = "/api/v1/nodes";
pub const PODS: &str = "/api/v1/pods";
pub const POLICIES: &str = "/apis/networking.k8s.io/v1/networkpolicies";

#[derive(Debug)]
pub struct FakeApi {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    version: u64,
    /// By path of the collection and name.
    objects: BTreeMap<(String, String), Value>,
    history: Vec<Change>,
    /// Watches cannot resume from before this.
    oldest: u64,
    page: usize,
    bookmarks: Duration,
    faults: Vec<(On, Fault, usize)>,
    requests: Vec<Request>,
    connections: Vec<TcpStream>,
    /// What a client may say who it is by; none: anybody may.
    token: Option<String>,
    /// A server that does not know this field selector answers 400.
    unknown_field: Option<String>,
    page_delay: Duration,
    /// Watches with a field selector that begins like this hear of everything late.
    late: Option<(String, Duration)>,
    stopped: bool,
}

#[derive(Clone, Debug)]
struct Change {
    path: String,
    version: u64,
    before: Option<Value>,
    /// None when it is deleted.
    after: Option<Value>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub at: Instant,
    pub method: String,
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn watch(&self) -> bool {
        self.query.get("watch").is_some_and(|watch| watch == "true")
    }

    /// A page after the first one.
    pub fn continued(&self) -> bool {
        self.query.contains_key("continue")
    }
}

/// Which requests a fault is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    List(&'static str),
    /// The page that a token asks for.
    NextPage(&'static str),
    Watch(&'static str),
    Patch,
    Anything,
}

impl On {
    fn fits(self, request: &Request) -> bool {
        match self {
            On::List(path) => request.path == path && !request.watch(),
            On::NextPage(path) => request.path == path && request.continued(),
            On::Watch(path) => request.path == path && request.watch(),
            On::Patch => request.method == "PATCH",
            On::Anything => true,
        }
    }
}

#[derive(Clone, Debug)]
pub enum Fault {
    /// Not a byte of an answer, and no end either.
    BlackHole,
    /// The header and half of the body, then nothing more.
    Stall,
    /// So many bytes of the body, then the connection is closed.
    Cut(usize),
    Status(u16, &'static str),
    RetryAfter(u16, u64),
    /// 200, and the end of the answer.
    Empty,
    /// A watch that stands and never brings a byte.
    Silence,
    /// These lines come first, then what would have come.
    Lines(Vec<String>),
    /// This text in the place of a list.
    Text(String),
    /// Before anything is answered.
    Delay(Duration),
}

/// As long as a fault is to last for good.
pub const ALWAYS: usize = usize::MAX;

impl FakeApi {
    pub fn start() -> io::Result<Self> {
        Self::on(TcpListener::bind(("127.0.0.1", 0))?)
    }

    /// Serves on a listener, which may be one in another network namespace.
    pub fn on(listener: TcpListener) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let state = State {
            version: 1000,
            objects: BTreeMap::new(),
            history: Vec::new(),
            oldest: 0,
            page: 500,
            bookmarks: Duration::from_millis(50),
            faults: Vec::new(),
            requests: Vec::new(),
            connections: Vec::new(),
            token: None,
            unknown_field: None,
            page_delay: Duration::ZERO,
            late: None,
            stopped: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let serving = shared.clone();
        listener.set_nonblocking(true)?;
        thread::spawn(move || {
            while !lock(&serving).stopped {
                let Ok((stream, _)) = listener.accept() else {
                    thread::sleep(Duration::from_millis(1));
                    continue;
                };
                if stream.set_nonblocking(false).is_err() {
                    continue;
                }
                let shared = serving.clone();
                if let Ok(copy) = stream.try_clone() {
                    lock(&serving).connections.push(copy);
                }
                thread::spawn(move || serve::connection(&shared, stream));
            }
        });
        Ok(Self { address, shared })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.shared)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Writes a kubeconfig that leads here.
    pub fn kubeconfig(&self, dir: &Path, token: &str) -> io::Result<PathBuf> {
        let path = dir.join("kubeconfig");
        fs::write(&path, kubeconfig(&self.url(), &json!({"token": token})))?;
        Ok(path)
    }

    /// Creates or replaces an object, and returns its resourceVersion.
    pub fn apply(&self, path: &str, mut object: Value) -> u64 {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = version.to_string().into();
        let key = (path.to_owned(), name_of(&object));
        let before = state.objects.insert(key, object.clone());
        state.history.push(Change { path: path.to_owned(), version, before, after: Some(object) });
        drop(state);
        self.shared.changed.notify_all();
        version
    }

    /// Deletes an object by "namespace/name", or the name of one without namespace.
    pub fn delete(&self, path: &str, name: &str) {
        let mut state = self.state();
        let Some(before) = state.objects.remove(&(path.to_owned(), name.to_owned())) else {
            return;
        };
        state.version += 1;
        let version = state.version;
        let before = Some(before);
        state.history.push(Change { path: path.to_owned(), version, before, after: None });
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Plays a fault to the next requests that fit.
    pub fn fault(&self, on: On, fault: Fault, times: usize) {
        self.state().faults.push((on, fault, times));
    }

    /// Ends all faults.
    pub fn heal(&self) {
        self.state().faults.clear();
        self.shared.changed.notify_all();
    }

    /// Ends every connection.
    pub fn disconnect(&self) {
        for connection in std::mem::take(&mut self.state().connections) {
            connection.shutdown(Shutdown::Both).ok();
        }
    }

    /// Forgets what happened so far: watches cannot resume.
    pub fn compact(&self) {
        let mut state = self.state();
        state.oldest = state.version + 1;
        state.version += 1;
        state.history.clear();
    }

    /// Forgets what happened so far and ends every connection, so that no client can resume.
    pub fn expire(&self) {
        let mut state = self.state();
        for connection in std::mem::take(&mut state.connections) {
            connection.shutdown(Shutdown::Both).ok();
        }
        state.version += 1;
        state.oldest = state.version;
        state.history.clear();
    }

    /// Goes back to an older state, as an etcd that is restored: versions are given again.
    pub fn restore(&self, objects: Snapshot) {
        let mut state = self.state();
        state.version = objects.version;
        state.objects = objects.objects;
        state.history.clear();
    }

    pub fn snapshot(&self) -> Snapshot {
        let state = self.state();
        Snapshot { version: state.version, objects: state.objects.clone() }
    }

    pub fn set_page(&self, page: usize) {
        self.state().page = page;
    }

    pub fn set_page_delay(&self, delay: Duration) {
        self.state().page_delay = delay;
    }

    /// Lets watches whose field selector begins like this hear of everything late.
    pub fn stall_watches(&self, selector: &str, late: Duration) {
        self.state().late = Some((selector.to_owned(), late));
    }

    pub fn require_token(&self, token: &str) {
        self.state().token = Some(token.to_owned());
    }

    pub fn without_field(&self, field: &str) {
        self.state().unknown_field = Some(field.to_owned());
    }

    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    /// Everything of a collection.
    pub fn objects(&self, path: &str) -> Vec<Value> {
        let state = self.state();
        let of = state.objects.iter().filter(|((of, _), _)| of == path);
        of.map(|(_, object)| object.clone()).collect()
    }
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        self.state().stopped = true;
        self.shared.changed.notify_all();
        self.disconnect();
    }
}

/// What a server held at some time.
#[derive(Clone, Debug)]
pub struct Snapshot {
    version: u64,
    objects: BTreeMap<(String, String), Value>,
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn name_of(object: &Value) -> String {
    let text = |field: &str| object["metadata"][field].as_str();
    let name = text("name").unwrap_or_default();
    text("namespace").map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"))
}

/// A kubeconfig, which may be JSON as well as YAML.
pub fn kubeconfig(url: &str, user: &Value) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "users": [{"name": "test", "user": user}],
    })
    .to_string()
}

/// The objects of a cluster of network namespaces.
pub fn fill(api: &FakeApi, spec: &Spec) {
    for NamespaceSpec { name, labels } in &spec.namespaces {
        api.apply(NAMESPACES, namespace(name, labels));
    }
    for node in &spec.nodes {
        let addresses = Family::BOTH.map(|family| {
            json!({"type": "InternalIP", "address": family.address(node.address).to_string()})
        });
        api.apply(
            NODES,
            json!({
                "metadata": {"name": node.name},
                "spec": {"podCIDRs": [node.pod_block.to_string()]},
                "status": {"addresses": addresses},
            }),
        );
    }
    for of in &spec.pods {
        let Some(address) = spec.address(of.name) else { continue };
        let key = format!("{}/{}", of.namespace, of.name);
        let mut object = pod(&key, &format!("uid-{}", of.name), of.node, "", "");
        object["metadata"]["labels"] = json!(of.labels.iter().copied().collect::<BTreeMap<_, _>>());
        let addresses = Family::BOTH.map(|family| family.address(address).to_string());
        object["status"]["podIP"] = addresses[0].clone().into();
        object["status"]["podIPs"] = addresses.map(|ip| json!({"ip": ip})).to_vec().into();
        api.apply(PODS, object);
    }
}

/// A namespace as the server shows it.
pub fn namespace(name: &str, labels: &[(&str, &str)]) -> Value {
    let mut labels: BTreeMap<&str, &str> = labels.iter().copied().collect();
    labels.insert("kubernetes.io/metadata.name", name);
    json!({"metadata": {"name": name, "uid": format!("ns-{name}"), "labels": labels}})
}

/// A running pod as the server shows it, with much that policy does not read.
pub fn pod(key: &str, uid: &str, node: &str, address: &str, app: &str) -> Value {
    let (namespace, name) = key.split_once('/').unwrap_or(("default", key));
    json!({
        "metadata": {
            "name": name, "namespace": namespace, "uid": uid, "labels": {"app": app},
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}],
        },
        "spec": {
            "nodeName": node,
            "containers": [{"name": "c", "image": "x", "env": [{"name": "A", "value": "1"}],
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]}],
        },
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    })
}

/// A NetworkPolicy as the server shows it.
pub fn policy(key: &str, spec: Value) -> Value {
    let (namespace, name) = key.split_once('/').unwrap_or(("default", key));
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace, "uid": format!("np-{name}"),
            "generation": 1, "creationTimestamp": "2026-01-02T03:04:05Z"},
        "spec": spec,
    })
}
