//! A host of the cluster as what runs on it: to end a program, to start it again, and to reboot.
//!
//! `cargo xtask cluster up` makes hosts as namespaces and starts their programs; nothing restarts one
//! that ends. What is ended here is started again with the very words and variables that it was started
//! with.

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// How long a program may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// The kernel keeps so much of a program's name.
const COMM: usize = 15;

/// A host: the control plane is `control`, nodes have their own names.
#[derive(Clone, Debug)]
pub struct Machine {
    name: String,
    /// The first process, which holds the namespaces.
    init: u32,
}

/// A program that ran on a host, and how to start it again.
#[derive(Clone, Debug)]
pub struct Program {
    machine: Machine,
    process: u32,
    words: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Machine {
    /// # Errors
    /// If no such host is on this machine.
    pub fn find(name: &str) -> Result<Self> {
        let inits = processes(name)?.into_iter().filter(|process| depth(*process) == Some((2, 1)));
        let [init] = inits.collect::<Vec<_>>()[..] else {
            bail!("{name} is no host of a cluster on this machine");
        };
        Ok(Self { name: name.to_owned(), init })
    }

    /// A command on this host.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--mount", "--net", "--pid", "--"]);
        command.args(words);
        command
    }

    /// What a command on this host says.
    ///
    /// # Errors
    /// If it fails, with what it complains of.
    pub fn call(&self, line: &str) -> Result<String> {
        let output = self.command(&["sh", "-c", line]).stdin(Stdio::null()).output();
        let output = output.context("cannot start nsenter")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: `{line}`: {}", self.name, errors.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A program of the host itself, not of a container.
    ///
    /// # Errors
    /// If it does not run.
    pub fn program(&self, name: &str) -> Result<Program> {
        let runs = |process: &u32| {
            depth(*process).is_some_and(|(depth, _)| depth == 2)
                && fs::read_to_string(format!("/proc/{process}/comm"))
                    .is_ok_and(|comm| comm.trim() == &name[..name.len().min(COMM)])
        };
        let process = processes(&self.name)?.into_iter().find(runs);
        let process = process.with_context(|| format!("no {name} runs on {}", self.name))?;
        let words = strings(&fs::read(format!("/proc/{process}/cmdline"))?);
        let environment = strings(&fs::read(format!("/proc/{process}/environ"))?);
        let environment = environment.iter().filter_map(|variable| variable.split_once('='));
        let environment =
            environment.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(Program { machine: self.clone(), process, words, environment })
    }

    /// Ends everything on a node at once, forgets what a reboot forgets, and starts the node's programs
    /// again.
    ///
    /// # Errors
    /// If something does not end or start.
    pub fn reboot(&self) -> Result<()> {
        let containerd = self.program("containerd")?;
        let kubelet = self.program("kubelet")?;
        let proxy = self.program("kube-proxy")?;
        let flannel = self.program("flanneld").ok();
        let start = Instant::now();
        loop {
            // In the process namespace of the host, this is all but the first.
            self.command(&["sh", "-c", "kill -KILL -1"]).output().context("cannot start kill")?;
            let left = self.call("ls -d /proc/[0-9]* | wc -l")?;
            // The first, and the shell with its two.
            if left.trim().parse::<u32>().is_ok_and(|left| left <= 4) {
                break;
            }
            ensure!(start.elapsed() < PATIENCE, "{}: {left} processes do not end", self.name);
            thread::sleep(Duration::from_millis(50));
        }
        self.call(
            "umount /sys/fs/bpf && mount -t bpf bpf /sys/fs/bpf
             for mount in $(awk '{print $5}' /proc/self/mountinfo | grep -E '^/(run/(containerd|netns)|var/lib/kubelet)/' | sort -r); do umount -l $mount; done
             rm -rf /run/np-agent /run/containerd /run/flannel /run/netns/* /run/kubelet*
             for device in $(ip -o link show type veth | grep -o '[^ ]*@' | tr -d @ | grep -v '^eth0$'); do ip link delete $device; done
             for device in cni0 flannel.1 flannel-v6.1; do ip link delete $device 2>/dev/null; done
             conntrack -F 2>/dev/null; true",
        )?;
        containerd.start()?;
        // Without it kubelet ends.
        while self.call("ctr version").is_err() {
            ensure!(start.elapsed() < 2 * PATIENCE, "{}: containerd does not answer", self.name);
            thread::sleep(Duration::from_millis(100));
        }
        flannel.iter().try_for_each(Program::start)?;
        kubelet.start()?;
        proxy.start()
    }
}

impl Program {
    /// Ends it, as a crash does.
    ///
    /// # Errors
    /// If it does not end.
    pub fn kill(&self) -> Result<()> {
        signal("-KILL", self.process)?;
        let start = Instant::now();
        // It holds its ports until its last thread has ended, and only then is it taken away.
        while depth(self.process).is_some() {
            ensure!(start.elapsed() < PATIENCE, "process {} does not end", self.process);
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Stops it: it neither answers nor ends its connections. It continues when the value is dropped.
    ///
    /// # Errors
    /// If it is gone.
    pub fn stop(&self) -> Result<Stopped> {
        signal("-STOP", self.process)?;
        Ok(Stopped { process: self.process })
    }

    /// Starts it again as it was started. It belongs to the host, and not to the test.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&self) -> Result<()> {
        let Self { machine, words, environment, .. } = self;
        let log = std::env::var_os("NP_CLUSTER").map(PathBuf::from).context("NP_CLUSTER")?;
        let program = words.first().context("a program has a name")?;
        let program = program.rsplit('/').next().unwrap_or(program);
        let log = log.join("log").join(format!("{}-{program}", machine.name));
        let log = OpenOptions::new().create(true).append(true).open(log).context("its log")?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut command = machine.command(&words);
        command.env_clear().envs(environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        command.spawn().with_context(|| format!("cannot start {program}"))?;
        Ok(())
    }
}

/// A program that is stopped.
#[derive(Debug)]
pub struct Stopped {
    process: u32,
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if let Err(error) = signal("-CONT", self.process) {
            eprintln!("{error:#}");
        }
    }
}

/// What the kernel shows of a process's words or variables: each ends with a zero.
fn strings(bytes: &[u8]) -> Vec<String> {
    let strings = bytes.split(|byte| *byte == 0).filter(|string| !string.is_empty());
    strings.map(|string| String::from_utf8_lossy(string).into_owned()).collect()
}

fn signal(signal: &str, process: u32) -> Result<()> {
    let status = Command::new("kill").args([signal, &process.to_string()]).status();
    ensure!(status.context("cannot start kill")?.success(), "kill {signal} {process}");
    Ok(())
}

/// The processes in a host's network namespace.
fn processes(host: &str) -> Result<Vec<u32>> {
    let output = Command::new("ip").args(["netns", "pids", &format!("np-cluster-{host}")]).output();
    let output = output.context("cannot start ip")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.split_whitespace().filter_map(|process| process.parse().ok()).collect())
}

/// In how many process namespaces a process is, and its number in the innermost. None if it is gone.
fn depth(process: u32) -> Option<(usize, u32)> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    let numbers: Vec<u32> = numbers.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    Some((numbers.len(), *numbers.last()?))
}
