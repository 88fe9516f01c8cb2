//! CoreDNS as the cluster's DNS: what kubeadm makes of it, with an image of our own.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::control_plane::{apply, kubectl};
use super::options::Options;
use super::places::Places;
use super::programs;
use crate::shell;

/// As in kubeadm's, but with nothing behind it: a cluster here is alone, so other names do not exist.
const COREFILE: &str = "\
.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    cache 30
    loop
    reload
    loadbalance
}
";

/// How long its pods may take.
const PATIENCE: Duration = Duration::from_secs(120);

pub fn image() -> Result<String> {
    Ok(format!("registry.k8s.io/coredns/coredns:v{}", programs::coredns_version()?))
}

/// Deploys it and waits until it answers.
pub fn deploy(places: &Places, options: &Options) -> Result<()> {
    apply(places, &objects(&image()?, options))?;
    let wait = format!(
        "rollout status deployment/coredns --namespace kube-system --timeout={}s",
        PATIENCE.as_secs()
    );
    shell::capture(kubectl(places).args(wait.split(' '))).context("waiting for CoreDNS")?;
    Ok(())
}

fn objects(image: &str, options: &Options) -> Vec<Value> {
    let families: Vec<&str> = options.family.plans().iter().map(|plan| plan.api_name()).collect();
    let addresses: Vec<&str> =
        options.family.plans().iter().map(|plan| plan.dns_service()).collect();
    let ports = [("dns", "UDP", 53), ("dns-tcp", "TCP", 53), ("metrics", "TCP", 9153)];
    let ports = ports
        .map(|(name, protocol, port)| json!({"name": name, "protocol": protocol, "port": port}));
    let mut objects = access();
    objects.push(json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "coredns", "namespace": "kube-system"},
        "data": {"Corefile": COREFILE},
    }));
    objects.push(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true"},
        },
        "spec": {
            "selector": {"k8s-app": "kube-dns"},
            "clusterIP": addresses[0],
            "clusterIPs": addresses,
            "ipFamilies": families,
            "ipFamilyPolicy": if families.len() > 1 { "RequireDualStack" } else { "SingleStack" },
            "ports": ports,
        },
    }));
    objects.push(deployment(image));
    objects
}

/// What it may read.
fn access() -> Vec<Value> {
    let group = "rbac.authorization.k8s.io";
    vec![
        json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "coredns", "namespace": "kube-system"},
        }),
        json!({
            "apiVersion": format!("{group}/v1"),
            "kind": "ClusterRole",
            "metadata": {"name": "system:coredns"},
            "rules": [
                {
                    "apiGroups": [""],
                    "resources": ["endpoints", "services", "pods", "namespaces"],
                    "verbs": ["list", "watch"],
                },
                {
                    "apiGroups": ["discovery.k8s.io"],
                    "resources": ["endpointslices"],
                    "verbs": ["list", "watch"],
                },
            ],
        }),
        json!({
            "apiVersion": format!("{group}/v1"),
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "system:coredns"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "system:coredns"},
            "subjects": [{"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}],
        }),
    ]
}

fn deployment(image: &str) -> Value {
    let labels = json!({"k8s-app": "kube-dns"});
    let probe = |path: &str, port: u16| json!({"httpGet": {"path": path, "port": port}});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "coredns", "namespace": "kube-system", "labels": labels},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "priorityClassName": "system-cluster-critical",
                    "serviceAccountName": "coredns",
                    "dnsPolicy": "Default",
                    "topologySpreadConstraints": [{
                        "maxSkew": 1,
                        "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": {"matchLabels": labels},
                    }],
                    "containers": [{
                        "name": "coredns",
                        "image": image,
                        "imagePullPolicy": "IfNotPresent",
                        "args": ["-conf", "/etc/coredns/Corefile"],
                        "ports": [
                            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                            {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
                            {"name": "metrics", "containerPort": 9153, "protocol": "TCP"},
                        ],
                        "volumeMounts": [
                            {"name": "config", "mountPath": "/etc/coredns", "readOnly": true},
                        ],
                        "livenessProbe": probe("/health", 8080),
                        "readinessProbe": probe("/ready", 8181),
                        "securityContext": {
                            "allowPrivilegeEscalation": false,
                            "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
                            "readOnlyRootFilesystem": true,
                        },
                    }],
                    "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::options::Family;
    use super::*;

    #[test]
    fn the_service_has_the_address_that_pods_ask() {
        let service = |family| {
            let objects = objects("image", &Options { family, ..Options::default() });
            let service = objects.into_iter().find(|object| object["kind"] == "Service");
            service.expect("a Service")["spec"].clone()
        };
        assert_eq!(service(Family::V4)["clusterIP"], "10.96.0.10");
        assert_eq!(service(Family::V6)["ipFamilies"], json!(["IPv6"]));
        let dual = service(Family::Dual);
        assert_eq!(dual["clusterIPs"], json!(["10.96.0.10", "fd00:96::a"]));
        assert_eq!(dual["ipFamilyPolicy"], "RequireDualStack");
    }
}
