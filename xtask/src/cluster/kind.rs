//! The same by kind, where Docker is: what docs/INSTALL.md says to do by hand. It has not been run yet,
//! because the machines that run our tests have no Docker.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::options::{Family, Options};
use super::places::Places;
use crate::build_ebpf;
use crate::image;
use crate::setup::{self, Needs};
use crate::shell::{self, find_program, step};

/// The name of the cluster.
const NAME: &str = "np-cluster";

/// kind's network plugin before it had a policy engine.
const KINDNET: &str = "docker.io/kindest/kindnetd:v20230809-80a64d96";

/// The table of that engine, which outlives it.
const TABLE: &str = "nft delete table inet kindnet-network-policies || true";

/// What kind makes: a control plane, and nodes besides it.
fn config(options: &Options) -> Value {
    let family = match options.family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
        Family::Dual => "dual",
    };
    let mut nodes = vec![json!({"role": "control-plane"})];
    nodes.extend((0..options.nodes).map(|_| json!({"role": "worker"})));
    json!({
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "kind": "Cluster",
        "networking": {
            "disableDefaultCNI": false,
            "ipFamily": family,
            "kubeProxyMode": options.proxy.mode(),
        },
        "nodes": nodes,
    })
}

pub fn up(options: &Options, places: &Places) -> Result<()> {
    for (program, how) in [
        ("docker", "https://docs.docker.com/engine/install"),
        ("kind", "https://kind.sigs.k8s.io/docs/user/quick-start"),
        ("kubectl", "https://kubernetes.io/docs/tasks/tools"),
    ] {
        if find_program(program).is_none() {
            bail!("--kind needs {program} ({how}); without Docker, leave --kind out");
        }
    }
    if exists()? {
        bail!("a cluster is there already: `cargo xtask cluster down` first");
    }
    let toolchain = setup::ensure(Needs::Build)?;
    build_ebpf::build(&build_ebpf::Args::default(), &toolchain)?;
    let archive = image::build_here()?;
    let root = places.root();
    fs::create_dir_all(root).with_context(|| format!("making {}", root.display()))?;
    let file = root.join("kind.json");
    fs::write(&file, config(options).to_string())
        .with_context(|| format!("writing {}", file.display()))?;
    step("making a cluster by kind", || {
        let mut create = kind("create cluster --name");
        create.arg(NAME).arg("--config").arg(&file);
        shell::run(create.arg("--kubeconfig").arg(places.kubeconfig()))
    })?;
    step("taking kind's own policy engine away", || without_kindnet_policies(places))?;
    step("loading the image", || {
        shell::run(kind("load image-archive").arg(&archive).args(["--name", NAME]))
    })?;
    println!("\n    export KUBECONFIG={}", places.kubeconfig().display());
    println!("    kubectl apply -k deploy/overlays/kind");
    Ok(())
}

fn without_kindnet_policies(places: &Places) -> Result<()> {
    for words in [
        format!("set image daemonset/kindnet kindnet-cni={KINDNET}"),
        "rollout status daemonset/kindnet".to_owned(),
    ] {
        let mut kubectl = Command::new("kubectl");
        kubectl.arg("--kubeconfig").arg(places.kubeconfig()).args(["--namespace", "kube-system"]);
        shell::run(kubectl.args(words.split(' ')))?;
    }
    for node in shell::capture(kind("get nodes --name").arg(NAME))?.split_whitespace() {
        shell::run(Command::new("docker").args(["exec", node, "sh", "-c", TABLE]))?;
    }
    Ok(())
}

/// Returns whether there was one.
pub fn down() -> Result<bool> {
    let there = exists()?;
    if there {
        shell::run(kind("delete cluster --name").arg(NAME))?;
    }
    Ok(there)
}

fn exists() -> Result<bool> {
    if find_program("kind").is_none() || find_program("docker").is_none() {
        return Ok(false);
    }
    Ok(shell::capture(&mut kind("get clusters"))?.lines().any(|name| name == NAME))
}

fn kind(words: &str) -> Command {
    let mut command = Command::new("kind");
    command.args(words.split(' '));
    command
}

#[cfg(test)]
mod tests {
    use super::super::options::Proxy;
    use super::*;

    #[test]
    fn kind_makes_the_nodes_and_the_mode_that_were_asked_for() {
        let options = Options {
            nodes: 3,
            proxy: Proxy::Nftables,
            family: Family::Dual,
            ..Options::default()
        };
        let config = config(&options);
        assert_eq!(config["nodes"].as_array().map(Vec::len), Some(4));
        assert_eq!(config["networking"]["kubeProxyMode"], "nftables");
        assert_eq!(config["networking"]["ipFamily"], "dual");
    }
}
