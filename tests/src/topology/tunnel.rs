//! The ways between the pods of different nodes that wrap their packets: a tunnel device on each
//! node, set up by static entries as the CNI's daemon writes them.

use std::net::IpAddr;

use anyhow::{Context, Result};

use super::NodeSpec;
use super::between::{Node, own_block_is_nowhere_else};
use super::forwarder::Forwarder;
use crate::address::Family;

/// flannel's vxlan backend: one device per family on the kernel's old port, the network address of
/// each node's block as its gateway.
pub(super) fn flannel_vxlan(node: &Node<'_>) -> Result<Option<Forwarder>> {
    for (device, family) in [("flannel.1", Family::V4), ("flannel-v6.1", Family::V6)] {
        vxlan(node, &Vxlan { device, family, id: 1, port: 8472 })?;
    }
    Ok(None)
}

pub(super) fn calico_vxlan(node: &Node<'_>) -> Result<Option<Forwarder>> {
    node.inside.ip(&own_block_is_nowhere_else(node))?;
    for (device, family) in [("vxlan.calico", Family::V4), ("vxlan-v6.calico", Family::V6)] {
        vxlan(node, &Vxlan { device, family, id: 4096, port: 4789 })?;
    }
    Ok(None)
}

struct Vxlan {
    device: &'static str,
    family: Family,
    id: u32,
    port: u16,
}

fn vxlan(node: &Node<'_>, vxlan: &Vxlan) -> Result<()> {
    let Vxlan { device, family, id, port } = *vxlan;
    let (local, gateway) = (family.address(node.spec.address), gateway(node.spec, family));
    let mut batch = format!(
        "link add {device} address {} type vxlan id {id} local {local} dev eth0 dstport {port} nolearning\n\
         addr add {gateway} dev {device} nodad\n\
         link set {device} up\n",
        hardware(node.spec, family),
    );
    // iproute2 knows the flag for IPv6 only, where it means something.
    if family == Family::V4 {
        batch = batch.replace(" nodad", "");
    }
    let mut forwarding = String::new();
    for other in node.others() {
        let (block, via) = (family.block(other.pod_block), self::gateway(other, family));
        let mac = hardware(other, family);
        batch += &format!(
            "route add {block} via {via} dev {device} onlink\n\
             neigh add {via} lladdr {mac} dev {device} nud permanent\n"
        );
        let remote = family.address(other.address);
        forwarding += &format!("fdb append {mac} dev {device} dst {remote} self permanent\n");
    }
    node.inside.ip(&batch)?;
    node.inside.feed("bridge", &["-batch", "-"], &forwarding).map(drop)
}

/// The network address of a node's block: that of its tunnel device.
fn gateway(node: &NodeSpec, family: Family) -> IpAddr {
    family.block(node.pod_block).network()
}

fn hardware(node: &NodeSpec, family: Family) -> String {
    let [a, b, c, d] = node.address.octets();
    let last = u8::from(family == Family::V6);
    // The second bit of the first octet: an address given by hand.
    format!("{:02x}:{a:02x}:{b:02x}:{c:02x}:{d:02x}:{last:02x}", 0x0e)
}

/// Calico's IPIP: IPv4 only, over the device that the kernel makes with its module. IPv6 goes by
/// routes, as Calico does it.
pub(super) fn calico_ipip(node: &Node<'_>) -> Result<Option<Forwarder>> {
    let [local, own] = [node.spec.address.into(), gateway(node.spec, Family::V4)];
    // Making any tunnel loads the module, which brings tunl0.
    node.inside
        .ip(&format!("link add first type ipip local {local} remote {own}\nlink del first\n"))
        .context("this kernel has no ipip: this shape needs the kernels of `cargo xtask vm`")?;
    let mut batch = own_block_is_nowhere_else(node);
    batch += &format!("addr add {own} dev tunl0\nlink set tunl0 mtu 1480 up\n");
    for other in node.others() {
        for (family, device) in [(Family::V4, " dev tunl0 onlink"), (Family::V6, "")] {
            let (block, via) = (family.block(other.pod_block), family.address(other.address));
            batch += &format!("route add {block} via {via}{device}\n");
        }
    }
    node.inside.ip(&batch).map(|()| None)
}

/// flannel's udp backend: a tun device, and a process that carries packets between it and the
/// other nodes. IPv4 only.
pub(super) fn flannel_udp(node: &Node<'_>) -> Result<Option<Forwarder>> {
    let device = "flannel0";
    let ways = node.others().map(|other| (other.pod_block, other.address)).collect();
    let forwarder = Forwarder::start(node.inside, device, 8285, ways)?;
    node.inside.ip(&format!(
        "addr add {}/32 dev {device}\nlink set {device} mtu 1472 up\nroute add {} dev {device}\n",
        gateway(node.spec, Family::V4),
        node.all.pod_range
    ))?;
    Ok(Some(forwarder))
}

/// WireGuard between the nodes: one device for both families.
pub(super) fn wireguard(node: &Node<'_>) -> Result<Option<Forwarder>> {
    let device = "flannel-wg";
    let family = Family::V4;
    node.inside.ip(&format!("link add {device} type wireguard\n")).context(
        "this kernel has no wireguard: this shape needs the kernels of `cargo xtask vm`",
    )?;
    let mut peers = String::new();
    let mut routes = format!(
        "addr add {}/32 dev {device}\naddr add {}/128 dev {device}\nlink set {device} mtu 1420 up\n",
        gateway(node.spec, Family::V4),
        gateway(node.spec, Family::V6),
    );
    for other in node.others() {
        let public = node.inside.feed("wg", &["pubkey"], &private_key(other))?;
        let blocks = Family::BOTH.map(|family| family.block(other.pod_block));
        peers += &format!(
            "[Peer]\nPublicKey = {}\nEndpoint = {}:51820\nAllowedIPs = {}, {}\n",
            public.trim(),
            family.address(other.address),
            blocks[0],
            blocks[1],
        );
        for block in blocks {
            routes += &format!("route add {block} dev {device}\n");
        }
    }
    let config =
        format!("[Interface]\nPrivateKey = {}ListenPort = 51820\n{peers}", private_key(node.spec));
    node.inside.feed("wg", &["setconf", device, "/dev/stdin"], &config)?;
    node.inside.ip(&routes).map(|()| None)
}

/// A key for each node, in base 64: its address, over and over.
fn private_key(node: &NodeSpec) -> String {
    let bytes: Vec<u8> = node.address.octets().into_iter().cycle().take(32).collect();
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let word = three.iter().fold(0, |word, byte| word << 8 | usize::from(*byte));
        let word = word << (8 * (3 - three.len()));
        for digit in 0..=three.len() {
            text.push(char::from(letters[word >> (18 - 6 * digit) & 63]));
        }
    }
    text + "=\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_32_bytes_in_base_64() {
        let node = NodeSpec {
            name: "n",
            address: "77.97.110.33".parse().unwrap(),
            pod_block: "10.244.1.0/24".parse().unwrap(),
        };
        assert_eq!(private_key(&node), "TWFuIU1hbiFNYW4hTWFuIU1hbiFNYW4hTWFuIU1hbiE=\n");
    }
}
