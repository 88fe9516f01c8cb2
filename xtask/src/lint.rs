//! What a machine can say about the source: format, clippy, and our own few rules.

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::deny;
use crate::packages;
use crate::shell::{self, find_program, step};
use crate::sources;
use crate::workspace::{self, Workspace};

/// Check format, clippy, lock file, manifests, file lengths and licences
///
/// Warnings are errors. np-ebpf builds only for the BPF target: its lints are those of
/// `cargo xtask build-ebpf`.
#[derive(Debug, Default, clap::Args)]
pub struct Args {}

/// A file with more lines of code than this wants to be two.
const LONG: usize = 400;
/// And one with more is refused. Comments, blank lines and tests are not counted.
const TOO_LONG: usize = 600;

pub fn run(Args {}: &Args) -> Result<()> {
    components()?;
    // The fuzz targets are a workspace of their own.
    for dir in ["", "np-common/fuzz"] {
        let what = format!("checking format {dir}");
        step(what.trim_end(), || {
            let mut command = shell::cargo();
            command.args(["fmt", "--all", "--check"]).current_dir(workspace::root().join(dir));
            shell::run(&mut command).context("`cargo fmt --all` mends it")
        })?;
    }
    // With `--locked` cargo refuses a lock file that does not fit the manifests.
    let workspace = Workspace::read(true)?;
    manifests(&workspace)?;
    packages::check(&workspace)?;
    lengths(&workspace)?;
    deny::check()?;
    step("clippy", || {
        let mut command = shell::cargo();
        command
            .args(["clippy", "--workspace", "--exclude", "np-ebpf", "--all-targets"])
            .args(["--", "-D", "warnings"])
            .current_dir(workspace::root());
        shell::run(&mut command)
    })?;
    step("clippy of the fuzz targets", || {
        let mut command = shell::cargo();
        command
            .args(["clippy", "--locked", "--all-targets", "--target-dir"])
            .arg(workspace.target_dir.join("fuzz-lint"))
            .args(["--", "-D", "warnings"])
            // Nothing is linked: libFuzzer need not be built.
            .env("CUSTOM_LIBFUZZER_PATH", workspace.target_dir.join("not-linked.a"))
            .current_dir(workspace::root().join("np-common/fuzz"));
        shell::run(&mut command)
    })
}

/// A minimal rustup profile has neither clippy nor rustfmt.
fn components() -> Result<()> {
    let missing: Vec<&str> = [("clippy", "clippy"), ("fmt", "rustfmt")]
        .into_iter()
        .filter(|(verb, _)| shell::capture(shell::cargo().args([verb, "--version"])).is_err())
        .map(|(_, component)| component)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    let Some(rustup) = find_program("rustup") else {
        bail!("{names} missing: install what your distribution calls them and run again");
    };
    println!("lint: adding to the toolchain by rustup: {names}");
    let mut command = std::process::Command::new(rustup);
    shell::run(command.args(["component", "add"]).args(missing))
}

/// A member that does not inherit the lints is silently held to none.
fn manifests(workspace: &Workspace) -> Result<()> {
    for package in &workspace.packages {
        let text = fs::read_to_string(&package.manifest)
            .with_context(|| format!("reading {}", package.manifest.display()))?;
        if !inherits_lints(&text) {
            bail!("{} lacks `[lints]` with `workspace = true`", package.manifest.display());
        }
    }
    println!("lint: {} members inherit the lints", workspace.packages.len());
    Ok(())
}

fn inherits_lints(manifest: &str) -> bool {
    let lines = manifest.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let section = lines.skip_while(|line| *line != "[lints]").skip(1);
    section.take_while(|line| !line.starts_with('[')).any(|line| line == "workspace = true")
}

fn lengths(workspace: &Workspace) -> Result<()> {
    let root = workspace::root();
    let mut too_long = Vec::new();
    let mut count = 0;
    // What is in np-tests is tests.
    for package in workspace.packages.iter().filter(|package| package.name != "np-tests") {
        let Some(dir) = package.manifest.parent() else { continue };
        for file in sources::rust_files(&dir.join("src"))? {
            let text =
                fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            let lines = sources::code_lines(&text);
            let name = file.strip_prefix(&root).unwrap_or(&file).display().to_string();
            if lines > TOO_LONG {
                too_long.push(format!("{name} ({lines})"));
            } else if lines > LONG {
                println!("lint: {name} has {lines} lines of code: two ideas?");
            }
            count += 1;
        }
    }
    if !too_long.is_empty() {
        bail!("more than {TOO_LONG} lines of code in {}: split them", too_long.join(", "));
    }
    println!("lint: {count} files of at most {TOO_LONG} lines of code");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lints_count_as_inherited_only_in_their_own_section() {
        assert!(inherits_lints("[package]\n[lints]\nworkspace = true\n"));
        assert!(inherits_lints("[lints] # ours\n\nworkspace = true # all\n[features]\n"));
        assert!(!inherits_lints("[lints]\n[dependencies]\nworkspace = true\n"));
        assert!(!inherits_lints("[package]\nworkspace = true\n"));
    }
}
