//! A node: containerd, kubelet and kube-proxy on a host.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::addresses::{Plan, node_name};
use super::cgroup;
use super::config::{self, HERE};
use super::control_plane::{flags, kubectl};
use super::fabric;
use super::flannel;
use super::host::{Daemon, Host, wait_for};
use super::options::{Cni, Options};
use super::places::Places;
use crate::shell;

#[derive(Debug)]
pub struct Node {
    host: Host,
    daemons: Vec<Daemon>,
}

impl Node {
    /// Makes the node, and starts all its programs. It need not be ready yet.
    pub fn start(node: u8, places: &Places, options: &Options) -> Result<Self> {
        let name = node_name(node);
        let host = Host::start(&name, places)?;
        fabric::connect_node(node, options)?;
        cgroup::make(&name)?;
        let dir = places.host(&name);
        let files = [
            ("cni/10-pods.conflist", config::network(node, options).to_string()),
            ("containerd.toml", config::containerd(&name, options)),
            ("kubelet.json", config::kubelet(&name, options).to_string()),
            ("node.json", config::node_object(node, &name, options).to_string()),
            ("resolv.conf", format!("nameserver {}\n", options.family.plans()[0].dns_service())),
        ];
        for sub in ["cni", "static-pods"] {
            fs::create_dir_all(dir.join(sub))
                .with_context(|| format!("making a {sub} for {name}"))?;
        }
        for (file, text) in files {
            let path = dir.join(file);
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        }
        shell::capture(kubectl(places).args(["create", "--filename"]).arg(dir.join("node.json")))?;
        let config = format!("{HERE}/hosts/{name}");
        let containerd = host.start_program(
            "containerd",
            &flags(&[("config", &format!("{config}/containerd.toml"))]),
        )?;
        let mut daemons = vec![containerd];
        wait_for(&format!("containerd on {name}"), Duration::from_secs(30), &mut daemons, || {
            shell::capture(host.command("ctr").arg("version"))
        })?;
        Ok(Self { host, daemons })
    }

    /// Starts what makes the node take pods.
    pub fn join(&mut self, node: u8, places: &Places, options: &Options) -> Result<()> {
        let Self { host, daemons } = self;
        let name = &host.name;
        if options.cni == Cni::Flannel {
            daemons.push(flannel::start(host, places, options)?);
        }
        daemons.push(
            host.start_program(&format!("{HERE}/bin/kubelet"), &kubelet(node, name, options))?,
        );
        daemons.push(host.start_program(&format!("{HERE}/bin/kube-proxy"), &proxy(name, options))?);
        Ok(())
    }

    /// Hands an archive to containerd.
    pub fn load(&self, archive: &Path) -> Result<()> {
        load(&self.host, archive)
    }

    /// Waits until the node takes pods.
    pub fn wait(&mut self, places: &Places) -> Result<()> {
        let Self { host, daemons } = self;
        let what = format!("node {} ready", host.name);
        wait_for(&what, Duration::from_secs(120), daemons, || {
            let condition =
                r#"jsonpath={.status.conditions[?(@.type=="Ready")]['status','message']}"#;
            let said =
                shell::capture(kubectl(places).args(["get", "node", &host.name, "-o", condition]))?;
            if said.starts_with("True") { Ok(()) } else { bail!("it says: {said}") }
        })
    }
}

/// Hands an archive to the containerd of a host.
pub fn load(host: &Host, archive: &Path) -> Result<()> {
    // The host's /run and /var hide this machine's: the archive goes in by its own descriptor.
    let file = fs::File::open(archive).with_context(|| format!("opening {}", archive.display()))?;
    let mut command = host.command("ctr");
    command.args(["--namespace", "k8s.io", "images", "import", "-"]).stdin(file);
    let output = command.output().context("cannot start ctr")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} does not take {}: {}", host.name, archive.display(), said.trim());
    }
    Ok(())
}

fn kubelet(node: u8, name: &str, options: &Options) -> Vec<String> {
    flags(&[
        ("config", &format!("{HERE}/hosts/{name}/kubelet.json")),
        ("kubeconfig", &format!("{HERE}/pki/{name}.conf")),
        ("hostname-override", name),
        ("node-ip", &options.family.list(|plan: Plan| plan.node(node).to_string())),
        ("cert-dir", "/var/lib/kubelet/pki"),
    ])
}

fn proxy(name: &str, options: &Options) -> Vec<String> {
    flags(&[
        ("kubeconfig", &format!("{HERE}/pki/proxy.conf")),
        ("hostname-override", name),
        ("proxy-mode", options.proxy.mode()),
        ("cluster-cidr", &options.family.list(|plan| plan.all_pods().to_owned())),
        // These switches are the whole machine's.
        ("conntrack-max-per-core", "0"),
        ("conntrack-tcp-timeout-established", "0"),
        ("conntrack-tcp-timeout-close-wait", "0"),
    ])
}
