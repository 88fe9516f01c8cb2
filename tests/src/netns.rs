//! Network namespaces as owned values.
//!
//! A namespace lives as long as a file descriptor of it: it has no name under `/run/netns`, and
//! nothing of it is left once the value is gone, whatever ended the program. Threads enter it for
//! good and end inside; child processes enter between fork and exec, so their mount namespace (and
//! with it `/sys/fs/bpf`) stays ours.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};

use crate::wire;

/// A network namespace. Clones share it.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    fd: Arc<OwnedFd>,
}

impl Namespace {
    /// Makes a new, empty network namespace. The name is only for messages.
    pub fn new(name: &str) -> Result<Self> {
        require_root()?;
        let fd = thread::scope(|scope| {
            scope
                .spawn(|| {
                    unshare(CloneFlags::CLONE_NEWNET)?;
                    File::open("/proc/thread-self/ns/net").map(OwnedFd::from)
                })
                .join()
        })
        .map_err(|_| anyhow!("the thread that makes the network namespace {name} panicked"))?
        .with_context(|| format!("make the network namespace {name}"))?;
        Ok(Self { name: name.to_string(), fd: Arc::new(fd) })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Moves the calling thread into the namespace, for good.
    pub fn enter(&self) -> Result<()> {
        setns(self.fd.as_fd(), CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("enter the network namespace {}", self.name))
    }

    /// Runs a closure on a thread of its own inside the namespace and returns its value.
    pub fn run<T: Send>(&self, body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter()?;
                    body()
                })
                .join()
        })
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// The path under which another process of this user can open the namespace.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd()))
    }

    /// A command that runs inside the namespace. It is in a process group of its own (Ctrl-C at the
    /// terminal is ours to handle) and is killed with the thread that starts it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let fd = Arc::clone(&self.fd);
        command.process_group(0);
        // SAFETY: between fork and exec the closure makes three system calls on values made
        // before the fork; none allocates or takes a lock.
        unsafe {
            command.pre_exec(move || {
                setns(fd.as_fd(), CloneFlags::CLONE_NEWNET)?;
                pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
                Ok(())
            });
        }
        command
    }

    /// Runs a program inside the namespace with `input` on its standard input, and returns what it
    /// printed.
    ///
    /// # Errors
    /// A program that is missing, or that fails: the message has its standard error and the input.
    pub fn feed(&self, program: &str, args: &[&str], input: &str) -> Result<String> {
        let shown = format!("{program} {} (in {})", args.join(" "), self.name);
        let mut child = self
            .command(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {shown}; is it installed? try `cargo xtask setup`"))?;
        let mut stdin = child.stdin.take().context("standard input is piped")?;
        stdin.write_all(input.as_bytes()).with_context(|| format!("write to {shown}"))?;
        drop(stdin);
        let output = child.wait_with_output().with_context(|| format!("wait for {shown}"))?;
        if !output.status.success() {
            let numbered: Vec<String> =
                input.lines().enumerate().map(|(i, l)| format!("{:4} {l}", i + 1)).collect();
            bail!(
                "{shown}: {}\n{}\ninput:\n{}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim(),
                numbered.join("\n")
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a batch of `ip` commands, one a line.
    pub fn ip(&self, batch: &str) -> Result<()> {
        self.feed("ip", &["-batch", "-"], batch).map(drop)
    }

    /// Runs one command, a program and its arguments with blanks between, and returns what it prints.
    pub fn call(&self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        let program = words.next().context("a command names a program")?;
        self.feed(program, &words.collect::<Vec<_>>(), "")
    }

    /// Loads nftables rules.
    pub fn nft(&self, rules: &str) -> Result<()> {
        self.feed("nft", &["-f", "-"], rules).map(drop)
    }

    /// The packets of the first counter in what `nft list` shows of something.
    pub fn packets(&self, what: &str) -> Result<u64> {
        let shown = self.call(&format!("nft list {what}"))?;
        let number = shown.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
        Ok(number.with_context(|| format!("a counter: {shown}"))?.parse()?)
    }

    /// The hardware address of a device.
    pub fn hardware_address(&self, device: &str) -> Result<[u8; 6]> {
        let shown = self.feed("ip", &["-o", "link", "show", "dev", device], "")?;
        let word = shown.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
        word.and_then(wire::hardware_address)
            .with_context(|| format!("the hardware address of {device}: {shown}"))
    }

    /// Writes sysctls, named as paths below `/proc/sys`.
    pub fn sysctls(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            for (key, value) in settings {
                std::fs::write(format!("/proc/sys/{key}"), value)
                    .with_context(|| format!("set {key} to {value} in {}", self.name))?;
            }
            Ok(())
        })
    }
}

/// Fails with the remedy unless the program runs as root.
pub fn require_root() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "network namespaces and eBPF programs need root: run it again as root (sudo)"
    );
    Ok(())
}
