//! The agent's socket and lock in its run directory.
//!
//! A client connects and reads one status document to the end of the stream: nothing is asked,
//! nothing can be changed.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;

use crate::status::Status;

#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("cannot use run directory {}: {source}; choose another with --run-dir", path.display())]
    RunDir { path: PathBuf, source: io::Error },
    #[error("another np-agent runs with run directory {}; stop it, or give this one its own --run-dir and --pin-dir", .0.display())]
    Locked(PathBuf),
}

/// Held by the one agent that uses a run directory.
#[derive(Debug)]
pub struct Admin {
    pub listener: UnixListener,
    socket: PathBuf,
    _lock: File,
}

impl Admin {
    pub fn open(run_dir: &Path) -> Result<Self, AdminError> {
        let wrap = |source| AdminError::RunDir { path: run_dir.to_owned(), source };
        fs::create_dir_all(run_dir).map_err(wrap)?;
        let lock = File::create(run_dir.join("agent.lock")).map_err(wrap)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(AdminError::Locked(run_dir.to_owned()));
            }
            Err(fs::TryLockError::Error(error)) => return Err(wrap(error)),
        }
        // Ours by the lock: what is there was left by a run that was killed.
        let socket = socket(run_dir);
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(wrap(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&socket).map_err(wrap)?;
        Ok(Self { listener, socket, _lock: lock })
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        // Whatever is left is removed by the next run.
        fs::remove_file(&self.socket).ok();
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

fn socket(run_dir: &Path) -> PathBuf {
    run_dir.join("agent.sock")
}
