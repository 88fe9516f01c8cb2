//! Runs kubectl: to get objects, and to run np-agent in a pod.

use std::io::{self, ErrorKind, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::agents::CONTAINER;
use crate::args::Common;
use crate::ask::on_one_line;
use crate::error::{Error, Silence};
use crate::flags::Flags;

/// kubectl, with the flags that this run was given.
#[derive(Debug)]
pub struct Kubectl {
    flags: Flags,
    /// Of pods that are named without one; the context's, if none is given.
    pub namespace: Option<String>,
    pub agent_namespace: String,
    /// How long a node may take.
    pub timeout: Duration,
}

/// What a command in a pod has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub code: i32,
    pub stdout: String,
    /// Without kubectl's own line about the exit code.
    pub stderr: String,
}

/// How `kubectl exec` tells that a command ran and failed.
const TERMINATED: &str = "command terminated with exit code";

impl Kubectl {
    pub fn new(Common { namespace, agent_namespace, timeout, flags }: Common) -> Self {
        Self { flags, namespace, agent_namespace, timeout }
    }

    /// Runs `kubectl get`. What kubectl asks for or complains of goes to the terminal: it may be the
    /// prompt of a login.
    ///
    /// # Errors
    /// If kubectl cannot be run or fails; the remedy is the caller's.
    pub fn get(&self, words: &[&str], remedy: &str) -> Result<String, Error> {
        let timeout = format!("--request-timeout={}s", self.timeout.as_secs());
        let mut command = Command::new("kubectl");
        // One that the user gives comes later and counts.
        command.arg("get").arg(timeout).args(&self.flags.0).args(words).stderr(Stdio::inherit());
        let output = command.stdin(Stdio::inherit()).output().map_err(start)?;
        if !output.status.success() {
            return Err(Error::Refused {
                words: format!("get {}", words.join(" ")),
                status: output.status.to_string(),
                remedy: remedy.to_owned(),
            });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `kubectl get … -o json`.
    ///
    /// # Errors
    /// As [`Kubectl::get`], and if what is printed is not what was asked for.
    pub fn get_json<T: DeserializeOwned>(&self, words: &[&str], remedy: &str) -> Result<T, Error> {
        let words = [words, &["-o", "json"]].concat();
        serde_json::from_str(&self.get(&words, remedy)?).map_err(|problem| Error::Unexpected {
            words: format!("get {}", words.join(" ")),
            problem,
        })
    }

    fn exec(&self, pod: &str, input: &[&str], words: &[String]) -> Command {
        let mut command = Command::new("kubectl");
        command.arg("exec").args(input).args(&self.flags.0);
        command.args(["--namespace", &self.agent_namespace, "--container", CONTAINER, pod, "--"]);
        command.arg("np-agent").args(words);
        command
    }

    /// Runs np-agent's command in a pod, within the time that a node has.
    ///
    /// # Errors
    /// If the command has not run, or not ended in time.
    pub fn ask(&self, pod: &str, words: &[String]) -> Result<Said, Silence> {
        let until = Instant::now() + self.timeout;
        let mut command = self.exec(pod, &[], words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(Silence::Kubectl)?;
        let (stdout, stderr) = (text_of(child.stdout.take()), text_of(child.stderr.take()));
        let text = |pipe: Receiver<String>| {
            pipe.recv_timeout(until.saturating_duration_since(Instant::now())).ok()
        };
        let texts = text(stdout).zip(text(stderr));
        let ended = texts.is_some().then(|| wait(&mut child, until)).transpose();
        let status = ended.map_err(Silence::Kubectl)?.flatten();
        let Some((status, (stdout, stderr))) = status.zip(texts) else {
            child.kill().and_then(|()| child.wait()).map_err(Silence::Kubectl)?;
            return Err(Silence::Late { pod: pod.to_owned(), seconds: self.timeout.as_secs() });
        };
        Said::read(status, stdout, &stderr).ok_or_else(|| Silence::Unreachable {
            pod: pod.to_owned(),
            namespace: self.agent_namespace.clone(),
            said: on_one_line(&stderr),
        })
    }

    /// Runs np-agent's command in a pod between this process's input and output, for as long as it
    /// takes, and returns its exit code.
    ///
    /// # Errors
    /// If kubectl cannot be run.
    pub fn stream(&self, pod: &str, words: &[String], input: Stdio) -> Result<u8, Error> {
        let status = self.exec(pod, &["--stdin"], words).stdin(input).status().map_err(start)?;
        Ok(exit_code(status.code().unwrap_or(1)))
    }
}

impl Said {
    /// None if kubectl failed before the command ran.
    fn read(status: ExitStatus, stdout: String, stderr: &str) -> Option<Self> {
        let kubectls = |line: &&str| line.starts_with(TERMINATED);
        let ran = status.success() || stderr.lines().any(|line| kubectls(&line));
        let stderr = stderr.lines().filter(|line| !kubectls(line));
        let stderr = stderr.map(|line| format!("{line}\n")).collect();
        ran.then(|| Self { code: status.code().unwrap_or(1), stdout, stderr })
    }
}

/// The exit code to pass on.
pub fn exit_code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(1)
}

fn start(error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::NoKubectl,
        _ => Error::Kubectl(error),
    }
}

/// Reads a pipe to its end. The thread outlives a kubectl that is too late, since another process may
/// hold the pipe.
fn text_of(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What has come until then counts.
            pipe.read_to_end(&mut bytes).ok();
        }
        // Nobody may be waiting any more.
        sender.send(String::from_utf8_lossy(&bytes).into_owned()).ok();
    });
    receiver
}

/// Waits for the end of a process that has closed its output.
fn wait(child: &mut Child, until: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        match child.try_wait()? {
            Some(status) => return Ok(Some(status)),
            None if Instant::now() > until => return Ok(None),
            None => thread::sleep(Duration::from_millis(2)),
        }
    }
}
