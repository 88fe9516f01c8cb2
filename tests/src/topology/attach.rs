//! What a CNI plugin does to attach a pod, one function per kind of CNI.

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::address::twin;
use crate::netns::Namespace;

/// What is to be wired: a leaf's namespace to its router's.
#[derive(Debug)]
pub struct Wiring<'a> {
    pub name: &'a str,
    pub router: &'a Namespace,
    pub inside: &'a Namespace,
    pub address: Ipv4Addr,
}

/// Attaches a leaf to its router.
pub type Attach = fn(&Wiring<'_>) -> Result<()>;

/// The point-to-point shape: a veth whose host end has no address of its own, host routes to the
/// pod's addresses, and a link-local gateway that the router answers for.
pub fn ptp(wiring: &Wiring<'_>) -> Result<()> {
    let Wiring { name, router, inside, address } = wiring;
    let address6 = twin(*address);
    let device = host_device(name);
    router.ip(&format!(
        "link add {device} type veth peer name eth0 netns {}\n\
         addr add fe80::1/64 dev {device} nodad\n\
         link set {device} up\n\
         route add {address}/32 dev {device}\n\
         route add {address6}/128 dev {device}\n",
        inside.path().display()
    ))?;
    // The router answers for the gateway at once, not after a random delay.
    router.sysctls(&[(&format!("net/ipv4/neigh/{device}/proxy_delay"), "0")])?;
    inside.ip(&format!(
        "link set lo up\n\
         addr add {address}/32 dev eth0\n\
         addr add {address6}/128 dev eth0 nodad\n\
         link set eth0 up\n\
         route add 169.254.1.1 dev eth0 scope link\n\
         route add default via 169.254.1.1 dev eth0\n\
         route add default via fe80::1 dev eth0\n"
    ))
}

/// The name of the host end of a leaf's veth: readable, and short enough for the kernel.
pub fn host_device(name: &str) -> String {
    let plain: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    format!("v-{}", &plain[plain.len().saturating_sub(13)..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_fit_the_kernel() {
        assert_eq!(host_device("pod-b-1"), "v-pod-b-1");
        assert!(host_device("a-very-long-pod-name-indeed").len() <= 15);
        assert_ne!(host_device("10.244.2.255"), host_device("10.244.3.255"));
    }
}
