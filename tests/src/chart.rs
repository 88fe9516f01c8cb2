//! The Helm chart as it is in the repository, and what Helm makes of it.

use std::env;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

/// Where the chart is.
#[must_use]
pub fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/charts/np-agent")
}

/// Reads a YAML or JSON file of the chart.
///
/// # Errors
/// If it cannot be read.
pub fn file(name: &str) -> Result<Value> {
    let text = fs::read_to_string(dir().join(name)).with_context(|| name.to_owned())?;
    serde_saphyr::from_str(&text).with_context(|| name.to_owned())
}

/// Returns the chart's own values, as JSON pointers. What a type of Kubernetes consists of is not among
/// them: the schema has such types as definitions.
#[must_use]
pub fn own_values(schema: &Value) -> Vec<String> {
    let Some(properties) = schema["properties"].as_object() else { return vec![String::new()] };
    let below = |(key, schema): (&String, &Value)| {
        let own = own_values(schema).into_iter();
        own.map(|pointer| format!("/{key}{pointer}")).collect::<Vec<_>>()
    };
    properties.iter().flat_map(below).collect()
}

/// The Helm that xtask has built.
#[derive(Debug)]
pub struct Helm {
    program: PathBuf,
    /// Nothing of the person's own Helm counts.
    home: TempDir,
    /// The cluster's, if there is one.
    kubeconfig: PathBuf,
}

impl Helm {
    /// Finds it by the directory in `NP_CLUSTER`.
    ///
    /// # Errors
    /// If it is not there.
    pub fn find() -> Result<Self> {
        let dir = env::var_os("NP_CLUSTER").map(PathBuf::from);
        let dir =
            dir.context("NP_CLUSTER names no directory with bin/helm: `cargo xtask chart`")?;
        let program = dir.join("bin/helm");
        ensure!(program.exists(), "there is no {}: `cargo xtask chart`", program.display());
        let home = TempDir::new().context("making a directory")?;
        Ok(Self { program, home, kubeconfig: dir.join("kubeconfig") })
    }

    /// Runs Helm in a directory, with words as a person would type them, and returns what it prints.
    ///
    /// # Errors
    /// If it fails, with what it complains of.
    pub fn run(&self, dir: &Path, words: &str, input: &str) -> Result<String> {
        let mut child = Command::new(&self.program)
            .args(words.split_whitespace())
            .current_dir(dir)
            .env_clear()
            .env("HOME", self.home.path())
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", self.program.display()))?;
        let mut stdin = child.stdin.take().context("the input is piped")?;
        // One that reads no values closes it, and says why by how it ends.
        drop(stdin.write_all(input.as_bytes()));
        drop(stdin);
        let output = child.wait_with_output().context("waiting for helm")?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        String::from_utf8(output.stdout).context("helm prints UTF-8")
    }
}
