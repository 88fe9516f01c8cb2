//! A network device of the node, as the kernel describes it: the facts from which its role and,
//! for a pod's veth, its pod are concluded.

use std::fmt;
use std::net::IpAddr;

use np_common::tunnel::Encapsulation;
use serde::{Deserialize, Serialize};

/// A device's index. The kernel reuses indices after a device is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IfIndex(pub u32);

impl fmt::Display for IfIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub index: IfIndex,
    pub name: String,
    /// `IFLA_INFO_KIND`: "veth", "bridge", "vxlan" …; none for physical devices.
    pub kind: Option<String>,
    /// `IFLA_PARENT_DEV_NAME` is there: a driver has hardware for the device, real or virtual.
    pub hardware: bool,
    /// Packets start at the IP header (tun, ipip, wireguard): there is no Ethernet header.
    pub layer3: bool,
    pub loopback: bool,
    /// What the device unwraps, when it is a tunnel.
    pub encapsulations: Vec<Encapsulation>,
    /// `IFLA_MASTER`: the bridge, bond, VRF or switch that the device is a port of.
    pub master: Option<IfIndex>,
    /// The device below this one: the one whose packets a VLAN or macvlan takes its share of.
    pub lower: Option<Lower>,
    /// The other end, when it is in another network namespace.
    pub peer: Option<Peer>,
    /// The device's own addresses on the node.
    pub addresses: Vec<IpAddr>,
    /// A default route leads through a gateway behind this device, or another route through a
    /// gateway in a network that is straight on it.
    pub gateway: bool,
    /// Routes to single hosts (/32, /128) straight to this device, sorted.
    pub host_routes: Vec<HostRoute>,
}

/// Where the device below another one is (`IFLA_LINK`, `IFLA_LINK_NETNSID`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lower {
    Here(IfIndex),
    /// In another network namespace.
    Elsewhere,
}

/// The end of a device pair that is in another network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The namespace's id, local to the node's namespace; negative while the namespace is dying.
    /// Of all devices with one id, none was read before the id was given to this namespace.
    pub netnsid: i32,
    pub index: IfIndex,
    /// Addresses found on any device in the peer's namespace, without loopback and link-local
    /// ones, sorted. They are the claim of those inside, not a proof.
    pub claims: Vec<IpAddr>,
}

/// A route to a single host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostRoute {
    pub to: IpAddr,
    /// Not in the main table: which packets use it is up to rules.
    pub by_rule: bool,
    /// `RTA_PRIORITY`: the least is used.
    pub metric: u32,
}

impl From<IpAddr> for HostRoute {
    fn from(to: IpAddr) -> Self {
        Self { to, by_rule: false, metric: 0 }
    }
}

/// One change among the node's devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceChange {
    /// The device appeared, or one of its facts changed.
    Seen(Device),
    Gone(IfIndex),
}
