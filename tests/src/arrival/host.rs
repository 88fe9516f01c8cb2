//! Who can send and who can receive: pods through their lives, nodes, hosts outside.

use std::net::{IpAddr, Ipv4Addr};

use super::tap::Time;
use crate::address::{Family, twin};

/// One life of one host: a pod that comes again is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(pub usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Pod,
    Node,
    Outside,
}

/// What is known of a host, for the explanation of what it gets and sends.
#[derive(Clone, Debug)]
pub struct Host {
    pub name: String,
    pub kind: Kind,
    /// Which node it is, or is on.
    pub node: usize,
    pub v4: Ipv4Addr,
    pub labels: Vec<(&'static str, &'static str)>,
    /// Before its device was made.
    pub born: Time,
    /// Once an agent says that its programs are on the device.
    pub attached: Option<Time>,
    /// Once an agent says whose device it is.
    pub bound: Option<Time>,
    /// Before its device was taken away.
    pub died: Option<Time>,
}

impl Host {
    pub fn has(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => v4 == self.v4,
            IpAddr::V6(v6) => v6 == twin(self.v4) || v6.is_unicast_link_local(),
        }
    }

    /// Its address of the family that another one is of.
    pub fn like(&self, other: IpAddr) -> IpAddr {
        let family = if other.is_ipv4() { Family::V4 } else { Family::V6 };
        family.address(self.v4)
    }

    /// The name of a pod with its namespace.
    pub fn key(&self) -> String {
        format!("default/{}", self.name)
    }

    pub fn alive(&self, time: Time) -> bool {
        self.born <= time && self.died.is_none_or(|died| died > time)
    }

    /// Whether its device has no program yet.
    pub fn unattached(&self, time: Time) -> bool {
        self.kind == Kind::Pod && self.attached.is_none_or(|attached| time <= attached)
    }

    pub fn app(&self) -> &'static str {
        self.labels.iter().find(|(key, _)| *key == "app").map_or("", |(_, value)| value)
    }
}
