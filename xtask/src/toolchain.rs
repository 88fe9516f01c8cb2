//! The eBPF toolchain: a Rust compiler with its library sources, and a bpf-linker whose LLVM is not
//! older than the compiler's. Two are supported and whichever is complete is taken, rustup's
//! nightly first. Looking starts no more than two short processes.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell;

/// The version installed when there is no bpf-linker.
pub const BPF_LINKER_VERSION: &str = "0.13.0";

/// The oldest distribution compiler that builds np-ebpf.
pub const OLDEST_RUST: (u32, u32) = (1, 95);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    pub rust: Rust,
    pub linker: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rust {
    /// rustup's nightly with rust-src.
    Nightly { sysroot: PathBuf },
    /// The distribution's stable compiler in /usr/bin, with RUSTC_BOOTSTRAP=1 for `-Z build-std`.
    Distribution,
}

/// What was looked for, and what is missing of either way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Complete(Toolchain),
    Incomplete {
        /// What keeps rustup's nightly from being used.
        nightly: Missing,
        distribution: Missing,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No compiler that would do.
    Compiler,
    /// A compiler without the sources of `core`.
    Sources,
    /// No bpf-linker at all.
    Linker,
    /// Only a bpf-linker with an LLVM older than the compiler's.
    OlderLinker { linker: PathBuf, has: u32, needs: u32 },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Compiler => f.write_str("no such compiler"),
            Missing::Sources => f.write_str("the compiler lacks the sources of `core`"),
            Missing::Linker => f.write_str("no bpf-linker"),
            Missing::OlderLinker { linker, has, needs } => {
                write!(f, "{} is built with LLVM {has}, not {needs}", linker.display())
            }
        }
    }
}

impl Toolchain {
    /// The command that builds np-ebpf with it; the caller adds the package and features.
    pub fn cargo_build(&self) -> Command {
        let bin = match &self.rust {
            Rust::Nightly { sysroot } => sysroot.join("bin"),
            Rust::Distribution => PathBuf::from("/usr/bin"),
        };
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(std::iter::once(bin.clone()).chain(env::split_paths(&path)))
            .unwrap_or(path);
        let mut command = Command::new(bin.join("cargo"));
        command
            .args(["build", "--release", "-Z", "build-std=core"])
            .args(["--target", "bpfel-unknown-none"])
            .env("PATH", path)
            .env("RUSTC", bin.join("rustc"))
            .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &self.linker);
        // What the cargo around us says of its own toolchain or flags is not for this build.
        for name in ["RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS"] {
            command.env_remove(name);
        }
        command.env_remove("CARGO").env_remove("CARGO_ENCODED_RUSTFLAGS");
        if self.rust == Rust::Distribution {
            command.env("RUSTC_BOOTSTRAP", "1");
        }
        command
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rust {
            Rust::Nightly { sysroot } => write!(f, "rustup nightly ({})", sysroot.display())?,
            Rust::Distribution => f.write_str("the distribution's Rust (/usr/bin/rustc)")?,
        }
        write!(f, " with {}", self.linker.display())
    }
}

/// Looks for both; `tools` is where [`crate::setup`] puts a bpf-linker that must not replace another.
pub fn find(tools: &Path) -> Found {
    let linkers = linkers(tools);
    let nightly = match nightly(&linkers) {
        Ok(toolchain) => return Found::Complete(toolchain),
        Err(missing) => missing,
    };
    match distribution(&linkers) {
        Ok(toolchain) => Found::Complete(toolchain),
        Err(distribution) => Found::Incomplete { nightly, distribution },
    }
}

fn nightly(linkers: &[PathBuf]) -> Result<Toolchain, Missing> {
    let sysroot = nightly_sysroot().ok_or(Missing::Compiler)?;
    has_sources(&sysroot)?;
    let rustc = Rustc::ask(&sysroot.join("bin/rustc")).ok_or(Missing::Compiler)?;
    let linker = choose(linkers, rustc.llvm)?;
    Ok(Toolchain { rust: Rust::Nightly { sysroot }, linker })
}

fn distribution(linkers: &[PathBuf]) -> Result<Toolchain, Missing> {
    let rustc = Path::new("/usr/bin/rustc");
    if !shell::is_executable(rustc) || !shell::is_executable(Path::new("/usr/bin/cargo")) {
        return Err(Missing::Compiler);
    }
    has_sources(Path::new("/usr"))?;
    let rustc =
        Rustc::ask(rustc).filter(|rustc| rustc.version >= OLDEST_RUST).ok_or(Missing::Compiler)?;
    let linker = choose(linkers, rustc.llvm)?;
    Ok(Toolchain { rust: Rust::Distribution, linker })
}

fn has_sources(sysroot: &Path) -> Result<(), Missing> {
    let core = sysroot.join("lib/rustlib/src/rust/library/core");
    if core.is_dir() { Ok(()) } else { Err(Missing::Sources) }
}

fn nightly_sysroot() -> Option<PathBuf> {
    let home = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(env::home_dir()?.join(".rustup")))?;
    let mut sysroots: Vec<PathBuf> = fs::read_dir(home.join("toolchains"))
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        // `nightly-x86_64-…` follows the channel; `nightly-2026-01-01-…` is pinned for other work.
        .filter(|path| {
            path.file_name()
                .and_then(|name| name.to_str()?.strip_prefix("nightly-"))
                .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
        })
        .filter(|path| shell::is_executable(&path.join("bin/cargo")))
        .collect();
    sysroots.sort();
    sysroots.into_iter().next()
}

/// What `rustc -vV` says of a compiler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rustc {
    version: (u32, u32),
    llvm: u32,
}

impl Rustc {
    fn ask(rustc: &Path) -> Option<Self> {
        let mut command = Command::new(rustc);
        Self::parse(&shell::capture(command.arg("-vV").env_remove("RUSTUP_TOOLCHAIN")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        let llvm = field("LLVM version: ")?.split('.').next()?.parse().ok()?;
        Some(Self { version: version(field("release: ")?)?, llvm })
    }
}

/// The first two numbers of a version such as `1.96.0+dfsg1-1~deb12u2`.
pub fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Every bpf-linker there is: in PATH, where cargo installs, and our own.
fn linkers(tools: &Path) -> Vec<PathBuf> {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(env::home_dir()?.join(".cargo")));
    let path = env::var_os("PATH").unwrap_or_default();
    let mut found: Vec<PathBuf> = env::split_paths(&path)
        .chain(cargo_home.map(|home| home.join("bin")))
        .chain([tools.join("bin")])
        .map(|dir| dir.join("bpf-linker"))
        .filter(|linker| shell::is_executable(linker))
        .collect();
    found.dedup();
    found
}

fn choose(linkers: &[PathBuf], needs: u32) -> Result<PathBuf, Missing> {
    let mut missing = Missing::Linker;
    for linker in linkers {
        match linker_llvm(linker) {
            Some(has) if has < needs => {
                missing = Missing::OlderLinker { linker: linker.clone(), has, needs };
            }
            // A linker with LLVM inside does not tell its version: the build will.
            Some(_) | None => return Ok(linker.clone()),
        }
    }
    Err(missing)
}

fn linker_llvm(linker: &Path) -> Option<u32> {
    shared_llvm(&shell::capture(Command::new("ldd").arg(linker)).ok()?)
}

/// The major version in `libLLVM.so.22.1 => …` or `libLLVM-19.so => …`.
fn shared_llvm(ldd: &str) -> Option<u32> {
    let (_, rest) = ldd.split_once("libLLVM")?;
    let digits = rest.trim_start_matches(".so.").trim_start_matches('-');
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_tools_print() {
        let text = "rustc 1.96.0 (ac68faa20)\nhost: x\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(Rustc::parse(text), Some(Rustc { version: (1, 96), llvm: 22 }));
        assert_eq!(Rustc::parse("release: 1.97.0-nightly\n"), None);
        assert_eq!(version("1.96.0+dfsg1-1~deb12u2"), Some((1, 96)));
        assert_eq!(version("(none)"), None);
    }

    #[test]
    fn the_llvm_of_a_linker_is_read_from_its_libraries() {
        assert_eq!(shared_llvm("\tlibLLVM.so.22.1 => /usr/lib/x (0x0)\n"), Some(22));
        assert_eq!(shared_llvm("\tlibLLVM-19.so.1 => /usr/lib/x (0x0)\n"), Some(19));
        assert_eq!(shared_llvm("\tlibc.so.6 => /lib/x (0x0)\n"), None);
    }

    #[test]
    fn without_any_linker_none_is_chosen() {
        assert_eq!(choose(&[], 22), Err(Missing::Linker));
    }
}
