//! Finds what is missing on this machine and installs it, saying what and why before it does.
//! When all is there it starts nothing but a few version questions.

mod apt;
pub mod go;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell::{self, as_root, find_program, step};
use crate::toolchain::{self, BPF_LINKER_VERSION, Found, Missing, OLDEST_RUST, Toolchain};
use crate::workspace::Workspace;

/// Install what the other commands need and this machine lacks; each thing is named with its reason first
///
/// Looked for: the programs that the topologies use (iproute2, nftables, iptables, CNI plugins), a
/// toolchain that builds eBPF (rustup's nightly with rust-src, or Debian's packages, and bpf-linker),
/// and a BPF file system at /sys/fs/bpf. A cluster, which this command does not prepare, also needs Go;
/// `cluster up` fetches it from go.dev into target/tools. On Debian and Ubuntu the packages come from apt-get, as root or by sudo;
/// elsewhere the names are printed and the command fails. A second run installs nothing.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// What a verb needs; looking for less is quicker and asks for root less often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// A toolchain that builds eBPF.
    Build,
    /// That, the programs of the topologies, and bpffs.
    Run,
    /// That, an emulator, and what builds its disk in memory.
    Machines,
    /// What `Run` needs, and what a Kubernetes cluster consists of besides its Go programs.
    Cluster,
}

/// (program looked for, Debian package, why)
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("ip", "iproute2", "makes the network namespaces, links and routes of demo and tests"),
    ("nft", "nftables", "loads Service rules as kube-proxy's nftables mode writes them"),
    (
        "iptables-restore",
        "iptables",
        "loads Service rules as kube-proxy's iptables mode writes them",
    ),
    ("ip6tables-restore", "iptables", "the same for IPv6"),
    (
        "/usr/lib/cni/bridge",
        "containernetworking-plugins",
        "attach pods as a container runtime does; they lie on no PATH",
    ),
];

/// The same for virtual machines.
const MACHINE_PROGRAMS: &[(&str, &str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86", "runs other kernels"),
    ("depmod", "kmod", "makes the index of their modules"),
    ("cpio", "cpio", "packs what they boot into"),
    ("curl", "curl", "fetches them"),
    ("xz", "xz-utils", "unpacks Debian's list of packages"),
    ("ipset", "ipset", "holds the sets of policies written as iptables rules"),
    ("ipvsadm", "ipvsadm", "writes Services as kube-proxy's ipvs mode does"),
    ("wg", "wireguard-tools", "sets up WireGuard between nodes"),
];

/// The same for a cluster.
const CLUSTER_PROGRAMS: &[(&str, &str, &str)] = &[
    ("etcd", "etcd-server", "keeps the API server's objects"),
    ("containerd", "containerd", "runs pods' containers"),
    ("runc", "runc", "starts them"),
    ("conntrack", "conntrack", "lets kube-proxy drop flows of Services that changed"),
    ("/bin/busybox", "busybox-static", "is the tools of the test image"),
    ("curl", "curl", "asks Services in it"),
    ("dig", "bind9-dnsutils", "asks the cluster's DNS in it"),
    ("nc.openbsd", "netcat-openbsd", "asks ports in it"),
    ("openssl", "openssl", "makes keys and certificates"),
    ("nsenter", "util-linux", "enters the namespaces of a node"),
    ("sysctl", "procps", "turns forwarding on in them"),
];

const RUST_PACKAGES: &[(&str, &str)] = &[
    ("rustc-web", "a Rust compiler that can target BPF"),
    ("cargo-web", "the cargo that goes with it"),
    ("rust-web-src", "the sources of `core`, which is compiled for the BPF target"),
];

/// The LLVM of Debian's rustc-web, and the bpf-linker feature named after it.
const DISTRIBUTION_LLVM: u32 = 22;

const BPFFS: &str = "/sys/fs/bpf";

pub fn run(Args {}: &Args) -> Result<()> {
    let toolchain = ensure(Needs::Run)?;
    println!("setup: everything is there; eBPF is built by {toolchain}");
    Ok(())
}

/// Makes sure that what a verb needs is there, and returns the eBPF toolchain.
///
/// # Errors
/// If something is missing and cannot be installed here; the message says what to do.
pub fn ensure(needs: Needs) -> Result<Toolchain> {
    let mut apt = Apt::default();
    match needs {
        Needs::Build => {}
        Needs::Run => programs(&mut apt, PROGRAMS)?,
        Needs::Machines => programs(&mut apt, &[PROGRAMS, MACHINE_PROGRAMS].concat())?,
        Needs::Cluster => programs(&mut apt, &[PROGRAMS, CLUSTER_PROGRAMS].concat())?,
    }
    let toolchain = ebpf_toolchain(&mut apt)?;
    if needs != Needs::Build {
        bpffs()?;
    }
    Ok(toolchain)
}

/// Makes sure that one program is there, from a Debian package if it is missing.
///
/// # Errors
/// If it cannot be installed here.
pub fn ensure_program(wanted: (&'static str, &'static str, &'static str)) -> Result<()> {
    programs(&mut Apt::default(), &[wanted])
}

fn programs(apt: &mut Apt, wanted: &[(&'static str, &'static str, &'static str)]) -> Result<()> {
    let mut missing: Vec<(&str, &str)> = Vec::new();
    for &(program, package, why) in wanted {
        if find_program(program).is_none() && !missing.iter().any(|(have, _)| *have == package) {
            missing.push((package, why));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    apt.install(&missing)
        .with_context(|| format!("install these packages and run again: {}", names(&missing)))
}

fn ebpf_toolchain(apt: &mut Apt) -> Result<Toolchain> {
    let tools = tools_dir()?;
    let (nightly, distribution) = match toolchain::find(&tools) {
        Found::Complete(toolchain) => return Ok(toolchain),
        Found::Incomplete { nightly, distribution } => (nightly, distribution),
    };
    println!("setup: no complete eBPF toolchain");
    println!("    rustup nightly with rust-src: {nightly}");
    println!("    distribution's Rust ≥ {}.{}: {distribution}", OLDEST_RUST.0, OLDEST_RUST.1);
    install_distribution(apt, &tools, &distribution).with_context(by_hand)?;
    match toolchain::find(&tools) {
        Found::Complete(toolchain) => Ok(toolchain),
        Found::Incomplete { nightly: _, distribution } => {
            bail!("still no complete eBPF toolchain: {distribution}\n{}", by_hand())
        }
    }
}

/// Installs Debian's compiler and builds a bpf-linker with the LLVM that the compiler uses.
fn install_distribution(apt: &mut Apt, tools: &Path, missing: &Missing) -> Result<()> {
    if matches!(missing, Missing::Compiler | Missing::Sources) {
        let candidate = apt.candidate("rustc-web")?.and_then(|text| toolchain::version(&text));
        if candidate.is_none_or(|version| version < OLDEST_RUST) {
            bail!(
                "apt offers no rustc-web of version {}.{} or later",
                OLDEST_RUST.0,
                OLDEST_RUST.1
            );
        }
        apt.install(RUST_PACKAGES)?;
    }
    // The packages may have brought all that a linker already there was waiting for.
    let (root, why) = match toolchain::find(tools) {
        Found::Complete(_) => return Ok(()),
        Found::Incomplete { distribution: missing @ Missing::OlderLinker { .. }, .. } => {
            (Some(tools), format!("{missing}; it is left alone"))
        }
        Found::Incomplete { .. } => (None, "rustc's BPF target links with it".to_owned()),
    };
    let llvm_dev = format!("llvm-{DISTRIBUTION_LLVM}-dev");
    let llvm = PathBuf::from(format!("/usr/lib/llvm-{DISTRIBUTION_LLVM}"));
    let mut packages: Vec<(&str, &str)> = Vec::new();
    if !llvm.join("include/llvm-c").is_dir() {
        packages.push((&llvm_dev, "bpf-linker is built on the compiler's LLVM"));
    }
    if !packages.is_empty() {
        apt.install(&packages)?;
    }
    let place = root.map_or("cargo's bin directory".to_owned(), |dir| dir.display().to_string());
    println!("setup: bpf-linker {BPF_LINKER_VERSION} → {place} ({why}); takes a few minutes");
    step("building bpf-linker", || {
        let mut command = shell::cargo();
        command
            .args(["install", &format!("bpf-linker@{BPF_LINKER_VERSION}"), "--locked"])
            .args(["--no-default-features", "--features", &format!("llvm-{DISTRIBUTION_LLVM}")])
            .env("LLVM_PREFIX", &llvm);
        if let Some(root) = root {
            command.arg("--root").arg(root);
        }
        shell::run(&mut command)
    })
}

fn by_hand() -> String {
    format!(
        "install an eBPF toolchain by hand and run again:
    rustup toolchain install nightly --component rust-src
    cargo binstall bpf-linker@{BPF_LINKER_VERSION}   (or a release from github.com/aya-rs/bpf-linker)
bpf-linker's LLVM must not be older than the one `rustc +nightly -vV` names"
    )
}

fn bpffs() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    if has_bpffs(&mounts) {
        return Ok(());
    }
    println!(
        "setup: mounting a BPF file system at {BPFFS} (the agent pins programs and maps there)"
    );
    let mut command = as_root("mount", "mounting a BPF file system")?;
    shell::run(command.args(["-t", "bpf", "bpf", BPFFS]))
}

fn has_bpffs(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some(BPFFS) && fields.next() == Some("bpf")
    })
}

/// Where programs are that are installed for this repository alone.
pub fn tools_dir() -> Result<PathBuf> {
    Ok(Workspace::read(false)?.target_dir.join("tools"))
}

fn names(packages: &[(&str, &str)]) -> String {
    packages.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" ")
}

/// apt-get, its lists refreshed once and only if something is missing.
#[derive(Debug, Default)]
struct Apt {
    refreshed: bool,
}

impl Apt {
    /// The version apt would install.
    fn candidate(&mut self, package: &str) -> Result<Option<String>> {
        self.refresh(&format!("looking for {package}"))?;
        let mut command = Command::new("apt-cache");
        let text = shell::capture(command.args(["policy", package]).env("LC_ALL", "C"))?;
        let candidate = text.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
        Ok(candidate.filter(|version| *version != "(none)").map(str::to_owned))
    }

    fn install(&mut self, packages: &[(&str, &str)]) -> Result<()> {
        println!("setup: missing on this machine, to be installed by apt-get:");
        for (package, why) in packages {
            println!("    {package:<14} {why}");
        }
        self.refresh("installing packages")?;
        let names: Vec<String> = packages.iter().map(|(name, _)| (*name).to_owned()).collect();
        let siblings = apt::siblings_of_one_release(names.clone(), simulate)?;
        if !siblings.is_empty() {
            println!("    packages of another release are in the way; these change theirs:");
            println!("    {}", siblings.join(" "));
        }
        step("installing packages", || {
            let mut command = as_root("env", "installing packages")?;
            command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes"]);
            shell::run(command.args(apt::OPTIONS).args(names.iter().chain(&siblings)))
        })
    }

    fn refresh(&mut self, why: &str) -> Result<()> {
        if self.refreshed {
            return Ok(());
        }
        if find_program("apt-get").is_none() {
            bail!("this is not Debian or Ubuntu (no apt-get)");
        }
        self.refreshed = true;
        let updated = step("refreshing apt's package lists", || {
            shell::run(as_root("apt-get", why)?.args(["update", "--quiet"]))
        });
        if let Err(error) = updated {
            // One broken third-party list fails the whole update; what we want may be in another.
            println!("    {error:#}; going on with the lists that are there");
        }
        Ok(())
    }
}

/// What apt-get says it would do; none when it would do it.
fn simulate(packages: &[String]) -> Result<Option<String>> {
    let mut command = Command::new("apt-get");
    command.args(["install", "--simulate"]).args(apt::OPTIONS).args(packages).env("LC_ALL", "C");
    let output = command.output().context("cannot start apt-get")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok((!output.status.success()).then_some(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bpffs_is_recognised_by_place_and_type() {
        assert!(has_bpffs("sysfs /sys sysfs rw 0 0\nbpf /sys/fs/bpf bpf rw,mode=700 0 0\n"));
        assert!(!has_bpffs("tmpfs /sys/fs/bpf tmpfs rw 0 0\nbpf /run/bpf bpf rw 0 0\n"));
    }
}
