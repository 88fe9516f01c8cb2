//! One np-agent process: started in its node's namespace, asked over its socket, ended in every way
//! a process can end.

use std::env;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Status, poll};
use crate::netns::Namespace;

#[derive(Debug)]
pub struct Agent {
    node: String,
    binary: PathBuf,
    inside: Namespace,
    source: Source,
    pin_dir: PathBuf,
    run_dir: PathBuf,
    child: Option<Child>,
    /// Further arguments, for the next start.
    pub extra_args: Vec<String>,
    /// Further variables, for the next start.
    pub extra_env: Vec<(String, String)>,
}

/// Where an agent's objects come from.
#[derive(Clone, Debug)]
pub enum Source {
    Manifests(PathBuf),
    Kubeconfig(PathBuf),
}

impl Agent {
    /// Prepares an agent; [`Agent::start`] starts it.
    pub fn new(
        node: &str,
        binary: &Path,
        inside: Namespace,
        source: Source,
        pin_dir: PathBuf,
        run_dir: PathBuf,
    ) -> Self {
        Self {
            node: node.to_string(),
            binary: binary.to_path_buf(),
            inside,
            source,
            pin_dir,
            run_dir,
            child: None,
            extra_args: Vec::new(),
            extra_env: Vec::new(),
        }
    }

    pub fn node(&self) -> &str {
        &self.node
    }

    pub fn pin_dir(&self) -> &Path {
        &self.pin_dir
    }

    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// Starts the process. It dies with the thread that calls this.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "the agent of {} runs already", self.node);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .with_context(|| format!("open {}", self.log_path().display()))?;
        let (flag, path) = match &self.source {
            Source::Manifests(dir) => ("--manifests", dir),
            Source::Kubeconfig(file) => ("--kubeconfig", file),
        };
        let child = self
            .command()
            .arg("--node")
            .arg(&self.node)
            .arg(flag)
            .arg(path)
            .args(&self.extra_args)
            .envs(self.extra_env.clone())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", self.binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Asks the agent for its status document.
    pub fn status(&mut self) -> Result<Status> {
        self.fail_if_ended()?;
        let text = self.status_text()?;
        serde_json::from_str(&text)
            .with_context(|| format!("read the status of {}: {text}", self.node))
    }

    /// The status document as it comes from the agent's socket.
    pub fn status_text(&self) -> Result<String> {
        let socket = self.run_dir.join("agent.sock");
        let mut stream = UnixStream::connect(&socket)
            .with_context(|| format!("connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut text = String::new();
        stream.read_to_string(&mut text).with_context(|| format!("read {}", socket.display()))?;
        Ok(text)
    }

    /// Waits until the status has a property; fails at once when the agent has ended.
    pub fn wait(
        &mut self,
        within: Duration,
        mut property: impl FnMut(&Status) -> bool,
    ) -> Result<Status> {
        let mut last = None;
        let found = poll(within, || {
            self.fail_if_ended()?;
            // Until its socket is there the agent is just not up yet.
            if let Ok(status) = self.status() {
                if property(&status) {
                    return Ok(Some(status));
                }
                last = Some(status);
            }
            Ok(None)
        });
        found.with_context(|| {
            format!(
                "the agent of {} does not get there; its last status: {last:#?}\nits log:\n{}",
                self.node,
                self.log()
            )
        })
    }

    pub fn wait_ready(&mut self, within: Duration) -> Result<Status> {
        self.wait(within, |status| status.ready)
    }

    /// Kills the process with SIGKILL: no code of the agent runs any more.
    pub fn kill(&mut self) -> Result<()> {
        self.end(Signal::SIGKILL).map(drop)
    }

    /// Asks the process to stop, and returns how it ended.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.end(Signal::SIGTERM)
    }

    /// The id of the running process.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Runs a subcommand of the agent in the node's namespace and returns its exit code and what it
    /// printed on both outputs.
    pub fn subcommand(&self, args: &[&str]) -> Result<(i32, String, String)> {
        let output = self.command_for(args).output().context("run a subcommand of np-agent")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().context("a subcommand of np-agent died of a signal")?;
        Ok((code, text(&output.stdout), text(&output.stderr)))
    }

    /// Asks `np-agent explain` by the objects that the agent has in force.
    pub fn explain(&self, args: &[&str]) -> Result<(i32, String, String)> {
        self.ask("explain", args)
    }

    /// Asks `np-agent monitor` for what the agent remembers.
    pub fn monitor(&self, args: &[&str]) -> Result<(i32, String, String)> {
        self.ask("monitor", args)
    }

    /// Starts `np-agent monitor --follow`; its output comes through a pipe.
    pub fn follow(&self, args: &[&str]) -> Result<Child> {
        let mut command = self.asking("monitor", args);
        command.arg("--follow").stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().context("start np-agent monitor")
    }

    /// Runs a subcommand that only asks the running agent.
    fn ask(&self, subcommand: &str, args: &[&str]) -> Result<(i32, String, String)> {
        let run = || format!("np-agent {subcommand}");
        let output = self.asking(subcommand, args).output().with_context(run)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().context("it died of a signal").with_context(run)?;
        Ok((code, text(&output.stdout), text(&output.stderr)))
    }

    fn asking(&self, subcommand: &str, args: &[&str]) -> Command {
        let mut command = self.inside.command(&self.binary);
        command.arg(subcommand).args(args).arg("--run-dir").arg(&self.run_dir);
        command.stdin(Stdio::null());
        command
    }

    /// Everything the agent has logged so far, over all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_else(|error| format!("(no log: {error})"))
    }

    fn log_path(&self) -> PathBuf {
        self.run_dir.join("agent.log")
    }

    fn command(&self) -> Command {
        let mut command = self.inside.command(&self.binary);
        command.arg("--pin-dir").arg(&self.pin_dir).arg("--run-dir").arg(&self.run_dir);
        command
    }

    fn command_for(&self, args: &[&str]) -> Command {
        let mut command = self.inside.command(&self.binary);
        command.args(args).arg("--pin-dir").arg(&self.pin_dir).arg("--run-dir").arg(&self.run_dir);
        command.stdin(Stdio::null());
        command
    }

    fn fail_if_ended(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else {
            bail!("the agent of {} is not running", self.node)
        };
        if let Some(status) = child.try_wait().context("look after np-agent")? {
            self.child = None;
            bail!("the agent of {} ended ({status}); its log:\n{}", self.node, self.log());
        }
        Ok(())
    }

    fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        let mut child =
            self.child.take().with_context(|| format!("no agent runs on {}", self.node))?;
        let pid = i32::try_from(child.id()).context("a process id")?;
        kill(Pid::from_raw(pid), signal).context("signal np-agent")?;
        let ended = poll(Duration::from_secs(5), || Ok(child.try_wait()?));
        if ended.is_err() {
            child.kill().context("kill np-agent")?;
            child.wait().context("wait for np-agent")?;
            bail!("the agent of {} did not end on {signal}; its log:\n{}", self.node, self.log());
        }
        ended
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let ended = child.kill().and_then(|()| child.wait());
            if let Err(error) = ended {
                eprintln!("cannot end the agent of {}: {error}", self.node);
            }
        }
        if !self.pin_dir.exists() {
            return;
        }
        match self.subcommand(&["cleanup"]) {
            Ok((0, _, _)) => {}
            Ok((code, out, err)) => {
                eprintln!("np-agent cleanup on {} failed ({code}): {out}{err}", self.node);
            }
            Err(error) => eprintln!("np-agent cleanup on {}: {error:#}", self.node),
        }
    }
}

/// Finds the agent's executable: `NP_AGENT`, or next to (or above) the running program.
pub fn agent_binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("NP_AGENT") {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "NP_AGENT names {}, which is no file", path.display());
        return Ok(path);
    }
    built("np-agent", "build it with `cargo xtask build`, or name it in NP_AGENT")
}

/// Finds a program of the workspace as last built: next to (or above) the running program.
///
/// # Errors
/// If there is none, with what to do.
pub fn built(program: &str, remedy: &str) -> Result<PathBuf> {
    let own = env::current_exe().context("find the running program")?;
    let directories = own.ancestors().skip(1).take(2);
    let mut programs = directories.map(|directory| directory.join(program));
    programs
        .find(|path| path.is_file())
        .with_context(|| format!("no {program} beside {}: {remedy}", own.display()))
}
