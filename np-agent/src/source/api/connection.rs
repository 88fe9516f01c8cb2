//! The client of the API server, and when it is replaced.
//!
//! kube reads certificates once, when a client is made. So a new one is made when a file that it
//! was made from has changed, when the server did not take our word for who we are, when a
//! connection failed, and now and then: a new connection may go to another server.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::Mutex;
use tokio::task;

use super::timing::{Dice, Timing};
use np_policy::model::NodeName;

/// Where the API server is, and who we are to it.
#[derive(Clone, Debug)]
pub enum Access {
    Kubeconfig(PathBuf),
    /// By the ServiceAccount of the pod that this process runs in.
    InCluster,
}

#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error("--kubeconfig {}: {error}; name a kubeconfig that this process may read", path.display())]
    Kubeconfig { path: PathBuf, error: String },
    #[error(
        "--kubeconfig {}: cluster {cluster:?} has proxy-url {proxy:?}, and np-agent speaks to the API server directly; remove proxy-url, or give np-agent a kubeconfig of its own",
        path.display()
    )]
    Proxy { path: PathBuf, cluster: String, proxy: String },
    #[error(
        "no access to the API server from inside the cluster: {0}; run in a pod with a ServiceAccount and automountServiceAccountToken, or give --kubeconfig FILE"
    )]
    InCluster(String),
    #[error(
        "cannot make a client of the API server: {0}; see to the certificates and keys that the kubeconfig names"
    )]
    Client(String),
}

/// What a file was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    state: Option<(u64, i64, i64, u64)>,
}

impl Stamp {
    fn of(path: PathBuf) -> Self {
        let state = std::fs::metadata(&path)
            .map(|file| (file.ino(), file.mtime(), file.mtime_nsec(), file.size()))
            .ok();
        Self { path, state }
    }

    fn holds(&self) -> bool {
        *self == Self::of(self.path.clone())
    }
}

struct Current {
    client: Client,
    stamps: Vec<Stamp>,
    built: Instant,
    until: Instant,
    suspect: bool,
}

/// Hands out the client.
pub(super) struct Connection {
    access: Access,
    node: NodeName,
    timing: Timing,
    current: Mutex<(Current, Dice)>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("access", &self.access).finish_non_exhaustive()
    }
}

impl Connection {
    /// Makes the first client. No byte is sent for that, unless a program is run that gives
    /// credentials.
    pub async fn open(
        access: Access,
        node: NodeName,
        timing: Timing,
        seed: u64,
    ) -> Result<Self, AccessError> {
        let mut dice = Dice::new(seed);
        let current = make(&access, &node, &timing, &mut dice).await?;
        Ok(Self { access, node, timing, current: Mutex::new((current, dice)) })
    }

    /// The client to make the next request with.
    pub async fn client(&self) -> Client {
        let (current, dice) = &mut *self.current.lock().await;
        // Five feeds that fail together need one new client, and not one each.
        let stale = (current.suspect && current.built.elapsed() >= self.timing.pace)
            || Instant::now() >= current.until
            || !current.stamps.iter().all(Stamp::holds);
        if stale {
            match make(&self.access, &self.node, &self.timing, dice).await {
                Ok(made) => *current = made,
                // What worked may work again.
                Err(error) => tracing::warn!("the former client stays in use: {error}"),
            }
        }
        current.client.clone()
    }

    /// Takes note that something is wrong with the connection or the credentials.
    pub async fn suspect(&self) {
        self.current.lock().await.0.suspect = true;
    }
}

async fn make(
    access: &Access,
    node: &NodeName,
    timing: &Timing,
    dice: &mut Dice,
) -> Result<Current, AccessError> {
    let (mut config, stamps) = match access {
        Access::Kubeconfig(path) => from_kubeconfig(path).await?,
        Access::InCluster => in_cluster()?,
    };
    config.connect_timeout = Some(timing.connect);
    // The deadlines are ours, and so are the pauses between tries.
    config.read_timeout = None;
    config.default_retry = false;
    let agent = format!("np-agent/{} ({node})", env!("CARGO_PKG_VERSION"));
    if let Ok(agent) = agent.parse() {
        config.headers.push((http::header::USER_AGENT, agent));
    }
    // A program that gives credentials is waited for.
    let made = task::spawn_blocking(move || Client::try_from(config)).await;
    let client = made
        .map_err(|error| AccessError::Client(error.to_string()))?
        .map_err(|error| AccessError::Client(chain(&error)))?;
    let built = Instant::now();
    let until = built + dice.between(timing.client.clone());
    Ok(Current { client, stamps, built, until, suspect: false })
}

/// Reads a kubeconfig. Every file is stamped before it is read, so that a change during the reading shows.
async fn from_kubeconfig(path: &Path) -> Result<(Config, Vec<Stamp>), AccessError> {
    let wrong = |error: &dyn std::error::Error| AccessError::Kubeconfig {
        path: path.to_owned(),
        error: chain(error),
    };
    let mut stamps = vec![Stamp::of(path.to_owned())];
    let kubeconfig = Kubeconfig::read_from(path).map_err(|error| wrong(&error))?;
    let stamp = |file: &String| Stamp::of(PathBuf::from(file));
    for cluster in &kubeconfig.clusters {
        let Some(of) = &cluster.cluster else { continue };
        stamps.extend(of.certificate_authority.as_ref().map(stamp));
        if let Some(proxy) = &of.proxy_url {
            let (cluster, proxy) = (cluster.name.clone(), proxy.clone());
            return Err(AccessError::Proxy { path: path.to_owned(), cluster, proxy });
        }
    }
    for user in kubeconfig.auth_infos.iter().filter_map(|user| user.auth_info.as_ref()) {
        let named = [&user.client_certificate, &user.client_key, &user.token_file];
        stamps.extend(named.into_iter().flatten().map(stamp));
    }
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let mut config = config.map_err(|error| wrong(&error))?;
    // What HTTPS_PROXY says is for other programs: the way to the API server is the kubeconfig's.
    config.proxy_url = None;
    Ok((config, stamps))
}

const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

fn in_cluster() -> Result<(Config, Vec<Stamp>), AccessError> {
    let stamps = ["token", "ca.crt"].map(|name| Stamp::of(Path::new(SERVICE_ACCOUNT).join(name)));
    let config = Config::incluster_env().map_err(|error| AccessError::InCluster(chain(&error)))?;
    Ok((config, stamps.into()))
}

/// An error with all that caused it, each once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
