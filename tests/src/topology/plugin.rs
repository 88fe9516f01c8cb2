//! The reference CNI plugins, run as a container runtime runs them: one process per call, its
//! parameters in the environment, its configuration on standard input.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::attach::Wiring;
use crate::address::Family;
use crate::netns::Namespace;

/// Where distributions and Kubernetes put plugins.
const PLACES: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

/// Calls one after the other: two that make the same bridge at once get into each other's way, and
/// a runtime's calls for one node seldom meet.
static CALLS: Mutex<()> = Mutex::new(());

/// The plugin `ptp` with host-local addresses.
pub(super) fn ptp(wiring: &Wiring<'_>) -> Result<()> {
    let routes = json!([{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]);
    attach(wiring, json!({ "type": "ptp", "ipMasq": false, "ipam": { "routes": routes } }))
}

/// The plugin `bridge` in its usual configuration, in which flannel's plugin runs it too.
pub(super) fn bridge_cni0(wiring: &Wiring<'_>) -> Result<()> {
    bridge(wiring, "cni0")
}

pub(super) fn bridge_kube_router(wiring: &Wiring<'_>) -> Result<()> {
    bridge(wiring, "kube-bridge")
}

/// Hairpin mode: a port sends back what came in by it, so that a pod reaches itself by its Service.
fn bridge(wiring: &Wiring<'_>, name: &str) -> Result<()> {
    attach(
        wiring,
        json!({
            "type": "bridge",
            "bridge": name,
            "isGateway": true,
            "isDefaultGateway": true,
            "hairpinMode": true,
            "ipMasq": false,
        }),
    )
}

/// Attaches a pod by a plugin, with the addresses that the cluster's plan gives it.
fn attach(wiring: &Wiring<'_>, mut config: Value) -> Result<()> {
    let Wiring { name, router, inside, address, block, mtu } = wiring;
    let leases = tempfile::tempdir().context("make a directory for leases")?;
    let ranges = Family::BOTH.map(|family| {
        let address = family.address(*address);
        json!([{
            "subnet": family.block(*block).to_string(),
            "rangeStart": address.to_string(),
            "rangeEnd": address.to_string(),
        }])
    });
    config["mtu"] = json!(mtu);
    config["ipam"]["type"] = json!("host-local");
    config["ipam"]["ranges"] = json!(ranges);
    config["ipam"]["dataDir"] = json!(leases.path());
    inside.ip("link set lo up")?;
    add(router, inside, name, config).map(drop)
}

/// Forwards host ports to a pod by the plugin `portmap`: (port of the node, port of the pod).
pub fn portmap(wiring: &Wiring<'_>, ports: &[(u16, u16)]) -> Result<()> {
    let Wiring { name, router, inside, address, block, .. } = wiring;
    let mappings: Vec<_> = ports
        .iter()
        .map(|(host, pod)| json!({ "hostPort": host, "containerPort": pod, "protocol": "tcp" }))
        .collect();
    let ips = Family::BOTH.map(|family| {
        let length = family.block(*block).prefix_len();
        json!({ "address": format!("{}/{length}", family.address(*address)), "interface": 0 })
    });
    let config = json!({
        "type": "portmap",
        "capabilities": { "portMappings": true },
        "snat": true,
        "runtimeConfig": { "portMappings": mappings },
        "prevResult": {
            "cniVersion": VERSION,
            "interfaces": [{ "name": "eth0", "sandbox": inside.path() }],
            "ips": ips,
        },
    });
    add(router, inside, name, config).map(drop)
}

const VERSION: &str = "1.0.0";

/// Runs `ADD` on a node for a pod.
fn add(node: &Namespace, pod: &Namespace, id: &str, mut config: Value) -> Result<String> {
    let kind = config["type"].as_str().unwrap_or_default().to_string();
    let program = find(&kind)?;
    config["cniVersion"] = json!(VERSION);
    config["name"] = json!("pods");
    let _turn = CALLS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut child = node
        .command(&program)
        .env("CNI_COMMAND", "ADD")
        .env("CNI_CONTAINERID", id)
        .env("CNI_NETNS", pod.path())
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", PLACES.join(":"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", program.display()))?;
    let mut stdin = child.stdin.take().context("standard input is piped")?;
    stdin.write_all(config.to_string().as_bytes()).context("write a plugin's configuration")?;
    drop(stdin);
    let output = child.wait_with_output().with_context(|| format!("wait for {kind}"))?;
    // A plugin tells its errors on standard output.
    let [told, errors] =
        [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
    ensure!(output.status.success(), "{kind} for {id}: {told}{errors}\nconfiguration: {config}");
    Ok(told)
}

fn find(plugin: &str) -> Result<PathBuf> {
    let found = PLACES.iter().map(|place| Path::new(place).join(plugin)).find(|path| path.exists());
    found.with_context(|| {
        format!("no CNI plugin {plugin} in {}: run `cargo xtask setup`", PLACES.join(" or "))
    })
}
