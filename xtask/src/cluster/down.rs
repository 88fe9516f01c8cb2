//! Takes a cluster down. It needs to know nothing of how it was made: all that is of a cluster is below
//! namespaces, a cgroup and a directory of fixed names. So it also clears away after an `up` that
//! failed or was killed.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::cgroup;
use super::host::PREFIX;
use super::places::Places;
use crate::shell;

/// How long processes may take to end.
const PATIENCE: Duration = Duration::from_secs(15);

/// The network namespaces of a cluster's hosts.
pub fn namespaces() -> Result<Vec<String>> {
    let text = shell::capture(Command::new("ip").args(["netns", "list"]))?;
    Ok(ours(&text))
}

/// Of lines such as `np-cluster-n1 (id: 3)`.
fn ours(list: &str) -> Vec<String> {
    let names = list.lines().filter_map(|line| line.split_whitespace().next());
    names.filter(|name| name.starts_with(&format!("{PREFIX}-"))).map(str::to_owned).collect()
}

/// Removes everything but built programs, images and logs. Returns whether there was a cluster.
///
/// # Errors
/// If something stays.
pub fn clear(places: &Places) -> Result<bool> {
    let namespaces = namespaces()?;
    end_processes(&namespaces)?;
    if Path::new("/sys/class/net").join(PREFIX).exists() {
        shell::capture(Command::new("ip").args(["link", "delete", PREFIX]))?;
    }
    for namespace in &namespaces {
        shell::capture(Command::new("ip").args(["netns", "delete", namespace]))?;
    }
    cgroup::clear()?;
    for path in [places.hosts(), places.pki()] {
        absent(fs::remove_dir_all(&path))
            .with_context(|| format!("removing {}", path.display()))?;
    }
    for path in [places.kubeconfig(), places.kind()] {
        absent(fs::remove_file(&path)).with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(!namespaces.is_empty())
}

fn absent(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// With a host's first process all others end, also those of containers.
fn end_processes(namespaces: &[String]) -> Result<()> {
    let start = Instant::now();
    loop {
        let mut pids = Vec::new();
        for namespace in namespaces {
            let text = shell::capture(Command::new("ip").args(["netns", "pids", namespace]))?;
            pids.extend(text.split_whitespace().map(str::to_owned));
        }
        if pids.is_empty() {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            bail!("these processes of the cluster do not end: {}", pids.join(" "));
        }
        // Some may be gone already: kill(1) then complains about those only.
        Command::new("kill").arg("-KILL").args(&pids).output().context("cannot start kill")?;
        thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_cluster_s_namespaces_are_taken() {
        let list = "np-cluster-n1 (id: 3)\nnp-cluster-control\nother\nnp-clusters\n";
        assert_eq!(ours(list), ["np-cluster-n1", "np-cluster-control"]);
    }
}
