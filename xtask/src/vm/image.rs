//! What a machine boots into: an init, the tests, the agent, the tools they start, each with the
//! libraries of this machine, and the kernel's modules. Three archives in a row are one initramfs.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::kernel::Installed;
use crate::ldd;
use crate::shell::{self, find_program};

/// Programs that tests start. A node's proxy rules come by both of iptables' back ends.
const TOOLS: &[&str] = &[
    "ip",
    "bridge",
    "tc",
    "nft",
    "iptables",
    "iptables-restore",
    "ip6tables",
    "ip6tables-restore",
    "ipset",
    "ipvsadm",
    "wg",
    "modprobe",
    "sh",
    "cat",
    "mount",
    "timeout",
    "setpriv",
];

/// What programs read or load at run time, that no list of libraries names.
const DATA: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu/xtables",
    "/usr/lib/cni",
    "/etc/protocols",
    "/etc/services",
    "/etc/iproute2",
    "/etc/alternatives",
    "/usr/share/iproute2",
];

/// The parts of a kernel's module tree that have to do with networks.
const MODULES: &[&str] =
    &["kernel/net", "kernel/drivers/net", "kernel/crypto", "kernel/lib", "kernel/arch/x86/crypto"];

/// Everything that does not depend on the kernel.
pub fn userland(dir: &Path, binaries: &Path, tests: &[PathBuf]) -> Result<PathBuf> {
    let root = fresh(&dir.join("userland"))?;
    for place in ["bin", "proc", "sys", "dev", "tmp", "run", "tests", "usr/lib", "usr/sbin"] {
        fs::create_dir_all(root.join(place))?;
    }
    // As Debian has it: one place for each, under two names.
    for (link, target) in [("lib", "usr/lib"), ("lib64", "usr/lib64"), ("sbin", "usr/sbin")] {
        std::os::unix::fs::symlink(target, root.join(link))?;
    }
    let mut ours = vec![(binaries.join("vm-init"), root.join("init"))];
    ours.push((binaries.join("np-agent"), root.join("bin/np-agent")));
    ours.extend(tests.iter().map(|test| (test.clone(), root.join("tests").join(file(test)))));
    let mut libraries = BTreeSet::new();
    for (from, to) in ours {
        libraries.extend(needed(&from)?);
        shell::capture(Command::new("strip").arg("--strip-debug").arg("-o").arg(&to).arg(&from))?;
    }
    for tool in TOOLS {
        // A tool that is not here fails the test that starts it, by name.
        let Some(program) = find_program(tool) else { continue };
        libraries.extend(needed(&program)?);
        let real = program.canonicalize()?;
        copy(&root, &real)?;
        // Also the kernel itself starts one: /sbin/modprobe.
        let name = root.join("usr/sbin").join(tool);
        if !name.exists() {
            std::os::unix::fs::symlink(&real, name)?;
        }
        if *tool == "sh" {
            std::os::unix::fs::symlink(&real, root.join("bin/sh"))?;
        }
    }
    for path in DATA.iter().map(Path::new).filter(|path| path.exists()) {
        for file in files(path)? {
            if file.extension().is_some_and(|extension| extension == "so") {
                libraries.extend(needed(&file)?);
            }
            copy(&root, &file)?;
        }
    }
    for library in libraries {
        copy(&root, &library)?;
    }
    pack(&root, &dir.join("userland.cpio"))
}

/// The kernel's modules for networks, with an index for `modprobe`.
pub fn modules(dir: &Path, kernel: &Installed) -> Result<PathBuf> {
    let archive = dir.join(format!("modules-{}.cpio", kernel.release));
    if archive.exists() {
        return Ok(archive);
    }
    let root = fresh(&dir.join("modules"))?;
    let tree = Path::new("lib/modules").join(&kernel.release);
    let to = root.join("usr").join(&tree);
    for part in MODULES {
        let from = kernel.modules.join(&tree).join(part);
        if from.is_dir() {
            fs::create_dir_all(to.join(part))?;
            let mut copy = Command::new("cp");
            copy.arg("--recursive").arg("--no-target-directory");
            shell::capture(copy.arg(&from).arg(to.join(part)))?;
        }
    }
    for index in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
        let from = kernel.modules.join(&tree).join(index);
        if from.exists() {
            fs::copy(from, to.join(index))?;
        }
    }
    let depmod = find_program("depmod").context("depmod is not installed")?;
    shell::capture(Command::new(depmod).arg("-b").arg(root.join("usr")).arg(&kernel.release))?;
    pack(&root, &archive)
}

/// What this run is to do: one test file a line, and one filter a line.
pub fn order(dir: &Path, tests: &[PathBuf], filters: &[String]) -> Result<PathBuf> {
    let root = fresh(&dir.join("order"))?;
    let mut list = String::new();
    for test in tests {
        list += &format!("/tests/{}\n", file(test));
    }
    fs::write(root.join("order"), list)?;
    fs::write(root.join("filters"), filters.join("\n"))?;
    pack(&root, &dir.join("order.cpio"))
}

/// The kernel unpacks archives that follow each other as one.
pub fn join(path: &Path, parts: &[&Path]) -> Result<()> {
    let mut whole = fs::File::create(path)?;
    for part in parts {
        whole.write_all(&fs::read(part)?)?;
    }
    Ok(())
}

/// The libraries a program is linked with, and its loader, as `ldd` finds them here.
fn needed(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("cannot start ldd")?;
    // Of a static program, or a script, it says so and fails.
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(ldd::paths(&text).map(PathBuf::from).collect())
}

/// Copies a file to the same path under a root; what is in /lib here is in /usr/lib there.
fn copy(root: &Path, file: &Path) -> Result<()> {
    let text = file.to_string_lossy();
    let merged = ["lib", "lib64", "sbin"].iter().any(|top| text.starts_with(&format!("/{top}/")));
    let inside = if merged { format!("usr{text}") } else { text.trim_start_matches('/').into() };
    let to = root.join(inside);
    if to.exists() {
        return Ok(());
    }
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::copy(file, &to).with_context(|| format!("copying {text}"))?;
    Ok(())
}

fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?.path();
        // A dead link is nobody's file.
        if entry.exists() {
            found.extend(files(&entry)?);
        }
    }
    Ok(found)
}

fn file(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn fresh(root: &Path) -> Result<PathBuf> {
    if root.exists() {
        fs::remove_dir_all(root)?;
    }
    fs::create_dir_all(root)?;
    Ok(root.to_owned())
}

fn pack(root: &Path, archive: &Path) -> Result<PathBuf> {
    let partial = archive.with_extension("partial");
    let out = fs::File::create(&partial)?;
    let mut command = Command::new("sh");
    command.args(["-c", "find . -mindepth 1 | cpio --quiet --create --format=newc --owner=0:0"]);
    let status = command.current_dir(root).stdin(Stdio::null()).stdout(out).status()?;
    ensure!(status.success(), "packing {} failed ({status})", root.display());
    fs::rename(&partial, archive)?;
    Ok(archive.to_owned())
}
