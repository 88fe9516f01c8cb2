//! The agent's socket and lock in its run directory.
//!
//! A client connects and reads one document to the end of the stream, the status from one socket
//! and the objects in force from another: nothing is asked, nothing can be changed. The third socket,
//! for events, is served by [`crate::events`].

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Serialize, Serializer};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;

use crate::status::Status;
use np_policy::index::Index;
use np_policy::model::Object;

#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("cannot use run directory {}: {source}; choose another with --run-dir", path.display())]
    RunDir { path: PathBuf, source: io::Error },
    #[error(
        "run directory {} holds {name}, which is not np-agent's, and others may enter it: np-agent keeps what it knows to itself; name a directory of its own with --run-dir", path.display()
    )]
    Shared { path: PathBuf, name: String },
    #[error("another np-agent runs with run directory {}; stop it, or give this one its own --run-dir and --pin-dir", .0.display())]
    Locked(PathBuf),
}

/// Held by the one agent that uses a run directory.
#[derive(Debug)]
pub struct Admin {
    pub listener: UnixListener,
    pub objects: UnixListener,
    /// For a thread of its own.
    pub events: std::os::unix::net::UnixListener,
    sockets: [PathBuf; 3],
    _lock: File,
}

impl Admin {
    pub fn open(run_dir: &Path) -> Result<Self, AdminError> {
        let wrap = |source| AdminError::RunDir { path: run_dir.to_owned(), source };
        let made = fs::DirBuilder::new().recursive(true).mode(PRIVATE).create(run_dir);
        made.map_err(wrap)?;
        make_private(run_dir)?;
        let lock = File::create(run_dir.join("agent.lock")).map_err(wrap)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(AdminError::Locked(run_dir.to_owned()));
            }
            Err(fs::TryLockError::Error(error)) => return Err(wrap(error)),
        }
        // Ours by the lock: what is there was left by a run that was killed.
        let vacate = |socket: &Path| match fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        let sockets = [socket(run_dir), objects_socket(run_dir), events_socket(run_dir)];
        sockets.iter().try_for_each(|socket| vacate(socket)).map_err(wrap)?;
        let listener = UnixListener::bind(&sockets[0]).map_err(wrap)?;
        let objects = UnixListener::bind(&sockets[1]).map_err(wrap)?;
        let events = std::os::unix::net::UnixListener::bind(&sockets[2]).map_err(wrap)?;
        Ok(Self { listener, objects, events, sockets, _lock: lock })
    }
}

/// Nobody but root: all policies and labels of the node can be read here.
const PRIVATE: u32 = 0o700;

/// Closes a run directory that was left open to others. One that holds others' files is not ours
/// to close.
fn make_private(run_dir: &Path) -> Result<(), AdminError> {
    let wrap = |source| AdminError::RunDir { path: run_dir.to_owned(), source };
    let mode = fs::metadata(run_dir).map_err(wrap)?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    for entry in fs::read_dir(run_dir).map_err(wrap)? {
        let name = entry.map_err(wrap)?.file_name().to_string_lossy().into_owned();
        if !name.starts_with("agent.") && !name.starts_with("manifests.") {
            return Err(AdminError::Shared { path: run_dir.to_owned(), name });
        }
    }
    fs::set_permissions(run_dir, fs::Permissions::from_mode(PRIVATE)).map_err(wrap)
}

impl Drop for Admin {
    fn drop(&mut self) {
        // Whatever is left is removed by the next run.
        for socket in &self.sockets {
            fs::remove_file(socket).ok();
        }
    }
}

/// How long a client may take to read.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends the document to a client, without keeping the agent waiting.
pub fn answer(mut client: tokio::net::UnixStream, status: &Status) {
    let document = serde_json::to_vec(status).unwrap_or_default();
    tokio::spawn(async move {
        let sent = tokio::time::timeout(PATIENCE, client.write_all(&document)).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::debug!("a status client went away before it had read everything");
        }
    });
}

/// Asks the agent of a run directory; none when none runs.
pub fn ask(run_dir: &Path) -> Option<Status> {
    let mut stream = UnixStream::connect(socket(run_dir)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut document = Vec::new();
    stream.read_to_end(&mut document).ok()?;
    serde_json::from_slice(&document).ok()
}

/// Sends all objects to a client, without keeping the agent waiting.
pub fn answer_objects(client: tokio::net::UnixStream, index: Index) {
    tokio::task::spawn_blocking(move || {
        let sent = client.into_std().and_then(|client| {
            client.set_nonblocking(false)?;
            client.set_write_timeout(Some(PATIENCE))?;
            let mut output = BufWriter::new(client);
            serde_json::to_writer(&mut output, &Objects(&index))?;
            output.flush()
        });
        if sent.is_err() {
            tracing::debug!("a client went away before it had read all objects");
        }
    });
}

/// All objects of an index, as [`Object`]s are written.
struct Objects<'a>(&'a Index);

impl Serialize for Objects<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let nodes = self.0.nodes().cloned().map(Object::Node);
        let namespaces = self.0.namespaces().cloned().map(Object::Namespace);
        let policies = self.0.policies().cloned().map(Object::Policy);
        let pods = self.0.pods().cloned().map(Object::Pod);
        serializer.collect_seq(nodes.chain(namespaces).chain(policies).chain(pods))
    }
}

/// Asks the agent of a run directory for all objects; none when none runs.
pub fn ask_objects(run_dir: &Path) -> Option<Vec<Object>> {
    let stream = UnixStream::connect(objects_socket(run_dir)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    serde_json::from_reader(BufReader::new(stream)).ok()
}

fn socket(run_dir: &Path) -> PathBuf {
    run_dir.join("agent.sock")
}

fn objects_socket(run_dir: &Path) -> PathBuf {
    run_dir.join("agent.objects.sock")
}

/// The socket on which the agent of a run directory reports its events.
pub fn events_socket(run_dir: &Path) -> PathBuf {
    run_dir.join("agent.events.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    }

    fn open_to_all(path: &Path) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }

    #[test]
    fn a_run_directory_is_for_root_alone_also_when_it_was_not() {
        let place = tempfile::tempdir().expect("a directory");
        let run_dir = place.path().join("np-agent");
        open_to_all(place.path());
        make(&run_dir).expect("it is made");
        assert_eq!(mode(&run_dir), 0o700);
        fs::write(run_dir.join("manifests.json"), "[]").expect("it is ours");
        open_to_all(&run_dir);
        make(&run_dir).expect("it was one before");
        assert_eq!(mode(&run_dir), 0o700);
        let error = make(place.path()).expect_err("others' files are there").to_string();
        assert!(error.contains("holds np-agent") && error.contains("--run-dir"), "{error}");
        assert_eq!(mode(place.path()), 0o755, "it is left as it was");
    }

    fn make(run_dir: &Path) -> Result<Admin, AdminError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async { Admin::open(run_dir) })
    }
}
