//! A Node: the addresses and pod ranges that tell uplinks and foreign containers apart from pods.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::ids::NodeName;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub name: NodeName,
    /// `status.addresses` of the types InternalIP and ExternalIP.
    pub addresses: Vec<IpAddr>,
    /// `spec.podCIDRs`, or the one `spec.podCIDR`.
    pub pod_cidrs: Vec<IpNet>,
}
