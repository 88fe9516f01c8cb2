//! Debian's cloud kernels: small, with every module a node needs, and kept by a distribution.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;

use crate::shell::{self, step};

/// A long-term kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kernel {
    /// Debian 12; before TCX
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13
    #[value(name = "6.12")]
    V6_12,
}

/// An unpacked kernel.
#[derive(Debug)]
pub struct Installed {
    /// As `uname -r` gives it.
    pub release: String,
    pub image: PathBuf,
    /// The directory above `lib/modules`, or `usr/lib/modules`.
    pub modules: PathBuf,
}

impl Kernel {
    pub const ALL: [Self; 2] = [Self::V6_1, Self::V6_12];

    const fn suite(self) -> &'static str {
        match self {
            Self::V6_1 => "bookworm-security",
            Self::V6_12 => "trixie-security",
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        })
    }
}

/// Fetches the newest kernel of its line unless one is there already.
pub fn fetch(kernel: Kernel, dir: &Path) -> Result<Installed> {
    let place = dir.join(format!("kernel-{kernel}"));
    if let Ok(installed) = installed(&place) {
        return Ok(installed);
    }
    step(&format!("fetching Debian's {kernel} cloud kernel"), || {
        let archive = archive()?;
        let package = newest(kernel, &archive)?;
        let partial = dir.join(format!("kernel-{kernel}.partial"));
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        fs::create_dir_all(&partial)?;
        let deb = partial.join("kernel.deb");
        let url = format!("{archive}/{}", package.file);
        shell::run(curl(&url).arg("--output").arg(&deb))?;
        let sum = shell::capture(Command::new("sha256sum").arg(&deb))?;
        ensure!(sum.starts_with(&package.sha256), "{url}: SHA-256 is not {}", package.sha256);
        shell::run(Command::new("dpkg-deb").arg("--extract").arg(&deb).arg(&partial))?;
        fs::remove_file(&deb)?;
        fs::rename(&partial, &place).context("keeping the kernel")
    })?;
    installed(&place)
}

fn installed(place: &Path) -> Result<Installed> {
    let boot = fs::read_dir(place.join("boot"))?;
    let image = boot
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| name(path).starts_with("vmlinuz-"))
        .context("no kernel image in /boot")?;
    let release = name(&image).trim_start_matches("vmlinuz-").to_owned();
    let merged = place.join("usr");
    let modules = if merged.join("lib/modules").is_dir() { merged } else { place.to_owned() };
    Ok(Installed { release, image, modules })
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[derive(Debug, PartialEq, Eq)]
struct Package {
    file: String,
    sha256: String,
}

/// The archive of Debian's security updates that this machine's apt uses.
fn archive() -> Result<String> {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]);
    let found = shell::capture(&mut targets).context("asking apt for its archives")?;
    let security = found.lines().map(|uri| uri.trim_end_matches('/'));
    let mut security = security.filter(|uri| uri.ends_with("debian-security"));
    let Some(uri) = security.next() else {
        bail!(
            "apt has no archive of Debian's security updates: name one in /etc/apt/sources.list.d \
             (the suites bookworm-security and trixie-security have the kernels)"
        );
    };
    Ok(uri.to_owned())
}

fn newest(kernel: Kernel, archive: &str) -> Result<Package> {
    let list = format!("{archive}/dists/{}/main/binary-amd64/Packages.xz", kernel.suite());
    let mut unpack = Command::new("sh");
    unpack.args(["-c", "curl --fail --silent --show-error --location \"$0\" | xz --decompress"]);
    let text = shell::capture(unpack.arg(&list))?;
    let Some(package) = pick(&text, kernel) else {
        bail!("{list} names no cloud kernel of the line {kernel}");
    };
    Ok(package)
}

fn curl(url: &str) -> Command {
    let mut command = Command::new("curl");
    command.args(["--fail", "--silent", "--show-error", "--location", url]);
    command
}

/// The package of the highest release in a list of packages.
fn pick(list: &str, kernel: Kernel) -> Option<Package> {
    let line = format!("linux-image-{kernel}.");
    let all = list.split("\n\n").filter_map(|paragraph| {
        let field = |key: &str| paragraph.lines().find_map(|line| line.strip_prefix(key));
        let name = field("Package: ")?;
        let cloud = name.starts_with(&line) && name.ends_with("-cloud-amd64");
        cloud.then_some(())?;
        let file = field("Filename: ")?.to_owned();
        Some((numbers(name), Package { file, sha256: field("SHA256: ")?.to_owned() }))
    });
    all.max_by_key(|(release, _)| release.clone()).map(|(_, package)| package)
}

/// The numbers in a name, for an order in which 6.12.9 comes before 6.12.10.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_release_of_the_line_is_taken() {
        let paragraph = |name: &str| {
            format!("Package: {name}\nVersion: 1\nFilename: pool/{name}.deb\nSHA256: of-{name}\n")
        };
        let list = [
            "linux-image-6.12.9+deb13-cloud-amd64",
            "linux-image-6.12.10+deb13-cloud-amd64",
            "linux-image-6.12.11+deb13-rt-amd64",
            "linux-image-6.1.0-53-cloud-amd64",
            "linux-image-6.12.99+deb13-cloud-amd64-dbg",
        ]
        .map(paragraph)
        .join("\n");
        let name = |kernel| pick(&list, kernel).unwrap().file;
        assert_eq!(name(Kernel::V6_12), "pool/linux-image-6.12.10+deb13-cloud-amd64.deb");
        assert_eq!(name(Kernel::V6_1), "pool/linux-image-6.1.0-53-cloud-amd64.deb");
        assert_eq!(pick("", Kernel::V6_1), None);
    }
}
