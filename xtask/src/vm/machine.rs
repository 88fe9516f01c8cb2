//! One virtual machine, from boot to power-off, and what its console says.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::shell;
use crate::test::Tally;

/// Boots, passes on what the console says, and counts. True when the init came to its end.
pub fn run(kernel: &Path, initramfs: &Path, limit: Duration) -> Result<(Tally, bool)> {
    let mut command = Command::new("qemu-system-x86_64");
    let accelerator = if Path::new("/dev/kvm").exists() { "kvm" } else { "tcg,thread=multi" };
    command
        .args(["-accel", accelerator, "-cpu", "max", "-smp", "2", "-m", "4G"])
        .args(["-nodefaults", "-no-reboot", "-nographic", "-serial", "stdio"])
        .args(["-device", "virtio-rng-pci"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        // Quiet: what the kernel prints must not break into the tests' lines.
        .args(["-append", "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off"]);
    println!("    $ {}", shell::line(&command));
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
    let end = Instant::now() + limit;
    let mut tally = Tally::default();
    let mut ended = false;
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                println!("{line}");
                tally.add(Tally::parse(&line).unwrap_or_default());
                ended |= line == "vm: done";
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                println!("the machine is still at work after {} minutes", limit.as_secs() / 60);
                machine.kill().context("ending the machine")?;
                break;
            }
        }
    }
    machine.wait().context("waiting for the machine")?;
    Ok((tally, ended))
}
