//! Where things are: the repository, its packages and targets, as cargo itself tells.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::shell;

/// The repository's root.
pub fn root() -> PathBuf {
    let manifest_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest_dir.parent().unwrap_or(manifest_dir).to_path_buf()
}

/// What `cargo metadata` says, as far as we need it.
#[derive(Debug)]
pub struct Workspace {
    pub target_dir: PathBuf,
    pub packages: Vec<Package>,
}

#[derive(Debug)]
pub struct Package {
    pub name: String,
    pub manifest: PathBuf,
    pub dependencies: Vec<Dependency>,
    pub targets: Vec<Target>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    pub name: String,
    pub dev: bool,
}

#[derive(Debug)]
pub struct Target {
    pub name: String,
    /// `lib`, `bin`, `test`, `custom-build` …
    pub kind: String,
}

impl Workspace {
    /// Asks cargo.
    ///
    /// # Errors
    /// If a manifest is wrong, or, with `locked`, if Cargo.lock does not fit the manifests.
    pub fn read(locked: bool) -> Result<Self> {
        let mut command = shell::cargo();
        command.args(["metadata", "--format-version=1"]).current_dir(root());
        // Without dependencies cargo does not look at Cargo.lock.
        command.arg(if locked { "--locked" } else { "--no-deps" });
        let text = shell::capture(&mut command)?;
        Self::parse(&text).context("`cargo metadata` printed something unexpected")
    }

    fn parse(text: &str) -> Result<Self> {
        let json: Value = serde_json::from_str(text)?;
        let packages = array(&json["packages"])
            .filter(|package| package["source"].is_null())
            .map(|package| {
                Ok(Package {
                    name: string(&package["name"])?,
                    manifest: string(&package["manifest_path"])?.into(),
                    dependencies: array(&package["dependencies"])
                        .map(|dependency| {
                            Ok(Dependency {
                                name: string(&dependency["name"])?,
                                dev: dependency["kind"] == "dev",
                            })
                        })
                        .collect::<Result<_>>()?,
                    targets: array(&package["targets"])
                        .map(|target| {
                            Ok(Target {
                                name: string(&target["name"])?,
                                kind: string(&target["kind"][0])?,
                            })
                        })
                        .collect::<Result<_>>()?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { target_dir: string(&json["target_directory"])?.into(), packages })
    }

    /// Names of the integration-test targets of all members; two may have one name.
    pub fn test_targets(&self) -> BTreeSet<&str> {
        let targets = self.packages.iter().flat_map(|package| &package.targets);
        targets.filter(|target| target.kind == "test").map(|target| target.name.as_str()).collect()
    }
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn string(value: &Value) -> Result<String> {
    Ok(value.as_str().with_context(|| format!("expected a string, got {value}"))?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_reduced_to_our_own_packages() {
        let text = r#"{"target_directory": "/t", "packages": [
            {"name": "np-x", "source": null, "manifest_path": "/r/np-x/Cargo.toml",
             "dependencies": [{"name": "aya", "kind": null}],
             "targets": [{"name": "netns_a", "kind": ["test"]}, {"name": "np-x", "kind": ["bin"]}]},
            {"name": "aya", "source": "registry", "manifest_path": "/x"}]}"#;
        let workspace = Workspace::parse(text).unwrap();
        assert_eq!(workspace.packages.len(), 1);
        assert_eq!(
            workspace.packages[0].dependencies,
            [Dependency { name: "aya".into(), dev: false }]
        );
        assert_eq!(workspace.test_targets(), BTreeSet::from(["netns_a"]));
    }
}
