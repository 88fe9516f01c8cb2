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
    /// Packets start at the IP header (tun, ipip, wireguard): there is no Ethernet header.
    pub layer3: bool,
    pub loopback: bool,
    /// What the device unwraps, when it is a tunnel.
    pub encapsulations: Vec<Encapsulation>,
    /// The other end, when it is in another network namespace.
    pub peer: Option<Peer>,
    /// The device's own addresses on the node.
    pub addresses: Vec<IpAddr>,
    /// Some route leads through a gateway behind this device.
    pub gateway: bool,
    /// Destinations of host routes (/32, /128) straight to this device, sorted.
    pub host_routes: Vec<IpAddr>,
}

/// The end of a device pair that lies in another network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The namespace's id, local to the node's namespace; reused after the namespace is gone.
    pub netnsid: i32,
    pub index: IfIndex,
    /// Addresses found on the peer, without loopback and link-local ones, sorted. They are the
    /// claim of whoever is inside, not a proof.
    pub claims: Vec<IpAddr>,
}

/// One change among the node's devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceChange {
    /// The device appeared, or one of its facts changed.
    Seen(Device),
    Gone(IfIndex),
}
