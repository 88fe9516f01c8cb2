//! A place for one test: a network namespace and a bpffs of its own, which the kernel takes away
//! with the thread that lives in them, however it ends.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context as _, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use np_policy::model::IfIndex;

/// Runs a test in a thread with a network namespace and a mount namespace of its own, in which
/// `pin_dir` is on a fresh bpffs.
pub fn sandbox(test: impl FnOnce(&Path) -> anyhow::Result<()> + Send + 'static) {
    let mount_point = tempfile::tempdir().expect("a temporary directory");
    let path = mount_point.path().to_owned();
    // Named like the test: by that its rows of the matrix are known.
    let named = thread::Builder::new().name(thread::current().name().unwrap_or_default().into());
    let inside = move || -> anyhow::Result<()> {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
            .context("these tests need root: namespaces of their own")?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(Some("bpf"), &path, Some("bpf"), MsFlags::empty(), none)
            .context("mounting a bpffs")?;
        ip("link set lo up")?;
        test(&path.join("np-agent"))
    };
    let thread = named.spawn(inside).expect("a thread");
    match thread.join() {
        Ok(result) => result.expect("the test succeeds"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// A network namespace that lives as long as this value and what lives in it.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
}

impl Netns {
    pub fn new() -> anyhow::Result<Self> {
        let thread = thread::spawn(|| -> anyhow::Result<OwnedFd> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(File::open("/proc/thread-self/ns/net")?.into())
        });
        let fd = join(thread)?;
        let netns = Self { fd };
        netns.run(|| ip("link set lo up"))?;
        Ok(netns)
    }

    /// A path by which `ip` finds the namespace.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd()).into()
    }

    /// Starts a thread inside.
    pub fn spawn<T: Send + 'static>(
        &self,
        run: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<thread::JoinHandle<anyhow::Result<T>>> {
        let fd = self.fd.try_clone()?;
        Ok(thread::spawn(move || {
            setns(fd.as_fd(), CloneFlags::CLONE_NEWNET)?;
            run()
        }))
    }

    /// Runs something inside, in a thread of its own.
    pub fn run<T: Send + 'static>(
        &self,
        run: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        join(self.spawn(run)?)
    }
}

/// The result of a thread; a panic in it continues here.
pub fn join<T>(thread: thread::JoinHandle<anyhow::Result<T>>) -> anyhow::Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// `ip ARGUMENTS` in the thread's network namespace.
pub fn ip(arguments: &str) -> anyhow::Result<String> {
    command(&format!("ip {arguments}"))
}

/// Runs a command line, split at blanks; its output.
pub fn command(line: &str) -> anyhow::Result<String> {
    let mut words = line.split_whitespace();
    let program = words.next().context("no command")?;
    let output = Command::new(program).args(words).output().with_context(|| line.to_owned())?;
    if !output.status.success() {
        bail!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A device's index in the thread's network namespace.
pub fn ifindex(name: &str) -> anyhow::Result<IfIndex> {
    let index = nix::net::if_::if_nametoindex(name).with_context(|| format!("device {name}"))?;
    Ok(IfIndex(index))
}
