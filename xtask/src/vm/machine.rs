//! One virtual machine, from boot to power-off, and what its console says.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::shell;
use crate::test::Told;

/// What a machine did.
#[derive(Debug, Default)]
pub struct Outcome {
    pub told: Told,
    /// The init came to its end.
    pub ended: bool,
    started: bool,
}

/// By hardware within this, or not at all: a nested KVM may be there and not work.
const BOOT: Duration = Duration::from_secs(30);

/// Boots, passes on what the console says, each line behind the machine's name, and counts.
pub fn run(name: &str, kernel: &Path, initramfs: &Path, limit: Duration) -> Result<Outcome> {
    if Path::new("/dev/kvm").exists() {
        let mut by_hardware = command("kvm", kernel, initramfs);
        by_hardware.args(["-smp", "2"]);
        let outcome = boot(name, by_hardware, BOOT, limit)?;
        if outcome.started {
            return Ok(outcome);
        }
        println!("{name}: KVM is there and does not boot this kernel: emulating");
    }
    let mut emulated = command("tcg", kernel, initramfs);
    // The guest's clock counts instructions, one a nanosecond, and skips idle time: what takes a
    // millisecond elsewhere takes about one there, however slow the emulation is.
    emulated.args(["-smp", "1", "-icount", "shift=0,sleep=off"]);
    boot(name, emulated, limit, limit)
}

fn command(accelerator: &str, kernel: &Path, initramfs: &Path) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-accel", accelerator, "-cpu", "max", "-m", "4G"])
        .args(["-nodefaults", "-no-reboot", "-nographic", "-serial", "stdio"])
        .args(["-device", "virtio-rng-pci"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        // Quiet: what the kernel prints must not break into the tests' lines.
        .args(["-append", "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off"]);
    command
}

fn boot(name: &str, mut command: Command, first: Duration, limit: Duration) -> Result<Outcome> {
    println!("{name}: $ {}", shell::line(&command));
    shell::flush();
    let mut machine = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start qemu-system-x86_64")?;
    let console = machine.stdout.take().context("the console is piped")?;
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n') {
            let Ok(line) = line else { return };
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    let start = Instant::now();
    let mut outcome = Outcome::default();
    loop {
        let end = start + if outcome.started { limit } else { first };
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                println!("{name}: {line}");
                shell::flush();
                outcome.told.hear(&line);
                outcome.started |= line.contains("vm: Linux ");
                outcome.ended |= line == "vm: done";
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                println!(
                    "{name}: the machine is still at work after {} s",
                    start.elapsed().as_secs()
                );
                machine.kill().context("ending the machine")?;
                break;
            }
        }
    }
    machine.wait().context("waiting for the machine")?;
    Ok(outcome)
}
