//! Where this agent's objects come from, by its flags and its surroundings, and the thread that
//! reads them.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::sync::oneshot;

use crate::source::api::{Access, Health, Source, Timing};
use crate::source::{self, Batch, Manifests};
use np_policy::model::NodeName;

#[derive(Clone, Debug)]
pub enum Origin {
    Manifests(PathBuf),
    Server(Access),
}

/// An origin that can be read, as far as that is known without reading it.
#[derive(Debug)]
pub enum Opened {
    Manifests(Manifests),
    Server(Access),
}

/// What comes from there.
#[derive(Debug)]
pub struct Feed {
    /// Ends when nothing comes any more; then the thread says why.
    pub batches: Receiver<Batch>,
    thread: thread::JoinHandle<anyhow::Result<()>>,
    /// None where there is no API server.
    pub health: Option<Health>,
    /// Waits to hear that everything is in force for the first time.
    pub started: Option<oneshot::Sender<()>>,
}

/// Set by the kubelet in every container.
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";
/// So many agents that start at once list within so long.
const STAGGER: Duration = Duration::from_secs(5);

impl Origin {
    pub fn of(manifests: Option<PathBuf>, kubeconfig: Option<PathBuf>) -> anyhow::Result<Self> {
        match (manifests, kubeconfig) {
            (Some(dir), None) => Ok(Origin::Manifests(dir)),
            (None, Some(file)) => Ok(Origin::Server(Access::Kubeconfig(file))),
            (Some(_), Some(_)) => bail!(
                "--kubeconfig and --manifests exclude one another: objects come from an API server \
                 or from a directory; give one of them"
            ),
            (None, None) if env::var_os(IN_CLUSTER).is_some() => {
                Ok(Origin::Server(Access::InCluster))
            }
            (None, None) => bail!(
                "nothing says where objects come from, and {IN_CLUSTER} is not set, as it would be \
                 in a pod; give --kubeconfig FILE or --manifests DIR"
            ),
        }
    }

    /// Opens it, and says what is wrong with it before anything else is touched.
    pub fn open(self, run_dir: &Path) -> anyhow::Result<Opened> {
        Ok(match self {
            Origin::Manifests(dir) => {
                Opened::Manifests(Manifests::resume(&dir, run_dir.join(source::MEMORY))?)
            }
            Origin::Server(access) => Opened::Server(access),
        })
    }
}

impl Opened {
    /// Starts the thread. `staggered` spares a server whose agents all start at once, where it
    /// costs nothing to wait.
    pub fn follow(
        self,
        node: NodeName,
        run_dir: &Path,
        staggered: bool,
        taint: Option<String>,
    ) -> anyhow::Result<Feed> {
        let (sender, batches) = channel(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let named = thread::Builder::new().name("source".to_owned());
        let (thread, health, started) = match self {
            Opened::Manifests(manifests) => {
                let run = move || {
                    runtime.block_on(source::run(manifests, sender))?;
                    Ok(())
                };
                (named.spawn(run), None, None)
            }
            Opened::Server(access) => {
                // What an agent over manifests has left would be taken for what is in force.
                let memory = run_dir.join(source::MEMORY);
                match fs::remove_file(&memory) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        bail!("cannot remove {}: {error}; remove it", memory.display());
                    }
                    _ => {}
                }
                let stagger = if staggered { STAGGER } else { Duration::ZERO };
                let timing = Timing { stagger, ..Timing::default() };
                // The client belongs to the thread that it is made in.
                let (opened, open) = std::sync::mpsc::channel();
                let run = move || {
                    runtime.block_on(async move {
                        match Source::open(access, node, timing).await {
                            Ok(mut source) => {
                                let started = taint.map(|key| source.lift_taint(key));
                                opened.send(Ok((source.health(), started))).ok();
                                source.run(sender).await;
                            }
                            Err(error) => {
                                opened.send(Err(error)).ok();
                            }
                        }
                    });
                    Ok(())
                };
                let thread = named.spawn(run);
                let (health, started) =
                    open.recv().context("the thread for the API server is gone")??;
                (thread, Some(health), started)
            }
        };
        let thread = thread.context("no thread to read objects; raise the limit on threads")?;
        Ok(Feed { batches, thread, health, started })
    }
}

impl Feed {
    /// Says why nothing comes any more.
    pub fn ended(self) -> anyhow::Error {
        match self.thread.join() {
            Ok(Err(error)) => error.context("objects are no longer read"),
            Ok(Ok(())) | Err(_) => anyhow::anyhow!("the thread that reads objects is gone"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sources_are_refused_and_each_alone_is_taken() {
        let file = |name: &str| Some(PathBuf::from(name));
        let both = Origin::of(file("m"), file("k")).expect_err("there are two").to_string();
        assert!(both.contains("exclude one another"), "{both}");
        assert!(matches!(Origin::of(file("m"), None), Ok(Origin::Manifests(_))));
        let server = Origin::of(None, file("k"));
        assert!(matches!(server, Ok(Origin::Server(Access::Kubeconfig(_)))));
    }

    #[test]
    fn what_is_wrong_with_a_kubeconfig_is_said_before_anything_starts() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("kubeconfig");
        let start = || {
            let origin = Origin::of(None, Some(path.clone())).expect("it is one source");
            let opened = origin.open(place.path()).expect("it is not read yet");
            let followed = opened.follow(NodeName("n".into()), place.path(), false, None);
            format!("{:#}", followed.map(drop).expect_err("it is no kubeconfig"))
        };
        assert!(start().contains("name a kubeconfig that this process may read"), "{}", start());
        fs::write(&path, "clusters: 7").expect("it is ours");
        assert!(start().contains("--kubeconfig"), "{}", start());
        let proxied = "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n\
            - name: far\n  cluster: {server: 'http://127.0.0.1:1', proxy-url: 'http://p:1'}\n\
            contexts:\n- name: c\n  context: {cluster: far, user: u}\nusers:\n- name: u\n  user: {}\n";
        fs::write(&path, proxied).expect("it is ours");
        assert!(start().contains("remove proxy-url"), "{}", start());
    }
}
