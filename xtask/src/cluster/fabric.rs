//! The network between the hosts: a bridge in the control plane's namespace, a link to each node, and
//! one to this machine. This machine itself forwards nothing.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::addresses::{Plan, node_name};
use super::host::{PREFIX, namespace};
use super::options::{Cni, Options};
use crate::shell;

/// The host of the control plane.
pub const CONTROL: &str = "control";

/// This machine's end of its link.
const HERE: &str = PREFIX;

/// Refuses where this machine's own network has the cluster's addresses.
///
/// # Errors
/// With the route in the way.
pub fn check_free(options: &Options) -> Result<()> {
    for plan in options.family.plans() {
        let range = format!("{}/{}", plan.control(), plan.prefix());
        let route = ip(&[plan.ip_option(), "route", "show", "root", &range])?;
        if !route.trim().is_empty() {
            bail!(
                "the cluster's nodes use {range}, and this machine has a route there: {}",
                route.trim()
            );
        }
    }
    Ok(())
}

/// Makes the bridge and the link to this machine.
pub fn connect_control(options: &Options) -> Result<()> {
    let control = namespace(CONTROL);
    ip(&["-n", &control, "link", "add", "br0", "type", "bridge"])?;
    ip(&["-n", &control, "link", "set", "br0", "up"])?;
    ip(&["link", "add", HERE, "type", "veth", "peer", "name", "outside", "netns", &control])?;
    attach("outside")?;
    ip(&["link", "set", HERE, "up"])?;
    for plan in options.family.plans() {
        address(&["-n", &control], *plan, &plan.control().to_string(), "br0")?;
        address(&[], *plan, &plan.here().to_string(), HERE)?;
    }
    Ok(())
}

/// Links a node, with routes to the others' pods where no daemon makes them.
pub fn connect_node(node: u8, options: &Options) -> Result<()> {
    let name = node_name(node);
    let (control, namespace) = (namespace(CONTROL), namespace(&name));
    ip(&[
        "-n", &namespace, "link", "add", "eth0", "type", "veth", "peer", "name", &name, "netns",
        &control,
    ])?;
    attach(&name)?;
    ip(&["-n", &namespace, "link", "set", "eth0", "up"])?;
    for plan in options.family.plans() {
        let in_node = &["-n", &namespace];
        address(in_node, *plan, &plan.node(node).to_string(), "eth0")?;
        route(in_node, *plan, plan.default_route(), &plan.control().to_string())?;
        let own = plan.node(node).to_string();
        route(&["-n", &control], *plan, &plan.pods(node), &own)?;
        if node == 1 {
            // The API server calls webhooks by their Service; some kube-proxy must be on the way.
            route(&["-n", &control], *plan, plan.services(), &own)?;
        }
        let others = (1..=options.nodes).filter(|other| *other != node);
        for other in others.filter(|_| options.cni != Cni::Flannel) {
            route(in_node, *plan, &plan.pods(other), &plan.node(other).to_string())?;
        }
    }
    Ok(())
}

fn attach(port: &str) -> Result<()> {
    ip(&["-n", &namespace(CONTROL), "link", "set", port, "master", "br0", "up"]).map(drop)
}

fn address(at: &[&str], plan: Plan, address: &str, device: &str) -> Result<()> {
    let address = format!("{address}/{}", plan.prefix());
    let mut words = [at, &["addr", "add", &address, "dev", device]].concat();
    if plan == Plan::V6 {
        words.push("nodad");
    }
    ip(&words).map(drop)
}

fn route(at: &[&str], plan: Plan, to: &str, via: &str) -> Result<()> {
    ip(&[at, &[plan.ip_option(), "route", "add", to, "via", via]].concat()).map(drop)
}

fn ip(words: &[&str]) -> Result<String> {
    shell::capture(Command::new("ip").args(words)).context("connecting the hosts")
}
