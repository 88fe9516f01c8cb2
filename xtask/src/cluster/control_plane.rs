//! etcd, the API server, the controller manager and the scheduler, on a host of their own.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::config::HERE;
use super::fabric::{self, CONTROL};
use super::host::{Daemon, Host, wait_for};
use super::options::{Family, Options};
use super::places::Places;
use crate::shell;

/// How long the API server may take to answer: migrations of an empty etcd, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Starts it and waits until the API server is ready.
pub fn start(places: &Places, options: &Options) -> Result<Vec<Daemon>> {
    let host = Host::start(CONTROL, places)?;
    fabric::connect_control(options)?;
    let mut daemons = vec![
        host.start_program("etcd", &etcd())?,
        host.start_program(&format!("{HERE}/bin/kube-apiserver"), &api_server(options))?,
    ];
    wait_for("the API server", PATIENCE, &mut daemons, || {
        let said = shell::capture(kubectl(places).args(["get", "--raw", "/readyz"]))?;
        if said == "ok" { Ok(()) } else { bail!("it says: {said}") }
    })?;
    for (program, arguments) in
        [("kube-controller-manager", controller_manager(options)), ("kube-scheduler", scheduler())]
    {
        daemons.push(host.start_program(&format!("{HERE}/bin/{program}"), &arguments)?);
    }
    // As kubeadm does.
    shell::capture(kubectl(places).args([
        "create",
        "clusterrolebinding",
        "kube-proxy",
        "--clusterrole=system:node-proxier",
        "--user=system:kube-proxy",
    ]))?;
    Ok(daemons)
}

/// kubectl as the cluster's administrator.
pub fn kubectl(places: &Places) -> Command {
    let mut command = Command::new(places.program("kubectl"));
    command.env("KUBECONFIG", places.kubeconfig());
    command
}

/// Creates or changes objects.
pub fn apply(places: &Places, objects: &[Value]) -> Result<()> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let mut command = kubectl(places);
    command.args(["apply", "--filename", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.stderr(Stdio::piped()).spawn().context("cannot start kubectl")?;
    let mut input = child.stdin.take().context("the input is piped")?;
    input.write_all(list.to_string().as_bytes()).context("writing to kubectl")?;
    drop(input);
    let output = child.wait_with_output().context("waiting for kubectl")?;
    if !output.status.success() {
        bail!("kubectl takes no objects: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn etcd() -> Vec<String> {
    flags(&[
        ("data-dir", "/var/lib/etcd"),
        ("listen-client-urls", "http://127.0.0.1:2379"),
        ("advertise-client-urls", "http://127.0.0.1:2379"),
        ("listen-peer-urls", "http://127.0.0.1:2380"),
    ])
}

fn api_server(options: &Options) -> Vec<String> {
    let family = options.family;
    let pki = |file: &str| format!("{HERE}/pki/{file}");
    let first = family.plans()[0].control().to_string();
    flags(&[
        ("etcd-servers", "http://127.0.0.1:2379"),
        ("advertise-address", &first),
        ("bind-address", if family == Family::V4 { "0.0.0.0" } else { "::" }),
        ("secure-port", "6443"),
        ("tls-cert-file", &pki("api-server.crt")),
        ("tls-private-key-file", &pki("api-server.key")),
        ("client-ca-file", &pki("ca.crt")),
        ("token-auth-file", &pki("tokens.csv")),
        ("kubelet-client-certificate", &pki("kubelet-client.crt")),
        ("kubelet-client-key", &pki("kubelet-client.key")),
        ("kubelet-preferred-address-types", "InternalIP"),
        ("service-account-issuer", "https://kubernetes.default.svc"),
        ("service-account-key-file", &pki("service-accounts.key")),
        ("service-account-signing-key-file", &pki("service-accounts.key")),
        ("authorization-mode", "Node,RBAC"),
        ("enable-admission-plugins", "NodeRestriction"),
        ("service-cluster-ip-range", &family.list(|plan| plan.services().to_owned())),
        ("allow-privileged", "true"),
    ])
}

fn controller_manager(options: &Options) -> Vec<String> {
    let family = options.family;
    flags(&[
        ("kubeconfig", &format!("{HERE}/pki/controller-manager.conf")),
        ("service-account-private-key-file", &format!("{HERE}/pki/service-accounts.key")),
        ("root-ca-file", &format!("{HERE}/pki/ca.crt")),
        ("use-service-account-credentials", "true"),
        // Nodes have their ranges before they come.
        ("allocate-node-cidrs", "false"),
        ("cluster-cidr", &family.list(|plan| plan.all_pods().to_owned())),
        ("service-cluster-ip-range", &family.list(|plan| plan.services().to_owned())),
        ("leader-elect", "false"),
    ])
}

fn scheduler() -> Vec<String> {
    flags(&[("kubeconfig", &format!("{HERE}/pki/scheduler.conf")), ("leader-elect", "false")])
}

/// `--name=value` of each.
pub fn flags(flags: &[(&str, &str)]) -> Vec<String> {
    flags.iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::options::{Cni, Proxy};
    use super::*;

    #[test]
    fn both_families_have_a_range_for_services() {
        let family = Family::Dual;
        let options = Options { nodes: 1, cni: Cni::Ptp, proxy: Proxy::Iptables, family };
        let range = "--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112".to_owned();
        assert!(api_server(&options).contains(&range));
        assert!(controller_manager(&options).contains(&range));
        assert!(api_server(&options).contains(&"--bind-address=::".to_owned()));
    }
}
