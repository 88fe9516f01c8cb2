//! What a tunnel device unwraps, by its kind and options. Pure.
//!
//! Not WireGuard and IPsec: only who has the key can make what they unwrap.

use super::facts::attributes;
use np_policy::model::Encapsulation;
use np_policy::model::tunnel::{GRE, IPIP, SIT};

/// `data` is the device's `IFLA_INFO_DATA`. Nothing for devices that are no tunnels.
pub(super) fn encapsulations(kind: &str, data: &[u8]) -> Vec<Encapsulation> {
    let ports = |attributes: &[u16]| -> Vec<Encapsulation> {
        attributes.iter().filter_map(|wanted| port(data, *wanted)).map(Encapsulation::Udp).collect()
    };
    let fixed = |ports: &[u16]| ports.iter().copied().map(Encapsulation::Udp).collect();
    let protocols = |all: &[u8], within: [u16; 2]| -> Vec<Encapsulation> {
        let bare = all.iter().copied().map(Encapsulation::Protocol);
        bare.chain(ports(&within)).collect()
    };
    match kind {
        "vxlan" => ports(&[IFLA_VXLAN_PORT]),
        "geneve" => ports(&[IFLA_GENEVE_PORT]),
        "bareudp" => ports(&[IFLA_BAREUDP_PORT]),
        "amt" => ports(&[IFLA_AMT_RELAY_PORT, IFLA_AMT_GATEWAY_PORT]),
        "gtp" => fixed(&GTP),
        "pfcp" => fixed(&PFCP),
        "gre" | "gretap" | "erspan" | "ip6gre" | "ip6gretap" | "ip6erspan" => {
            protocols(&[GRE], IFLA_GRE_ENCAP_PORTS)
        }
        "ipip" => protocols(&[IPIP], IFLA_IPTUN_ENCAP_PORTS),
        // Either may be set to carry both, and takes in whatever the other end is set to.
        "sit" | "ip6tnl" => protocols(&[IPIP, SIT], IFLA_IPTUN_ENCAP_PORTS),
        _ => Vec::new(),
    }
}

/// A port, in network order; 0 is none.
fn port(data: &[u8], wanted: u16) -> Option<u16> {
    let option = attributes(data).find(|attribute| attribute.kind() == wanted)?;
    let bytes = option.value().first_chunk()?;
    Some(u16::from_be_bytes(*bytes)).filter(|port| *port != 0)
}

/// From the kernel's `include/uapi/linux/if_link.h`.
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_GENEVE_PORT: u16 = 5;
const IFLA_BAREUDP_PORT: u16 = 1;
/// From `amt.h`.
const IFLA_AMT_RELAY_PORT: u16 = 2;
const IFLA_AMT_GATEWAY_PORT: u16 = 3;
/// From `if_tunnel.h`: source and destination of the UDP around what the tunnel wraps (FOU, GUE).
const IFLA_IPTUN_ENCAP_PORTS: [u16; 2] = [17, 18];
const IFLA_GRE_ENCAP_PORTS: [u16; 2] = [16, 17];

/// GTP's ports for user data: version 1 and version 0.
const GTP: [u16; 2] = [2152, 3386];
const PFCP: [u16; 1] = [8805];

#[cfg(test)]
mod tests {
    use netlink_packet_core::{DefaultNla, Emitable};

    use super::*;

    fn data(options: &[(u16, &[u8])]) -> Vec<u8> {
        let all: Vec<_> =
            options.iter().map(|(kind, value)| DefaultNla::new(*kind, value.to_vec())).collect();
        let mut bytes = vec![0; all.as_slice().buffer_len()];
        all.as_slice().emit(&mut bytes);
        bytes
    }

    /// 8472, in network order.
    const VXLAN: [u8; 2] = [0x21, 0x18];

    #[test]
    fn the_port_is_the_one_that_the_device_listens_at() {
        // IFLA_VXLAN_ID, IFLA_VXLAN_PORT_RANGE and then the port.
        let vxlan = data(&[(1, &[1, 0, 0, 0]), (10, &[0x12, 0xb5, 0x12, 0xb5]), (15, &VXLAN)]);
        assert_eq!(encapsulations("vxlan", &vxlan), [Encapsulation::Udp(8472)]);
        // IFLA_GENEVE_ID and IFLA_GENEVE_PORT.
        let geneve = data(&[(1, &[1, 0, 0, 0]), (5, &[0x17, 0xc1])]);
        assert_eq!(encapsulations("geneve", &geneve), [Encapsulation::Udp(6081)]);
        let bareudp = data(&[(1, &[0x19, 0xeb])]);
        assert_eq!(encapsulations("bareudp", &bareudp), [Encapsulation::Udp(6635)]);
        let amt = data(&[(1, &[1, 0, 0, 0]), (2, &[0x08, 0xdc]), (3, &[0x08, 0xdd])]);
        let both = [Encapsulation::Udp(2268), Encapsulation::Udp(2269)];
        assert_eq!(encapsulations("amt", &amt), both);
        // Without options: the kernel gives them sockets at the usual ports.
        let both = [Encapsulation::Udp(2152), Encapsulation::Udp(3386)];
        assert_eq!(encapsulations("gtp", &[]), both);
    }

    /// Foo over UDP: a process or the kernel takes the UDP off before the tunnel unwraps.
    #[test]
    fn a_tunnel_in_udp_unwraps_its_protocol_and_its_port() {
        let fou = data(&[(15, &[1, 0]), (17, &[0, 0]), (18, &[0x15, 0xb3])]);
        let both = [Encapsulation::Protocol(4), Encapsulation::Udp(5555)];
        assert_eq!(encapsulations("ipip", &fou), both);
        let gue = data(&[(14, &[2, 0]), (16, &[0x15, 0xb3]), (17, &[0x15, 0xb4])]);
        let all = [Encapsulation::Protocol(47), Encapsulation::Udp(5555), Encapsulation::Udp(5556)];
        assert_eq!(encapsulations("gretap", &gue), all);
    }

    #[test]
    fn tunnels_without_ports_unwrap_a_protocol_whatever_their_options() {
        for data in [&[][..], &[1], &[255; 7]] {
            assert_eq!(encapsulations("ipip", data), [Encapsulation::Protocol(4)]);
            assert_eq!(encapsulations("ip6gretap", data), [Encapsulation::Protocol(47)]);
            let both = [Encapsulation::Protocol(4), Encapsulation::Protocol(41)];
            assert_eq!(encapsulations("sit", data), both);
        }
    }

    #[test]
    fn other_devices_and_cut_options_are_nothing() {
        let vxlan = data(&[(15, &VXLAN)]);
        for kind in ["veth", "bridge", "wireguard", "vlan", ""] {
            assert_eq!(encapsulations(kind, &vxlan), []);
        }
        assert_eq!(encapsulations("vxlan", &data(&[(15, &[0, 0])])), []);
        assert_eq!(encapsulations("vxlan", &data(&[(15, &[0x21])])), []);
        for length in 0..6 {
            assert_eq!(encapsulations("vxlan", &vxlan[..length]), []);
        }
    }
}
