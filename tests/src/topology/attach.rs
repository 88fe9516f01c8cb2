//! What a CNI does to attach a pod, where no plugin of that kind is installed.
//! The plugins that are run as they are stand in [`super::plugin`].

use std::net::Ipv4Addr;

use anyhow::Result;
use ipnet::Ipv4Net;

use crate::address::twin;
use crate::netns::Namespace;

/// What is to be wired: a leaf's namespace to its router's.
#[derive(Debug)]
pub struct Wiring<'a> {
    pub name: &'a str,
    pub router: &'a Namespace,
    pub inside: &'a Namespace,
    pub address: Ipv4Addr,
    /// The pod block of the node; an outside host has just its own address.
    pub block: Ipv4Net,
    pub mtu: u32,
}

/// Attaches a leaf to its router.
pub type Attach = fn(&Wiring<'_>) -> Result<()>;

/// The point-to-point shape: a veth whose host end has no address of its own, host routes to the
/// pod's addresses, and a link-local gateway that the router answers for.
pub(super) fn ptp(wiring: &Wiring<'_>) -> Result<()> {
    let Wiring { name, router, inside, address, .. } = wiring;
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
    answer_for_gateway(router, &device)?;
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

/// Calico's shape: every host end has the same hardware address, from which its IPv6 gateway
/// follows, and the pod's gateway 169.254.1.1 is nobody's; the node proxies ARP.
pub(super) fn calico(wiring: &Wiring<'_>) -> Result<()> {
    let Wiring { name, router, inside, address, mtu, .. } = wiring;
    let address6 = twin(*address);
    let device = calico_device(name);
    router.ip(&format!(
        "link add {device} mtu {mtu} address ee:ee:ee:ee:ee:ee type veth peer name eth0 netns {}\n\
         link set {device} up\n\
         route add {address}/32 dev {device} scope link\n\
         route add {address6}/128 dev {device}\n",
        inside.path().display()
    ))?;
    answer_for_gateway(router, &device)?;
    router.sysctls(&[
        (&format!("net/ipv4/conf/{device}/rp_filter"), "1"),
        (&format!("net/ipv6/conf/{device}/proxy_ndp"), "1"),
    ])?;
    inside.ip(&format!(
        "link set lo up\n\
         link set eth0 mtu {mtu}\n\
         addr add {address}/32 dev eth0\n\
         addr add {address6}/128 dev eth0 nodad\n\
         link set eth0 up\n\
         route add 169.254.1.1 dev eth0 scope link\n\
         route add default via 169.254.1.1 dev eth0\n\
         route add default via fe80::ecee:eeff:feee:eeee dev eth0\n"
    ))
}

/// The router answers ARP for the gateway, and at once, not after a random delay.
pub fn answer_for_gateway(router: &Namespace, device: &str) -> Result<()> {
    router.sysctls(&[
        (&format!("net/ipv4/conf/{device}/proxy_arp"), "1"),
        (&format!("net/ipv4/neigh/{device}/proxy_delay"), "0"),
    ])
}

/// `cali` and eleven digits of a hash, as Felix names them.
fn calico_device(name: &str) -> String {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    for byte in name.bytes() {
        state = (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("cali{:011x}", state >> 20)
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
        assert_eq!(calico_device("pod-b-1").len(), 15);
        assert_ne!(calico_device("pod-b-1"), calico_device("pod-b-2"));
    }
}
