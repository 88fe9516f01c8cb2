//! A host of the cluster: a network, a mount and a process namespace that stand for one machine.
//!
//! It has a /run, a /var and a BPF file system of its own, so that every program finds its usual
//! places. All its processes are below one, and end with it; its mounts end with its last process.
//! What remains of a host is then its name among the network namespaces, and its files.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::config::HERE;
use super::places::Places;
use crate::shell;

/// What all names of network namespaces begin with.
pub const PREFIX: &str = "np-cluster";

#[derive(Debug)]
pub struct Host {
    /// As it is called in the cluster.
    pub name: String,
    places: Places,
    /// The process that all others are below.
    init: u32,
}

/// The network namespace of a host.
pub fn namespace(host: &str) -> String {
    format!("{PREFIX}-{host}")
}

/// The host of a network namespace of ours.
pub fn of_namespace(namespace: &str) -> Option<&str> {
    namespace.strip_prefix(PREFIX)?.strip_prefix('-')
}

impl Host {
    /// Finds a host that an earlier command made.
    ///
    /// # Errors
    /// If its first process is gone.
    pub fn find(name: &str, places: &Places) -> Result<Self> {
        let processes =
            shell::capture(Command::new("ip").args(["netns", "pids", &namespace(name)]))?;
        let init = processes.split_whitespace().find(|process| {
            fs::read_to_string(format!("/proc/{process}/status")).is_ok_and(|text| is_init(&text))
        });
        let init = init.with_context(|| format!("the first process of {name} is gone"))?;
        Ok(Self { name: name.to_owned(), places: places.clone(), init: init.parse()? })
    }

    /// Makes the namespaces, and starts the process that holds them.
    pub fn start(name: &str, places: &Places) -> Result<Self> {
        let namespace = namespace(name);
        shell::capture(Command::new("ip").args(["netns", "add", &namespace]))?;
        forward(&namespace)?;
        let disk = places.host(name).join("var");
        for dir in ["lib", "log", "tmp", "cache"] {
            let dir = disk.join(dir);
            fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        }
        symlink("/run", disk.join("run")).context("making /var/run")?;
        let mut unshare = Command::new("nsenter");
        unshare
            .arg(format!("--net=/run/netns/{namespace}"))
            .args(["unshare", "--mount", "--propagation", "slave"])
            .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
            .arg(places.program("pause"));
        let holder = background(&mut unshare, &places.log().join(format!("{name}-init")))?;
        let init = child_named(holder.id(), "pause")
            .with_context(|| format!("waiting for the namespaces of {name}"))?;
        let host = Self { name: name.to_owned(), places: places.clone(), init };
        host.mount(&disk)?;
        Ok(host)
    }

    fn mount(&self, disk: &Path) -> Result<()> {
        let root = self.places.root();
        let words =
            |words: &[&str]| -> Vec<String> { words.iter().map(|&w| w.to_owned()).collect() };
        let shown = |path: &Path| path.display().to_string();
        // Before anything else: the repository may itself lie where the next mounts go.
        let steps = [
            words(&["mount", "--bind", &shown(disk), "/mnt"]),
            words(&["mount", "-t", "tmpfs", "tmpfs", "/run"]),
            words(&["mkdir", "-p", HERE, "/run/netns", "/run/lock"]),
            words(&["mount", "--rbind", &shown(root), HERE]),
            words(&["mount", "--move", "/mnt", "/var"]),
            words(&["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"]),
            // As systemd has it: kubelet hands mounts on to containers.
            words(&["mount", "--make-rshared", "/"]),
        ];
        for step in steps {
            let mut command = Command::new("nsenter");
            command.args(["--target", &self.init.to_string(), "--mount", "--"]).args(step);
            shell::capture(&mut command)?;
        }
        Ok(())
    }

    /// A program on this host. Its path, if it is one of ours, is below [`HERE`].
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.init.to_string(), "--mount", "--net", "--pid", "--"])
            .arg(program);
        command
    }

    /// Starts a program that runs as long as the host; what it prints goes to a log of its name.
    pub fn start_program(&self, program: &str, arguments: &[String]) -> Result<Daemon> {
        self.start_with(&[], program, arguments)
    }

    /// The same, with variables in its environment.
    pub fn start_with(
        &self,
        environment: &[(&str, &str)],
        program: &str,
        arguments: &[String],
    ) -> Result<Daemon> {
        let name = Path::new(program).file_name().unwrap_or_default().display().to_string();
        let log = self.places.log().join(format!("{}-{name}", self.name));
        let mut command = self.command(program);
        command.args(arguments).envs(environment.iter().copied());
        let child = background(&mut command, &log)?;
        Ok(Daemon { name, log: log.display().to_string(), child })
    }
}

/// Whether the status of a process is that of a host's first: number 1 in a process namespace right
/// below this machine's. That of a pod lies one deeper.
fn is_init(status: &str) -> bool {
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    matches!(numbers.split_whitespace().collect::<Vec<_>>()[..], [_, "1"])
}

/// A program that is to stay.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    log: String,
    child: Child,
}

impl Daemon {
    /// # Errors
    /// If it ended, with the last lines of its log.
    pub fn still_runs(&mut self) -> Result<()> {
        let Self { name, log, child } = self;
        match child.try_wait().with_context(|| format!("looking after {name}"))? {
            None => Ok(()),
            Some(status) => {
                bail!("{name} ended ({status}); {log} ends with:\n{}", tail(Path::new(log)))
            }
        }
    }
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = text.unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

/// Asks again and again until there is an answer; meanwhile every program must stay.
///
/// # Errors
/// If there is none in time: the last reason why not.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    daemons: &mut [Daemon],
    mut ask: impl FnMut() -> Result<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) if start.elapsed() > limit => {
                return Err(error.context(format!("{what}: not within {} s", limit.as_secs())));
            }
            Err(_) => {}
        }
        for daemon in &mut *daemons {
            daemon.still_runs().with_context(|| what.to_owned())?;
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Each network namespace has switches of its own.
fn forward(namespace: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, "sysctl", "-qw"]).args([
        "net.ipv4.ip_forward=1",
        "net.ipv6.conf.all.forwarding=1",
        "net.ipv6.conf.all.accept_dad=0",
        "net.ipv6.conf.default.accept_dad=0",
        "net.ipv4.conf.all.rp_filter=0",
        "net.ipv4.conf.default.rp_filter=0",
    ]);
    shell::capture(&mut command)?;
    shell::capture(Command::new("ip").args(["-n", namespace, "link", "set", "lo", "up"]))?;
    Ok(())
}

/// Starts a program that outlives us, and that a Ctrl-C for us does not reach.
fn background(command: &mut Command, log: &Path) -> Result<Child> {
    let file = File::create(log).with_context(|| format!("making {}", log.display()))?;
    let errors = file.try_clone().context("copying a file handle")?;
    let line = shell::line(command);
    let command = command.stdin(Stdio::null()).stdout(file).stderr(errors).process_group(0);
    command.spawn().with_context(|| format!("cannot start `{line}`"))
}

/// The child of a process once it runs the program of this name.
fn child_named(parent: u32, name: &str) -> Result<u32> {
    wait_for(
        &format!("a child {name} of process {parent}"),
        Duration::from_secs(10),
        &mut [],
        || {
            let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
            let child: u32 = children.split_whitespace().next().context("no child yet")?.parse()?;
            let runs = fs::read_to_string(format!("/proc/{child}/comm"))?;
            if runs.trim() != name {
                bail!("it runs {}", runs.trim());
            }
            Ok(child)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_process_of_a_host_is_not_that_of_a_pod() {
        assert!(is_init("Name:\tpause\nNSpid:\t4711\t1\n"));
        assert!(!is_init("Name:\tpause\nNSpid:\t4712\t80\t1\n"));
        assert!(!is_init("Name:\tkubelet\nNSpid:\t4713\t17\n"));
        assert!(!is_init("Name:\tinit\nNSpid:\t1\n"));
    }

    #[test]
    fn a_host_and_its_namespace_name_each_other() {
        assert_eq!(of_namespace(&namespace("n1")), Some("n1"));
        assert_eq!(of_namespace("np-clusters"), None);
    }
}
