//! The DaemonSet as shipped in a real cluster: what a person does with kubectl.
//!
//! Run by `cargo xtask test --tier cluster`, one after another.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use np_tests::kubernetes::{Kubernetes, PORT, eventually};
use serde_json::json;

#[test]
fn a_policy_judges_the_pod_behind_a_service_on_either_node() -> Result<()> {
    let cluster = Kubernetes::find()?;
    let (here, there) = cluster.two_nodes()?;
    let shop = cluster.namespace("np-shop")?;
    for (pod, node) in [("web", &here), ("other", &here), ("near", &here), ("far", &there)] {
        shop.pod(pod, node)?;
    }
    for server in ["near", "far"] {
        let service = shop.service(server, 80)?;
        let pod = shop.address(server)?;
        shop.expect("other", &service, 80, true)?;
        let rule = |port: u16| {
            json!({
                "podSelector": {"matchLabels": {"app": server}},
                "ingress": [{
                    "from": [{"podSelector": {"matchLabels": {"app": "web"}}}],
                    "ports": [{"port": port}],
                }],
            })
        };
        shop.policy(server, &rule(PORT))?;
        shop.expect("other", &service, 80, false)?;
        shop.expect("other", &pod, PORT, false)?;
        shop.expect("web", &service, 80, true)?;
        shop.expect("web", &pod, PORT, true)?;
        // The Service's port is nobody's: the packet bears the pod's when it is judged.
        shop.policy(server, &rule(80))?;
        shop.expect("web", &service, 80, false)?;
    }
    Ok(())
}

#[test]
fn kubelet_s_probes_pass_under_a_policy_that_denies_all() -> Result<()> {
    let cluster = Kubernetes::find()?;
    let (here, there) = cluster.two_nodes()?;
    let closed = cluster.namespace("np-closed")?;
    closed.policy("deny", &json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}))?;
    // Each becomes ready only by kubelet's probe.
    closed.pod("first", &here)?;
    closed.pod("second", &there)?;
    closed.expect("first", &closed.address("second")?, PORT, false)
}

#[test]
fn a_pod_of_the_same_name_on_another_node_is_judged_there() -> Result<()> {
    let cluster = Kubernetes::find()?;
    let (here, there) = cluster.two_nodes()?;
    let moved = cluster.namespace("np-moved")?;
    moved.pod("client", &here)?;
    moved.pod("server", &here)?;
    moved.admit_only("client", "server")?;
    moved.pod("stranger", &there)?;
    for node in [&there, &here] {
        cluster.kubectl("delete pod server --namespace np-moved --timeout=60s")?;
        moved.pod("server", node)?;
        let server = moved.address("server")?;
        moved.expect("client", &server, PORT, true)?;
        moved.expect("stranger", &server, PORT, false)?;
    }
    Ok(())
}

#[test]
fn pods_that_kubelet_alone_knows_of_are_judged_and_pods_of_the_host_are_not() -> Result<()> {
    let cluster = Kubernetes::find()?;
    let (here, there) = cluster.two_nodes()?;
    let odd = cluster.namespace("np-odd")?;
    odd.pod("client", &here)?;
    odd.policy("deny", &json!({"podSelector": {}, "policyTypes": ["Ingress"]}))?;

    let mut of_the_host = odd.serving("hosted", &there);
    let port = 18080;
    of_the_host["spec"]["hostNetwork"] = true.into();
    of_the_host["spec"]["containers"][0]["args"] =
        json!(["netexec", "--http-port=18080", "--udp-port=18081"]);
    of_the_host["spec"]["containers"][0]["readinessProbe"]["httpGet"]["port"] = port.into();
    cluster.apply(&of_the_host)?;
    odd.wait("hosted", "condition=Ready")?;
    odd.expect("client", &odd.address("hosted")?, port, true)?;

    let file = cluster.dir().join(format!("hosts/{there}/static-pods/np-static.json"));
    let _gone = Gone(file.clone());
    let mut of_the_file = odd.serving("static", &there);
    of_the_file["spec"].as_object_mut().context("a spec")?.remove("nodeName");
    fs::write(&file, of_the_file.to_string())
        .with_context(|| format!("writing {}", file.display()))?;
    let mirror = format!("static-{there}");
    eventually("the static pod's mirror", || odd.wait(&mirror, "condition=Ready"))?;
    let address = odd.address(&mirror)?;
    odd.expect("client", &address, PORT, false)?;
    odd.admit_only("client", "static")?;
    odd.expect("client", &address, PORT, true)
}

/// Removes a file in the end.
struct Gone(std::path::PathBuf);

impl Drop for Gone {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

#[test]
fn pods_that_start_under_a_policy_are_never_reached_against_it() -> Result<()> {
    let cluster = Kubernetes::find()?;
    let (here, there) = cluster.two_nodes()?;
    let busy = cluster.namespace("np-busy")?;
    busy.pod("client", &here)?;
    busy.policy("deny", &json!({"podSelector": {"matchLabels": {"closed": "yes"}}}))?;
    let mut asked = 0;
    for round in 0..3 {
        let pods: Vec<serde_json::Value> = (0..10)
            .map(|number| {
                let node = if number % 2 == 0 { &here } else { &there };
                let mut pod = busy.serving(&format!("closed-{number}"), node);
                pod["metadata"]["labels"]["closed"] = "yes".into();
                pod
            })
            .collect();
        cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": pods}))?;
        let mut ready = String::new();
        while ready.matches("True").count() < pods.len() {
            for address in busy.addresses("closed=yes")? {
                ensure!(!busy.reaches("client", &address, PORT)?, "{address} in round {round}");
                asked += 1;
            }
            let condition = r#"{.items[*].status.conditions[?(@.type=="Ready")].status}"#;
            ready = cluster.kubectl(&format!(
                "get pods --namespace np-busy --selector closed=yes -o jsonpath={condition}"
            ))?;
        }
        cluster.kubectl("delete pods --namespace np-busy --selector closed=yes --timeout=90s")?;
    }
    println!("{asked} attempts while 30 pods came and went, none passed");
    Ok(())
}
