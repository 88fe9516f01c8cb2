//! Go, which builds Kubernetes: found on this machine, or fetched from go.dev into target/tools.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use crate::shell::{self, find_program, step};

/// Where releases are. Each has its checksum at the same address with `.sha256` behind it.
const RELEASES: &str = "https://dl.google.com/go";

/// A version such as 1.26.8; a missing last number counts as 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32, u32);

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.trim().split('.');
        let mut next = || numbers.next().map(str::parse::<u32>);
        let (major, minor) = (next()?.ok()?, next()?.ok()?);
        let patch = next().unwrap_or(Ok(0)).ok()?;
        Some(Self(major, minor, patch))
    }
}

/// Finds a Go that builds what a go.mod describes, or installs the one that it names.
///
/// # Errors
/// If there is none and it cannot be installed here.
pub fn ensure(go_mod: &Path, tools: &Path) -> Result<PathBuf> {
    let text =
        fs::read_to_string(go_mod).with_context(|| format!("reading {}", go_mod.display()))?;
    let named = named(&text)
        .with_context(|| format!("{} names no version of Go", go_mod.display()))?
        .to_owned();
    let oldest = Version::parse(&named).with_context(|| format!("{named} is not a version"))?;
    let own = tools.join("go/bin/go");
    let found =
        find_program("go").into_iter().chain([own.clone()].into_iter().filter(|go| go.exists()));
    for go in found {
        if version(&go)?.is_some_and(|version| version >= oldest) {
            return Ok(go);
        }
    }
    install(&named, tools).with_context(|| {
        format!("install Go {named} or later from https://go.dev/dl and run again")
    })?;
    ensure!(version(&own)? == Some(oldest), "{} is not Go {named}", own.display());
    Ok(own)
}

/// The version of Go in a go.mod.
fn named(go_mod: &str) -> Option<&str> {
    go_mod.lines().find_map(|line| line.strip_prefix("go ")).map(str::trim)
}

fn version(go: &Path) -> Result<Option<Version>> {
    // Not the one that a go.mod of this directory would make it fetch.
    let mut command = Command::new(go);
    Ok(said(&shell::capture(command.arg("version").env("GOTOOLCHAIN", "local"))?))
}

/// Of `go version go1.26.8 linux/amd64`.
fn said(said: &str) -> Option<Version> {
    Version::parse(said.split_whitespace().nth(2)?.strip_prefix("go")?)
}

/// The name of a release for this kind of machine.
fn archive(version: &str, architecture: &str) -> Option<String> {
    let architecture = match architecture {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        _ => return None,
    };
    Some(format!("go{version}.linux-{architecture}.tar.gz"))
}

fn install(version: &str, tools: &Path) -> Result<()> {
    let architecture = env::consts::ARCH;
    let Some(archive) = archive(version, architecture) else {
        bail!("there is no Go for {architecture} that this command knows");
    };
    super::ensure_program(("curl", "curl", "fetches Go"))?;
    println!("setup: no Go of version {version} or later, which builds Kubernetes");
    println!("    {RELEASES}/{archive} → {}", tools.join("go").display());
    fs::create_dir_all(tools).with_context(|| format!("making {}", tools.display()))?;
    step("installing Go", || {
        let file = tools.join(&archive);
        shell::run(curl(&format!("{RELEASES}/{archive}")).arg("--output").arg(&file))?;
        let want = shell::capture(&mut curl(&format!("{RELEASES}/{archive}.sha256")))?;
        let bytes = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        let have: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        ensure!(have == want.trim(), "{archive} has the checksum {have}, and not {}", want.trim());
        let old = tools.join("go");
        if old.exists() {
            fs::remove_dir_all(&old).with_context(|| format!("removing {}", old.display()))?;
        }
        shell::run(Command::new("tar").args(["-xzf"]).arg(&file).arg("-C").arg(tools))?;
        fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))
    })
}

fn curl(url: &str) -> Command {
    let mut command = Command::new("curl");
    command.args(["--fail", "--silent", "--show-error", "--location", url]);
    command
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn go_says_its_version_and_a_module_names_the_oldest() {
        assert_eq!(said("go version go1.26.8 linux/amd64\n"), Some(Version(1, 26, 8)));
        assert_eq!(said("go version go1.27 linux/arm64\n"), Some(Version(1, 27, 0)));
        assert_eq!(said("gccgo (GCC) 14"), None);
        assert_eq!(named("module x\n\ngo 1.26.0\n"), Some("1.26.0"));
        assert!(Version::parse("1.9.7") < Version::parse("1.26.0"));
    }

    #[test]
    fn a_release_is_named_for_the_machine() {
        assert_eq!(archive("1.26.0", "x86_64").as_deref(), Some("go1.26.0.linux-amd64.tar.gz"));
        assert_eq!(archive("1.26.0", "aarch64").as_deref(), Some("go1.26.0.linux-arm64.tar.gz"));
        assert_eq!(archive("1.26.0", "riscv64"), None);
    }

    #[test]
    fn one_go_builds_every_module_of_ours() {
        let dir = crate::workspace::root().join("tests/cluster");
        let modules =
            fs::read_dir(&dir).expect("a directory").map(|entry| entry.expect("an entry").path());
        let read = |module: PathBuf| fs::read_to_string(module.join("go.mod")).ok();
        let modules: Vec<String> = modules.chain([dir]).filter_map(read).collect();
        assert!(modules.len() > 1);
        let versions: BTreeSet<Option<&str>> = modules.iter().map(|text| named(text)).collect();
        assert_eq!(versions.len(), 1, "{versions:?}");
    }
}
