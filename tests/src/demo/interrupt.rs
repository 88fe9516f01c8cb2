//! Ctrl-C ends the demo between two stories, in order: agents clean up, pins go, namespaces close.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{SigSet, Signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Takes SIGINT and SIGTERM over. Call it before any other thread exists: threads inherit what is
/// blocked, and one thread waits for what is blocked in all.
pub fn take_over() -> Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block().context("block SIGINT and SIGTERM")?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            while signals.wait().is_ok() {
                INTERRUPTED.store(true, Ordering::Relaxed);
                eprintln!("\ninterrupted: taking everything down after this story …");
            }
        })
        .context("start the thread that waits for signals")?;
    Ok(())
}

/// Fails when a signal came.
pub fn check() -> Result<()> {
    ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
    Ok(())
}
