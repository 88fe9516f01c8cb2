//! Who has which address. Pure. Nothing of it is on this machine's own network but one address on
//! the link to the control plane.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::options::Family;

/// The parts of an address plan that one family has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    V4,
    V6,
}

impl Family {
    /// The families, the first one first.
    pub const fn plans(self) -> &'static [Plan] {
        match self {
            Self::V4 => &[Plan::V4],
            Self::V6 => &[Plan::V6],
            Self::Dual => &[Plan::V4, Plan::V6],
        }
    }

    /// The same of each family, in the comma-separated form of Kubernetes' flags.
    pub fn list(self, each: impl Fn(Plan) -> String) -> String {
        self.plans().iter().map(|plan| each(*plan)).collect::<Vec<_>>().join(",")
    }

    /// Where the API server is.
    pub fn server(self) -> String {
        let url = |plan: Plan| match plan.control() {
            IpAddr::V4(address) => format!("https://{address}:6443"),
            IpAddr::V6(address) => format!("https://[{address}]:6443"),
        };
        self.plans().first().map(|plan| url(*plan)).unwrap_or_default()
    }
}

impl Plan {
    /// The control plane, on the bridge that the nodes are attached to; also their gateway.
    pub const fn control(self) -> IpAddr {
        self.on_the_bridge(1)
    }

    /// A node, counted from 1.
    pub const fn node(self, node: u8) -> IpAddr {
        self.on_the_bridge(10 + node)
    }

    /// This machine.
    pub const fn here(self) -> IpAddr {
        self.on_the_bridge(254)
    }

    const fn on_the_bridge(self, host: u8) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::new(172, 30, 0, host)),
            Self::V6 => IpAddr::V6(Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, host as u16)),
        }
    }

    /// How long the bridge's prefix is.
    pub const fn prefix(self) -> u8 {
        match self {
            Self::V4 => 24,
            Self::V6 => 64,
        }
    }

    /// A node's pods.
    pub fn pods(self, node: u8) -> String {
        match self {
            Self::V4 => format!("10.244.{node}.0/24"),
            Self::V6 => format!("fd00:244:0:{node}::/64"),
        }
    }

    /// All pods.
    pub const fn all_pods(self) -> &'static str {
        match self {
            Self::V4 => "10.244.0.0/16",
            Self::V6 => "fd00:244::/48",
        }
    }

    pub const fn services(self) -> &'static str {
        match self {
            Self::V4 => "10.96.0.0/16",
            Self::V6 => "fd00:96::/112",
        }
    }

    /// The Service `kubernetes`: the first address of the range.
    pub const fn api_service(self) -> &'static str {
        match self {
            Self::V4 => "10.96.0.1",
            Self::V6 => "fd00:96::1",
        }
    }

    /// Where pods look for DNS.
    pub const fn dns_service(self) -> &'static str {
        match self {
            Self::V4 => "10.96.0.10",
            Self::V6 => "fd00:96::a",
        }
    }

    /// Everywhere.
    pub const fn default_route(self) -> &'static str {
        match self {
            Self::V4 => "0.0.0.0/0",
            Self::V6 => "::/0",
        }
    }

    /// As Kubernetes' API calls the family.
    pub const fn api_name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// What `ip` is told of the family.
    pub const fn ip_option(self) -> &'static str {
        match self {
            Self::V4 => "-4",
            Self::V6 => "-6",
        }
    }
}

/// The name of a node, counted from 1.
pub fn node_name(node: u8) -> String {
    format!("n{node}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_are_listed_ipv4_first() {
        let pods = |family: Family| family.list(|plan| plan.pods(2));
        assert_eq!(pods(Family::Dual), "10.244.2.0/24,fd00:244:0:2::/64");
        assert_eq!(pods(Family::V6), "fd00:244:0:2::/64");
    }

    #[test]
    fn a_url_has_brackets_around_an_ipv6_address() {
        assert_eq!(Family::Dual.server(), "https://172.30.0.1:6443");
        assert_eq!(Family::V6.server(), "https://[fd30::1]:6443");
    }

    #[test]
    fn no_two_have_one_address() {
        for plan in [Plan::V4, Plan::V6] {
            let nodes = (1..=9).map(|node| plan.node(node));
            let all: std::collections::BTreeSet<_> =
                nodes.chain([plan.control(), plan.here()]).collect();
            assert_eq!(all.len(), 11);
        }
    }
}
