//! The Helm chart on a real cluster: installed, upgraded, and removed.
//!
//! Run by `cargo xtask test --tier cluster`, one after another.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use np_tests::chart::{self, Helm};
use np_tests::kubernetes::{AGENTS, Kubernetes, PORT, eventually, within};
use serde_json::{Value, json};

/// How long agents may take to come and to go.
const PATIENCE: Duration = Duration::from_secs(120);

/// What `cargo xtask test --tier cluster` has deployed.
const OVERLAY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/overlays/local");

/// The deployed manifest, taken away, and brought back in the end.
struct Manifest<'a> {
    cluster: &'a Kubernetes,
    helm: &'a Helm,
}

impl<'a> Manifest<'a> {
    fn away(cluster: &'a Kubernetes, helm: &'a Helm) -> Result<Self> {
        let back = Self { cluster, helm };
        cluster.kubectl(&format!("delete --kustomize {OVERLAY} --timeout=60s"))?;
        none_left(cluster)?;
        Ok(back)
    }
}

impl Drop for Manifest<'_> {
    fn drop(&mut self) {
        let words = "uninstall np-agent --namespace kube-system --ignore-not-found --wait";
        let back = self.helm.run(&chart::dir(), words, "").and_then(|_| {
            none_left(self.cluster)?;
            self.cluster.kubectl(&format!("apply --kustomize {OVERLAY}"))?;
            served(self.cluster)
        });
        if let Err(error) = back {
            eprintln!("{error:#}");
        }
    }
}

fn none_left(cluster: &Kubernetes) -> Result<()> {
    within(PATIENCE, "no agent", || {
        let left = cluster.kubectl(&format!("get pods {AGENTS} --output name"))?;
        ensure!(left.trim().is_empty(), "there are {left}");
        Ok(())
    })
}

fn served(cluster: &Kubernetes) -> Result<()> {
    within(PATIENCE, "agents that are ready", || {
        ensure!(cluster.is_served()?, "an agent is not ready");
        Ok(())
    })
}

/// The arguments of the agents.
fn arguments(cluster: &Kubernetes) -> Result<Value> {
    let get = "get daemonset np-agent --namespace kube-system --output json";
    let set: Value = serde_json::from_str(&cluster.kubectl(get)?).context("a DaemonSet")?;
    Ok(set["spec"]["template"]["spec"]["containers"][0]["args"].clone())
}

#[test]
fn the_chart_installs_and_upgrades_agents_and_what_they_enforce_outlives_it() -> Result<()> {
    let cluster = Kubernetes::find()?;
    let helm = Helm::find()?;
    let (here, there) = cluster.two_nodes()?;
    let shop = cluster.namespace("np-chart")?;
    shop.pod("client", &here)?;
    shop.pod("server", &there)?;
    let server = shop.address("server")?;
    let deny = json!({"podSelector": {"matchLabels": {"app": "server"}}});
    shop.policy("deny", &deny)?;
    shop.expect("client", &server, PORT, false)?;

    let manifest = Manifest::away(&cluster, &helm)?;
    let chart = chart::dir();
    let run = |words: &str, values: &Value| {
        let words = format!("{words} --namespace kube-system --wait --timeout 120s --values -");
        helm.run(&chart, &words, &values.to_string())
    };
    run("install np-agent .", &json!({}))?;
    ensure!(cluster.is_served()?, "Helm waited, and an agent is not ready");
    assert_eq!(arguments(&cluster)?, Value::Null);
    shop.expect("client", &server, PORT, false)?;
    cluster.kubectl("delete networkpolicy deny --namespace np-chart")?;
    shop.expect("client", &server, PORT, true)?;
    shop.policy("deny", &deny)?;
    shop.expect("client", &server, PORT, false)?;

    run("upgrade np-agent .", &json!({"tunnelPorts": [8285]}))?;
    served(&cluster)?;
    assert_eq!(arguments(&cluster)?, json!(["--tunnel-port=8285"]));
    shop.expect("client", &server, PORT, false)?;

    helm.run(&chart, "uninstall np-agent --namespace kube-system --wait", "")?;
    none_left(&cluster)?;
    // As the notes of the chart say.
    shop.expect("client", &server, PORT, false)?;
    drop(manifest);
    eventually("agents of the manifest", || {
        ensure!(cluster.is_served()?, "an agent is not ready");
        Ok(())
    })?;
    cluster.kubectl("delete networkpolicy deny --namespace np-chart")?;
    shop.expect("client", &server, PORT, true)
}

#[test]
fn the_cleanup_ends_enforcement_on_every_node() -> Result<()> {
    let cluster = Kubernetes::find()?;
    let helm = Helm::find()?;
    let (here, there) = cluster.two_nodes()?;
    let shop = cluster.namespace("np-cleanup")?;
    shop.pod("client", &here)?;
    shop.pod("server", &there)?;
    let server = shop.address("server")?;
    shop.policy("deny", &json!({"podSelector": {"matchLabels": {"app": "server"}}}))?;
    shop.expect("client", &server, PORT, false)?;
    let manifest = Manifest::away(&cluster, &helm)?;
    shop.expect("client", &server, PORT, false)?;

    let cleanup = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/cleanup.yaml");
    let cleanup = cleanup.display();
    cluster.kubectl(&format!("apply --filename {cleanup}"))?;
    cluster.kubectl(
        "rollout status daemonset/np-agent-cleanup --namespace kube-system --timeout=120s",
    )?;
    shop.expect("client", &server, PORT, true)?;
    cluster.kubectl(&format!("delete --filename {cleanup} --timeout=60s"))?;
    drop(manifest);
    served(&cluster)?;
    shop.expect("client", &server, PORT, false)
}
