//! Licences and sources of the dependencies, by cargo-deny with `deny.toml`.

use anyhow::{Context as _, Result};

use crate::shell::{self, step};
use crate::workspace;

/// The version that is installed when there is none.
const VERSION: &str = "0.20.2";

/// Checks licences, bans and sources. cargo-deny itself needs no network: it reads every package of the
/// lock file, also those that no build here has asked for yet.
///
/// # Errors
/// If a dependency is refused, or cargo-deny is missing and cannot be installed.
pub fn check() -> Result<()> {
    ensure()?;
    step("licences and sources of dependencies", || {
        let root = workspace::root();
        shell::run(shell::cargo().args(["fetch", "--locked"]).current_dir(&root))?;
        let mut command = shell::cargo();
        command
            .args(["deny", "--workspace", "--all-features", "--locked", "--offline", "check"])
            .args(["licenses", "bans", "sources"])
            .current_dir(root);
        shell::run(&mut command).context("deny.toml says what may come in")
    })
}

/// Installs cargo-deny where cargo keeps its other commands, once for the machine.
fn ensure() -> Result<()> {
    if shell::capture(shell::cargo().args(["deny", "--version"])).is_ok() {
        return Ok(());
    }
    println!("lint: cargo-deny, which checks licences and sources, is missing; this takes minutes");
    step("installing cargo-deny", || {
        let package = format!("cargo-deny@{VERSION}");
        let mut command = shell::cargo();
        shell::run(command.args(["install", "--locked", &package])).with_context(|| {
            format!("install it by hand and run again: cargo install --locked {package}")
        })
    })
}
