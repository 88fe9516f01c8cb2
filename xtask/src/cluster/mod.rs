//! A real Kubernetes cluster on this machine without Docker: hosts are namespaces, and every program
//! on them is the one that a real node runs.

mod addresses;
mod allow_all;
mod cgroup;
pub mod chart;
mod compare;
mod config;
mod control_plane;
mod dns;
mod down;
mod fabric;
mod flannel;
mod host;
mod images;
mod kind;
mod linked;
mod node;
pub mod options;
mod pki;
mod places;
mod programs;
pub mod suite;
pub mod tier;

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::build_ebpf;
use crate::image;
use crate::setup::{self, Needs};
use crate::shell::{self, step};
use host::Host;
use node::Node;
use options::{Cni, Options};
use places::Places;

/// Make a real Kubernetes cluster on this machine, or take it down; needs root, and no Docker
///
/// etcd, containerd and runc are the distribution's; Kubernetes and CoreDNS are built by Go, from
/// nothing in about fifteen minutes. Each node is a network, a mount and a process namespace. The
/// agent's image is built and loaded, but not deployed. With --kind, kind makes the cluster in Docker.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Make the cluster
    Up {
        #[command(flatten)]
        options: Options,

        /// Let kind make it; needs Docker, kind and kubectl, and no root. Has not been run yet
        #[arg(long, conflicts_with = "cni")]
        kind: bool,
    },
    /// Build the agent's image anew, load it on every node, and restart the agents if there are any
    Load,
    /// Take it down; only built programs, images and logs stay, all below target/cluster
    Down,
}

pub fn run(Args { verb }: &Args) -> Result<()> {
    if let Verb::Up { options, kind: true } = verb {
        return kind::up(options, &Places::find()?);
    }
    let by_kind = matches!(verb, Verb::Down) && kind::down()?;
    if by_kind && down::namespaces()?.is_empty() {
        return Ok(());
    }
    if !shell::is_root() {
        bail!("the cluster needs root: `sudo -E env \"PATH=$PATH\" cargo xtask cluster …`");
    }
    let places = Places::find()?;
    match verb {
        Verb::Up { options, kind: _ } => up(options, &places),
        Verb::Load => load(&places),
        Verb::Down => take_down(&places),
    }
}

fn up(options: &Options, places: &Places) -> Result<()> {
    let toolchain = setup::ensure(Needs::Cluster)?;
    if !down::namespaces()?.is_empty() {
        bail!("a cluster is there already: `cargo xtask cluster down` first");
    }
    fabric::check_free(options)?;
    programs::build(places)?;
    if options.cni == Cni::Flannel {
        programs::build_flannel(places)?;
        flannel::gather_plugins(places)?;
    }
    let mut archives = images::make(places)?;
    build_ebpf::build(&build_ebpf::Args::default(), &toolchain)?;
    archives.push(image::build_here()?);
    let start = Instant::now();
    let made = make(options, places, &archives);
    if let Err(error) = made {
        println!("cluster: that failed; clearing away what there is of it");
        return match down::clear(places) {
            Ok(_) => Err(error.context(format!("logs are in {}", places.log().display()))),
            Err(also) => Err(error.context(format!("and something is left: {also:#}"))),
        };
    }
    summary(options, places, start)
}

/// Makes everything that [`down::clear`] removes.
fn make(options: &Options, places: &Places, archives: &[PathBuf]) -> Result<()> {
    // What an earlier one may have left.
    down::clear(places)?;
    for dir in [places.log(), places.hosts()] {
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
        }
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    }
    fs::write(places.kind(), options.kind().join(" ")).context("noting the kind of cluster")?;
    pki::make(places, options)?;
    let _daemons = step("starting the control plane", || control_plane::start(places, options))?;
    if options.cni == Cni::Flannel {
        flannel::allow(places)?;
    }
    let mut nodes = step("starting the nodes", || {
        let mut nodes = Vec::new();
        for number in 1..=options.nodes {
            let mut node = Node::start(number, places, options)?;
            for archive in archives {
                node.load(archive)?;
            }
            node.join(number, places, options)?;
            nodes.push(node);
        }
        Ok(nodes)
    })?;
    step("waiting for the nodes", || nodes.iter_mut().try_for_each(|node| node.wait(places)))?;
    step("waiting for the DNS", || dns::deploy(places, options))
}

fn summary(options: &Options, places: &Places, start: Instant) -> Result<()> {
    println!("\ncluster: Kubernetes {} with {options}", programs::version()?);
    println!("    up {:.0} s after everything was built", start.elapsed().as_secs_f32());
    println!("    images loaded: {}, {}", image::NAME, images::AGNHOST_IMAGE);
    println!("    logs: {}", places.log().display());
    println!("\n    export KUBECONFIG={}", places.kubeconfig().display());
    println!("    export PATH={}:$PATH", places.bin().display());
    println!("    kubectl get nodes");
    Ok(())
}

/// Builds the agent's image and hands it to all nodes of the cluster that there is.
fn load(places: &Places) -> Result<()> {
    let toolchain = setup::ensure(Needs::Build)?;
    let hosts = down::namespaces()?;
    let nodes = hosts.iter().filter_map(|namespace| host::of_namespace(namespace));
    let nodes: Vec<&str> = nodes.filter(|host| *host != fabric::CONTROL).collect();
    if nodes.is_empty() {
        bail!("there is no cluster: `cargo xtask cluster up` makes one");
    }
    build_ebpf::build(&build_ebpf::Args::default(), &toolchain)?;
    let archive = image::build_here()?;
    step("loading the image", || {
        for node in nodes {
            node::load(&Host::find(node, places)?, &archive)?;
        }
        let restart =
            "rollout restart daemonset --namespace kube-system --selector k8s-app=np-agent";
        shell::capture(control_plane::kubectl(places).args(restart.split(' '))).map(drop)
    })
}

fn take_down(places: &Places) -> Result<()> {
    let start = Instant::now();
    if down::clear(places)? {
        println!("cluster: down in {:.1} s", start.elapsed().as_secs_f32());
    } else {
        println!("cluster: there is none");
    }
    Ok(())
}
