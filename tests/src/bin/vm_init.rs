//! The first process of a virtual machine: makes the file systems a node has, runs the test files
//! it is told to, and switches the machine off. `cargo xtask vm` packs it as /init.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

fn main() -> Result<()> {
    if std::process::id() != 1 {
        anyhow::bail!("vm-init is the first process of a machine, and switches it off at the end");
    }
    match run() {
        Ok(()) => println!("vm: done"),
        Err(error) => println!("vm: {error:#}"),
    }
    reboot(RebootMode::RB_POWER_OFF).map(drop).context("switching off")
}

fn run() -> Result<()> {
    for (kind, place) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/tmp"),
        ("tmpfs", "/run"),
        ("bpf", "/sys/fs/bpf"),
        ("cgroup2", "/sys/fs/cgroup"),
    ] {
        mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mounting {kind} at {place}"))?;
    }
    // What udev makes elsewhere.
    for (link, target) in [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        symlink(format!("/proc/self/{target}"), format!("/dev/{link}"))?;
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!("vm: Linux {}", release.trim());
    command("ip").args(["link", "set", "lo", "up"]).status().context("starting ip")?;
    for module in ["br_netfilter", "ip_vs", "sctp", "tun"] {
        // What needs one that is not there fails by itself, and says what it lacks.
        let _missing = command("modprobe").arg(module).status().context("starting modprobe")?;
    }
    let filters = fs::read_to_string("/filters")?;
    for file in fs::read_to_string("/order")?.lines() {
        let list = command(file).args(["--list", "--format=terse"]).args(filters.lines()).output();
        let list = String::from_utf8(list.context("starting a test file")?.stdout)?;
        for test in list.lines().filter_map(|line| line.strip_suffix(": test")) {
            let status = command(file).args(["--exact", test, "--show-output"]).status();
            println!("vm: {file} {test}: {}", status.context("starting a test")?);
            thread::sleep(PAUSE);
        }
    }
    Ok(())
}

/// The kernel takes the namespaces of a test apart once it has ended, and one processor has no time
/// for packets then.
const PAUSE: Duration = Duration::from_secs(5);

fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env("PATH", "/bin:/usr/sbin:/usr/bin")
        .env("NP_AGENT", "/bin/np-agent")
        .env("RUST_BACKTRACE", "1")
        .current_dir("/tmp");
    command
}
