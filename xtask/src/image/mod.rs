//! The container image of the agent, made without a container runtime: a static program and
//! nothing else.

pub mod archive;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::build_ebpf;
use crate::setup::{self, Needs};
use crate::shell::{self, find_program, step};
use crate::workspace::{self, Workspace};
use archive::{Entry, Image};

/// Build the agent's container image, one tar without a container runtime
///
/// The agent is linked statically with musl; the image holds that one program. The archive is
/// target/image/np-agent-ARCH.tar, for `docker load -i`, `kind load image-archive` and
/// `ctr --namespace k8s.io images import`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The processor to build for [default: this machine's]
    #[arg(long, value_enum)]
    arch: Option<Arch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    Amd64,
    Arm64,
}

impl Arch {
    fn here() -> Result<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self::Amd64),
            "aarch64" => Ok(Self::Arm64),
            other => bail!("there is no image for {other}: name one with --arch"),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// What compiles the C and assembler in the cryptography of TLS: the program, its Debian package,
    /// and why. For another processor any C library's will do, because that code calls none.
    fn c_compiler(self) -> (&'static str, &'static str, &'static str) {
        const WHY: &str = "compiles the C and assembler of the TLS library";
        match (self, Self::here().is_ok_and(|here| here == self)) {
            (_, true) => ("musl-gcc", "musl-tools", WHY),
            (Self::Amd64, false) => ("x86_64-linux-gnu-gcc", "gcc-x86-64-linux-gnu", WHY),
            (Self::Arm64, false) => ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu", WHY),
        }
    }

    const fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-musl",
            Self::Arm64 => "aarch64-unknown-linux-musl",
        }
    }
}

/// Where the agent is in the image; `kubectl exec` finds it by PATH.
const AGENT: &str = "usr/bin/np-agent";

/// No registry has the image: the name says that it comes from this machine.
pub const NAME: &str = concat!("localhost/np-agent:", env!("CARGO_PKG_VERSION"));

/// A node pulls it, or has it loaded, before its first policy is in force.
const LARGEST: u64 = 12 * 1024 * 1024;

pub fn run(Args { arch }: &Args) -> Result<()> {
    let toolchain = setup::ensure(Needs::Build)?;
    build_ebpf::build(&build_ebpf::Args::default(), &toolchain)?;
    let arch = arch.map_or_else(Arch::here, Ok)?;
    let archive = build(arch)?;
    println!("image: {NAME} ({}) in {}", arch.name(), archive.display());
    Ok(())
}

/// Builds the image for this machine. The programs in the kernel are built already.
///
/// # Errors
/// If the agent does not build, is not static, or is too large.
pub fn build_here() -> Result<PathBuf> {
    build(Arch::here()?)
}

fn build(arch: Arch) -> Result<PathBuf> {
    let target_dir = Workspace::read(false)?.target_dir;
    setup::ensure_program(arch.c_compiler())?;
    let agent = step(&format!("building the agent for {}", arch.target()), || {
        standard_library(arch)?;
        shell::run(&mut cargo_build(arch))?;
        Ok(target_dir.join(arch.target()).join("release/np-agent"))
    })?;
    step("packing the image", || {
        require_static(&agent)?;
        let dir = target_dir.join("image");
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let archive = dir.join(format!("np-agent-{}.tar", arch.name()));
        let size = archive::write(&contents(arch, &agent)?, &archive)?;
        let mib = |bytes: u64| format!("{}.{} MiB", bytes >> 20, ((bytes * 10) >> 20) % 10);
        println!("    {} → {}", mib(size), archive.display());
        if size > LARGEST {
            bail!("the image has {}; it may have {}", mib(size), mib(LARGEST));
        }
        Ok(archive)
    })
}

/// rustup has the standard library of other targets; a distribution has a package.
fn standard_library(arch: Arch) -> Result<()> {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let libraries =
        shell::capture(rustc.args(["--print", "target-libdir", "--target", arch.target()]))?;
    if Path::new(libraries.trim()).is_dir() {
        return Ok(());
    }
    let Some(rustup) = find_program("rustup") else {
        bail!(
            "this toolchain has no standard library for {}: install it and run again",
            arch.target()
        );
    };
    println!("image: adding to the toolchain by rustup: the standard library for musl");
    shell::run(Command::new(rustup).args(["target", "add", arch.target()]))
}

fn cargo_build(arch: Arch) -> Command {
    let variable = arch.target().to_uppercase().replace('-', "_");
    let mut command = shell::cargo();
    command
        .args(["build", "--release", "--package", "np-agent", "--target", arch.target()])
        .env(format!("CC_{}", arch.target().replace('-', "_")), arch.c_compiler().0)
        // Rust brings a linker and musl's start files, so nothing else of a toolchain is needed.
        .env(format!("CARGO_TARGET_{variable}_LINKER"), "rust-lld")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .current_dir(workspace::root());
    command
}

/// There is no loader and no library in the image.
fn require_static(program: &Path) -> Result<()> {
    let bytes = fs::read(program).with_context(|| format!("reading {}", program.display()))?;
    if has_interpreter(&bytes) {
        bail!("{} needs a dynamic loader, which the image has not", program.display());
    }
    Ok(())
}

/// Whether a 64-bit little-endian ELF program has a segment that names its loader.
fn has_interpreter(elf: &[u8]) -> bool {
    const PT_INTERP: u64 = 3;
    let number = |at: usize, size: usize| -> u64 {
        let bytes = elf.get(at..at + size).unwrap_or_default();
        bytes.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte))
    };
    let index = |number: u64| usize::try_from(number).unwrap_or(usize::MAX / 2);
    let (offset, size, count) = (index(number(32, 8)), index(number(54, 2)), index(number(56, 2)));
    (0..count).any(|segment| number(offset + segment * size, 4) == PT_INTERP)
}

fn contents(arch: Arch, agent: &Path) -> Result<Image> {
    let git = |args: &[&str]| -> Result<String> {
        let text = shell::capture(Command::new("git").args(args).current_dir(workspace::root()))?;
        Ok(text.trim().to_owned())
    };
    let labels = [
        ("title", "np-agent".to_owned()),
        ("description", "Kubernetes NetworkPolicy for the pods of one node".to_owned()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("revision", git(&["rev-parse", "HEAD"])?),
        ("licenses", "MIT OR Apache-2.0".to_owned()),
    ];
    let label = |(name, value)| (format!("org.opencontainers.image.{name}"), value);
    Ok(Image {
        names: vec![NAME.to_owned()],
        architecture: arch.name().to_owned(),
        created: git(&["log", "-1", "--format=%cI"])?,
        entrypoint: vec![format!("/{AGENT}")],
        labels: BTreeMap::from(labels.map(label)),
        entries: vec![Entry::program(AGENT, agent)],
        ..Image::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF header and one segment of a type.
    fn elf(segment: u8) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        (bytes[32], bytes[54], bytes[56], bytes[64]) = (64, 56, 1, segment);
        bytes
    }

    #[test]
    fn a_program_with_a_loader_is_distinguished_from_a_static_one() {
        assert!(has_interpreter(&elf(3)));
        assert!(!has_interpreter(&elf(1)));
        assert!(!has_interpreter(b"not a program"));
        let dynamic = std::env::current_exe().and_then(fs::read).expect("it runs");
        assert!(has_interpreter(&dynamic) || cfg!(target_env = "musl"));
    }
}
