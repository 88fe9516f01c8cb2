//! What each package may depend on. Cargo then refuses an import against the direction.

use anyhow::{Result, bail};

use crate::workspace::Workspace;

/// The packages of this workspace, and which others each may name.
const OURS: &[(&str, &[&str])] = &[
    ("np-common", &[]),
    ("np-ebpf", &["np-common"]),
    ("np-policy", &["np-common"]),
    ("np-agent", &["np-common", "np-policy"]),
    // It runs where kubectl does, which need not be Linux.
    ("kubectl-np", &[]),
    ("np-tests", &["np-common", "np-policy", "np-agent", "kubectl-np"]),
    ("xtask", &["np-common"]),
];

/// All that these may depend on besides: np-common runs in the kernel, and np-policy does no I/O.
const OTHERS: &[(&str, &[&str])] =
    &[("np-common", &["aya"]), ("np-policy", &["ipnet", "serde", "serde_json", "thiserror"])];

/// Checks the manifests of the workspace.
///
/// # Errors
/// If a package depends on what it must not.
pub fn check(workspace: &Workspace) -> Result<()> {
    for package in &workspace.packages {
        for dependency in package.dependencies.iter().filter(|dependency| !dependency.dev) {
            if let Some(why) = objection(&package.name, &dependency.name) {
                bail!("{}: {why}", package.manifest.display());
            }
        }
    }
    println!("lint: {} packages depend on what they may", workspace.packages.len());
    Ok(())
}

/// Why a package must not depend on another, if so.
fn objection(package: &str, dependency: &str) -> Option<String> {
    let row = |table: &'static [(&str, &[&str])]| {
        table.iter().find(|(name, _)| *name == package).map(|(_, may)| *may)
    };
    let Some(ours) = row(OURS) else {
        return Some(format!("{package} has no row in xtask/src/packages.rs: add one"));
    };
    let is_ours = OURS.iter().any(|(name, _)| *name == dependency);
    let may = match row(OTHERS) {
        _ if is_ours => ours.contains(&dependency),
        Some(others) => others.contains(&dependency),
        None => true,
    };
    (!may).then(|| format!("{package} must not depend on {dependency}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_direction_and_the_short_lists_are_kept() {
        assert_eq!(objection("np-agent", "np-policy"), None);
        assert_eq!(objection("np-agent", "tokio"), None);
        for (package, dependency) in [
            ("np-policy", "np-agent"),
            ("np-policy", "tokio"),
            ("np-common", "serde"),
            ("kubectl-np", "np-agent"),
            ("np-new", "anyhow"),
        ] {
            assert!(objection(package, dependency).is_some(), "{package} on {dependency}");
        }
    }
}
