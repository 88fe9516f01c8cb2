//! The files that the programs of a node read. Pure. JSON where the program takes it, because it is
//! YAML as well and needs no quoting of ours.

use serde_json::{Value, json};

use super::addresses::Plan;
use super::flannel;
use super::options::{Cni, Options};

/// Where the programs and files of the cluster are in every machine of it.
pub const HERE: &str = "/run/np-cluster";

/// The cgroup above all containers, so that `down` finds what they leave.
pub const CGROUP: &str = "/np-cluster";

/// In the version that Kubernetes' tests ask for too.
pub const PAUSE_IMAGE: &str = "registry.k8s.io/pause:3.10.2";

/// containerd with its usual places.
pub fn containerd(node: &str, options: &Options) -> String {
    let plugins = match options.cni {
        Cni::Ptp | Cni::Bridge => flannel::PLUGINS.to_owned(),
        Cni::Flannel => format!("{HERE}/bin/cni"),
    };
    format!(
        r#"version = 2
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Where the machine is itself a container, runc may not lower it.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{HERE}/hosts/{node}/cni"
"#
    )
}

/// A kubelet that takes the machine as it is: no limits of its own, swap and an old cgroup layout.
pub fn kubelet(node: &str, options: &Options) -> Value {
    let first = options.family.plans()[0];
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": if first == Plan::V4 { "0.0.0.0" } else { "::" },
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": format!("{HERE}/pki/ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("{CGROUP}/{node}"),
        "cgroupsPerQOS": true,
        "clusterDNS": [first.dns_service()],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "enforceNodeAllocatable": [],
        "evictionHard": {"memory.available": "10Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
        "failCgroupV1": false,
        "failSwapOn": false,
        "imageGCHighThresholdPercent": 100,
        "localStorageCapacityIsolation": false,
        "makeIPTablesUtilChains": false,
        "maxOpenFiles": 20000,
        "resolvConf": format!("{HERE}/hosts/{node}/resolv.conf"),
        "staticPodPath": format!("{HERE}/hosts/{node}/static-pods"),
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
    })
}

/// The network of a node's pods.
pub fn network(node: u8, options: &Options) -> Value {
    if options.cni == Cni::Flannel {
        return flannel::conflist();
    }
    let plans = options.family.plans();
    let ranges: Vec<Value> =
        plans.iter().map(|plan| json!([{"subnet": plan.pods(node)}])).collect();
    let routes: Vec<Value> =
        plans.iter().map(|plan| json!({"dst": plan.default_route()})).collect();
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": options.cni.plugin(),
                "bridge": "cni0",
                "isGateway": true,
                "hairpinMode": true,
                "ipMasq": false,
                "mtu": 1500,
                "ipam": {"type": "host-local", "ranges": ranges, "routes": routes},
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

/// The Node object, made before kubelet comes, so that its pod ranges do not depend on who is first.
pub fn node_object(node: u8, name: &str, options: &Options) -> Value {
    let pods: Vec<String> = options.family.plans().iter().map(|plan| plan.pods(node)).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "spec": {"podCIDR": pods[0], "podCIDRs": pods},
    })
}

/// How a user reaches the API server.
pub fn kubeconfig(server: &str, certificate_authority: &str, token: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "np-cluster",
            "cluster": {"server": server, "certificate-authority-data": certificate_authority},
        }],
        "users": [{"name": "user", "user": {"token": token}}],
        "contexts": [{"name": "np-cluster", "context": {"cluster": "np-cluster", "user": "user"}}],
        "current-context": "np-cluster",
    })
}

#[cfg(test)]
mod tests {
    use super::super::options::{Family, Proxy};
    use super::*;

    const DUAL: Options =
        Options { nodes: 2, cni: Cni::Bridge, proxy: Proxy::Iptables, family: Family::Dual };

    #[test]
    fn a_pod_gets_an_address_and_a_route_of_each_family() {
        let ipam = &network(2, &DUAL)["plugins"][0]["ipam"];
        assert_eq!(ipam["ranges"][1][0]["subnet"], "fd00:244:0:2::/64");
        assert_eq!(ipam["routes"], json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]));
    }

    #[test]
    fn the_node_s_ranges_are_those_its_network_gives_out() {
        let node = node_object(2, "n2", &DUAL);
        let ranges = &network(2, &DUAL)["plugins"][0]["ipam"]["ranges"];
        for (index, range) in
            node["spec"]["podCIDRs"].as_array().expect("a list").iter().enumerate()
        {
            assert_eq!(*range, ranges[index][0]["subnet"]);
        }
    }
}
