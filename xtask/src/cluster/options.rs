//! What a cluster is to be like. Pure.

use std::fmt;

use clap::ValueEnum;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub struct Options {
    /// How many nodes
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=9))]
    pub nodes: u8,

    /// What connects pods
    #[arg(long, value_enum, default_value_t = Cni::Ptp)]
    pub cni: Cni,

    /// How kube-proxy writes Services
    #[arg(long, value_enum, default_value_t = Proxy::Iptables)]
    pub proxy: Proxy,

    /// The addresses of nodes, pods and Services
    #[arg(long, value_enum, default_value_t = Family::V4)]
    pub family: Family,
}

impl Default for Options {
    fn default() -> Self {
        Self { nodes: 2, cni: Cni::Ptp, proxy: Proxy::Iptables, family: Family::V4 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Cni {
    /// A veth and a host route for each pod
    Ptp,
    /// A bridge on each node
    Bridge,
    /// flannel with its backend vxlan
    Flannel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Proxy {
    Iptables,
    Nftables,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Family {
    V4,
    V6,
    /// Both, IPv4 first
    Dual,
}

impl Options {
    /// What results depend on: the plugin, kube-proxy's mode and the addresses.
    pub fn kind(&self) -> [String; 3] {
        let family = match self.family {
            Family::V4 => "v4",
            Family::V6 => "v6",
            Family::Dual => "dual",
        };
        [self.cni.plugin(), self.proxy.mode(), family].map(str::to_owned)
    }
}

impl Proxy {
    /// As kube-proxy's `--proxy-mode` has it.
    pub const fn mode(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        }
    }
}

impl Cni {
    /// The plugin's name.
    pub const fn plugin(self) -> &'static str {
        match self {
            Self::Ptp => "ptp",
            Self::Bridge => "bridge",
            Self::Flannel => "flannel",
        }
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
            Family::Dual => "dual stack",
        };
        let (nodes, cni, proxy) = (self.nodes, self.cni.plugin(), self.proxy.mode());
        write!(f, "{nodes} nodes, {cni}, kube-proxy {proxy}, {family}")
    }
}
