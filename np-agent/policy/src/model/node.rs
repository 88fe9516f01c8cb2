//! A Node: the addresses that tell its uplinks from pods' devices, and its pod ranges.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::ids::NodeName;

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Node {
    pub name: NodeName,
    /// `status.addresses` of the types InternalIP and ExternalIP.
    pub addresses: Vec<IpAddr>,
    /// `spec.podCIDRs`, or the one `spec.podCIDR`.
    pub pod_cidrs: Vec<IpNet>,
}
