//! flannel as the network of the pods: its daemon on each node, with the subnet manager of Kubernetes and
//! the backend vxlan, and its plugin. On a real cluster the daemon comes as a DaemonSet of the host's
//! network; here a node runs it as it runs kubelet. What both read is what kube-flannel.yml has.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::addresses::Plan;
use super::config::HERE;
use super::control_plane::{apply, flags};
use super::host::{Daemon, Host, wait_for};
use super::options::Options;
use super::places::Places;

/// The daemon's user.
pub const USER: &str = "system:flannel";

/// Where distributions have the other plugins, which flannel's calls.
pub const PLUGINS: &str = "/usr/lib/cni";

/// The daemon's configuration, in a node's directory.
const NETWORK: &str = "flannel.json";

/// The network of all pods.
fn network(options: &Options) -> Value {
    let plans = options.family.plans();
    let mut network = json!({
        "EnableIPv4": plans.contains(&Plan::V4),
        "EnableIPv6": plans.contains(&Plan::V6),
        "EnableNFTables": false,
        "Backend": {"Type": "vxlan"},
    });
    for plan in plans {
        let key = if *plan == Plan::V4 { "Network" } else { "IPv6Network" };
        network[key] = plan.all_pods().into();
    }
    network
}

/// What containerd reads: the plugin takes the node's part of the network from what the daemon writes.
pub fn conflist() -> Value {
    json!({
        // This plugin knows no later one.
        "cniVersion": "0.4.0",
        "name": "cbr0",
        "plugins": [
            {"type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true}},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

/// Puts flannel's plugin and links to the others into one directory: containerd takes no second.
pub fn gather_plugins(places: &Places) -> Result<()> {
    let dir = places.program("cni");
    let names = fs::read_dir(PLUGINS).with_context(|| format!("reading {PLUGINS}"))?;
    for entry in names {
        let entry = entry.with_context(|| format!("reading {PLUGINS}"))?;
        let link = dir.join(entry.file_name());
        if !link.exists() {
            symlink(entry.path(), &link).with_context(|| format!("making {}", link.display()))?;
        }
    }
    Ok(())
}

/// Lets the daemon read nodes and note on its own what the others need to know.
pub fn allow(places: &Places) -> Result<()> {
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "flannel"},
        "rules": [
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]},
            {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
        ],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "flannel"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "flannel"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}],
    });
    apply(places, &[role, binding])
}

/// Starts the daemon, and waits until it has the node's part of the network.
pub fn start(host: &Host, places: &Places, options: &Options) -> Result<Daemon> {
    let name = &host.name;
    let path = places.host(name).join(NETWORK);
    fs::write(&path, network(options).to_string())
        .with_context(|| format!("writing {}", path.display()))?;
    let mut daemons = [host.start_with(
        &[("NODE_NAME", name)],
        &format!("{HERE}/bin/flanneld"),
        &arguments(name),
    )?];
    wait_for(&format!("flannel on {name}"), Duration::from_secs(60), &mut daemons, || {
        crate::shell::capture(host.command("cat").arg("/run/flannel/subnet.env"))
    })?;
    let [daemon] = daemons;
    Ok(daemon)
}

fn arguments(node: &str) -> Vec<String> {
    let mut arguments = flags(&[
        ("kubeconfig-file", &format!("{HERE}/pki/flannel.conf")),
        ("net-config-path", &format!("{HERE}/hosts/{node}/{NETWORK}")),
        ("iface", "eth0"),
    ]);
    arguments.extend(["--kube-subnet-mgr", "--ip-masq"].map(str::to_owned));
    arguments
}

#[cfg(test)]
mod tests {
    use super::super::options::{Cni, Family};
    use super::*;

    #[test]
    fn the_network_has_the_families_of_the_cluster() {
        let of = |family| network(&Options { cni: Cni::Flannel, family, ..Options::default() });
        assert_eq!(of(Family::V4)["Network"], "10.244.0.0/16");
        assert_eq!(of(Family::V4).get("IPv6Network"), None);
        assert_eq!(of(Family::V6)["EnableIPv4"], false);
        assert_eq!(of(Family::Dual)["IPv6Network"], "fd00:244::/48");
    }
}
