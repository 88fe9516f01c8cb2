//! `kubectl np` on a real cluster: real agents, a real kubectl, and the verdicts that packets show too.
//!
//! Run by `cargo xtask test --tier cluster`, one after another.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use kubectl_np::flags::FLAGS;
use np_tests::kubernetes::{Kubernetes, PORT, eventually};
use serde_json::Value;

/// What a `kubectl np` command prints; the exit code must be the given one.
fn np(cluster: &Kubernetes, words: &str, code: i32) -> Result<String> {
    let words = format!("np {words}");
    let mut command = cluster.with_plugin(&words)?;
    let output = command.stdin(Stdio::null()).output().context("cannot start kubectl")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    let exits = output.status.code();
    ensure!(exits == Some(code), "`kubectl {words}`: {}: {said}{errors}", output.status);
    Ok(said)
}

#[test]
fn kubectl_np_asks_the_agents_of_all_nodes() -> Result<()> {
    let cluster = Kubernetes::find()?;
    let nodes = cluster.nodes()?;
    let table = eventually("every agent ready", || np(&cluster, "status", 0))?;
    println!("{table}");
    let status: Value = serde_json::from_str(&np(&cluster, "status -o json", 0)?)?;
    ensure!(status.as_array().is_some_and(|all| all.len() == nodes.len()), "{status:#}");
    let checks = np(&cluster, "check", 0)?;
    println!("{checks}");
    for node in &nodes {
        let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        ensure!(rows.any(|row| row.starts_with(&[node, "yes"])), "{node}: {table}");
        let mut all = status.as_array().into_iter().flatten();
        let answer = all.find(|answer| answer["node"] == **node).context("a node is missing")?;
        ensure!(answer["status"]["node"] == **node, "{node} was asked for {answer:#}");
        ensure!(answer["status"]["ready"] == true, "{answer:#}");
        let mut lines = checks.lines().filter(|line| line.starts_with(node.as_str()));
        ensure!(lines.any(|line| line.contains("ok   kernel")), "{node}: {checks}");
        // One node's own words.
        let own = np(&cluster, &format!("status --node {node}"), 0)?;
        ensure!(own.contains("running, ready"), "{own}");
    }
    np(&cluster, "status --node no-such-node", 1)?;
    Ok(())
}

#[test]
fn kubectl_np_explains_what_the_packets_show() -> Result<()> {
    let cluster = Kubernetes::find()?;
    let (here, there) = cluster.two_nodes()?;
    let asked = cluster.namespace("np-asked")?;
    for (pod, node) in [("client", &here), ("stranger", &here), ("server", &there)] {
        asked.pod(pod, node)?;
    }
    asked.admit_only("client", "server")?;
    let server = asked.address("server")?;
    for (from, passes, verdict, other) in
        [("client", true, "allow", "deny"), ("stranger", false, "deny", "allow")]
    {
        asked.expect(from, &server, PORT, passes)?;
        let ends = format!("explain --namespace np-asked --from {from} --to server --port {PORT}");
        let said = np(&cluster, &format!("{ends} --expect {verdict}"), 0)?;
        println!("{said}");
        ensure!(said.contains(&verdict.to_uppercase()), "{said}");
        np(&cluster, &format!("{ends} --expect {other}"), 1)?;
        // The sender's node knows it as well, and the receiver by its address.
        let ends = format!("explain --from np-asked/{from} --to {server} --port {PORT}");
        np(&cluster, &format!("{ends} --expect {verdict}"), 0)?;
    }
    np(&cluster, &format!("explain --from np-asked/client --to np-asked/nobody --port {PORT}"), 2)?;
    let endpoints = np(&cluster, "endpoints --namespace np-asked server", 0)?;
    println!("{endpoints}");
    let row = endpoints.lines().nth(1).context("the pod has a row")?;
    let isolated = row.starts_with(there.as_str()) && row.contains("only-client");
    ensure!(isolated && endpoints.lines().count() == 2, "{endpoints}");
    Ok(())
}

#[test]
fn kubectl_np_takes_every_global_flag_of_this_kubectl() -> Result<()> {
    let options = Kubernetes::find()?.kubectl("options")?;
    let flags = options.lines().filter(|line| line.starts_with("    ")).filter_map(|line| {
        let (_, flag) = line.split_once("--")?;
        flag.split_once('=').map(|(flag, _)| flag)
    });
    let flags: Vec<&str> = flags.collect();
    ensure!(flags.len() > 20 && flags.contains(&"kubeconfig"), "{options}");
    for flag in flags.into_iter().filter(|flag| *flag != "namespace") {
        ensure!(FLAGS.iter().any(|(known, ..)| *known == flag), "--{flag} is not handed on");
    }
    Ok(())
}
