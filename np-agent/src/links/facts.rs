//! What single link and address messages say, and how they add up to a `Device`. Pure.
//!
//! Links are read attribute by attribute, not with the codec's `LinkMessage`: that one gives up on
//! the whole message at any attribute it cannot decode, and a device nobody sees has no policy.

use std::net::IpAddr;

use netlink_packet_core::{NlaBuffer, NlasIterator, Parseable, parse_i32, parse_u32};
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressMessage},
    link::{LinkHeader, LinkLayerType},
};

use super::routes::Routes;
use super::tunnel::encapsulations;
use np_policy::model::{Device, DevicePeer, Encapsulation, IfIndex, Lower};

/// What one link message says about a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: IfIndex,
    name: String,
    kind: Option<String>,
    hardware: bool,
    layer3: bool,
    loopback: bool,
    master: Option<IfIndex>,
    encapsulations: Vec<Encapsulation>,
    /// `IFLA_LINK`: the other end of a pair, or the lower device of a stacked one.
    other: Option<IfIndex>,
    /// `IFLA_LINK_NETNSID`: the namespace of `other` when it is not this one; negative while that
    /// namespace is dying.
    netnsid: Option<i32>,
}

impl Link {
    /// Nothing for a message which is not about the device itself (the bridge sends messages of
    /// its own family about its ports, without the peer's namespace) or cannot be read.
    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let header = LinkHeader::parse(payload).ok()?;
        if header.interface_family != AddressFamily::Unspec {
            return None;
        }
        let loopback = header.link_layer_type == LinkLayerType::Loopback;
        let mut link = Self {
            index: IfIndex(header.index),
            name: String::new(),
            kind: None,
            hardware: false,
            layer3: !loopback && header.link_layer_type != LinkLayerType::Ether,
            loopback,
            master: None,
            encapsulations: Vec::new(),
            other: None,
            netnsid: None,
        };
        for attribute in attributes(payload.get(LINK_HEADER..)?) {
            let value = attribute.value();
            match attribute.kind() {
                libc::IFLA_IFNAME => link.name = text(value),
                libc::IFLA_LINK => link.other = index(value),
                libc::IFLA_MASTER => link.master = index(value),
                libc::IFLA_PARENT_DEV_NAME => link.hardware = true,
                libc::IFLA_LINK_NETNSID => link.netnsid = parse_i32(value).ok(),
                libc::IFLA_LINKINFO => {
                    let part =
                        |wanted| attributes(value).find(move |nested| nested.kind() == wanted);
                    link.kind = part(libc::IFLA_INFO_KIND).map(|nested| text(nested.value()));
                    let data = part(libc::IFLA_INFO_DATA);
                    let data = data.as_ref().map_or(&[][..], |nested| nested.value());
                    let kind = link.kind.as_deref().unwrap_or_default();
                    link.encapsulations = encapsulations(kind, data);
                }
                _ => {}
            }
        }
        Some(link)
    }

    /// The other end, when it is in another namespace. Only pairs have another end: a vlan or a
    /// tunnel names the namespace of its lower device in the same attribute.
    pub(super) fn peer(&self) -> Option<(i32, IfIndex)> {
        let netnsid = self.netnsid.filter(|_| self.is_pair())?;
        Some((netnsid, self.other.unwrap_or(IfIndex(0))))
    }

    /// The device below, which a pair has not.
    fn lower(&self) -> Option<Lower> {
        let other = self.other.filter(|_| !self.is_pair())?;
        Some(self.netnsid.map_or(Lower::Here(other), |_| Lower::Elsewhere))
    }

    pub(super) fn is_pair(&self) -> bool {
        matches!(self.kind.as_deref(), Some("veth" | "netkit"))
    }

    pub(super) fn other(&self) -> Option<IfIndex> {
        self.other
    }

    /// Whether both describe the same device connected to the same end: the condition under which
    /// what was read between the two belongs to it.
    pub(super) fn same_end(&self, again: &Self) -> bool {
        self.name == again.name
            && self.kind == again.kind
            && self.other == again.other
            && self.netnsid == again.netnsid
    }
}

/// One device with all that was read about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) link: Link,
    pub(super) device: Device,
}

impl Entry {
    /// `addresses` are the device's own, `claims` those of its peer's namespace.
    pub(super) fn new(
        link: Link,
        addresses: Vec<IpAddr>,
        claims: Vec<IpAddr>,
        routes: &Routes,
    ) -> Self {
        let peer = link.peer().map(|(netnsid, index)| DevicePeer {
            netnsid,
            index,
            claims: sorted(claims),
        });
        let device = Device {
            index: link.index,
            name: link.name.clone(),
            kind: link.kind.clone(),
            hardware: link.hardware,
            layer3: link.layer3,
            loopback: link.loopback,
            encapsulations: link.encapsulations.clone(),
            master: link.master,
            lower: link.lower(),
            peer,
            addresses: sorted(addresses),
            gateway: false,
            host_routes: Vec::new(),
        };
        let mut entry = Self { link, device };
        entry.set_routes(routes);
        entry
    }

    pub(super) fn set_routes(&mut self, routes: &Routes) {
        let device = &mut self.device;
        device.gateway = routes.gateway(device.index);
        device.host_routes = routes.hosts(device.index);
        // The kernel itself makes a /128 unicast route to each own address.
        device.host_routes.retain(|route| !device.addresses.contains(&route.to));
    }

    /// The id of the namespace that the device leads into; none while that is dying.
    pub(super) fn netnsid(&self) -> Option<i32> {
        self.link.peer().map(|(netnsid, _)| netnsid).filter(|netnsid| *netnsid >= 0)
    }

    pub(super) fn leads_into(&self, netnsid: i32) -> bool {
        self.netnsid() == Some(netnsid)
    }
}

/// What one address message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) index: IfIndex,
    pub(super) family: AddressFamily,
    /// The namespace the kernel answered for; none for this one.
    pub(super) netnsid: Option<i32>,
    /// None for an address that says nothing about who is there: loopback and link-local.
    pub(super) address: Option<IpAddr>,
}

impl Address {
    /// Nothing for a message which cannot be read. Tentative addresses count: duplicate address
    /// detection takes longer than a pod takes to start.
    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let message = AddressMessage::parse(payload).ok()?;
        let (mut netnsid, mut local, mut address) = (None, None, None);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::TargetNetNsId(id) => netnsid = Some(*id),
                // On a point-to-point device IFA_ADDRESS is the other side's.
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Address(ip) => address = Some(*ip),
                _ => {}
            }
        }
        Some(Self {
            index: IfIndex(message.header.index),
            family: message.header.family,
            netnsid,
            address: local.or(address).filter(identifies),
        })
    }
}

/// Whether an address can tell one host from another.
pub(super) fn identifies(address: &IpAddr) -> bool {
    !address.is_loopback()
        && !address.is_multicast()
        && !address.is_unspecified()
        && !matches!(address, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn sorted(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(bytes).map_while(Result::ok)
}

/// A device's index; 0 is none.
fn index(value: &[u8]) -> Option<IfIndex> {
    parse_u32(value).ok().filter(|index| *index != 0).map(IfIndex)
}

/// A C string. Device names are bytes without an encoding.
fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

/// sizeof(struct ifinfomsg).
const LINK_HEADER: usize = 16;

#[cfg(test)]
mod tests {
    use netlink_packet_core::{DefaultNla, Emitable};
    use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};

    use super::*;

    fn mk_link(layer: LinkLayerType, kind: InfoKind, rest: &[LinkAttribute]) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.link_layer_type = layer;
        message.attributes.push(LinkAttribute::IfName("dev7".into()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
        message.attributes.extend_from_slice(rest);
        message
    }

    fn bytes(message: &impl Emitable) -> Vec<u8> {
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        bytes
    }

    fn decode(message: &LinkMessage) -> Link {
        Link::decode(&bytes(message)).expect("a link message")
    }

    fn veth(netnsid: Option<i32>) -> LinkMessage {
        let mut rest = vec![LinkAttribute::Link(2)];
        rest.extend(netnsid.map(LinkAttribute::LinkNetNsId));
        mk_link(LinkLayerType::Ether, InfoKind::Veth, &rest)
    }

    #[test]
    fn a_veth_has_a_peer_only_when_the_kernel_names_another_namespace() {
        assert_eq!(decode(&veth(Some(3))).peer(), Some((3, IfIndex(2))));
        assert_eq!(decode(&veth(None)).peer(), None);
    }

    /// A pod whose namespace is dying keeps its device in default-deny: it must not lose its peer.
    #[test]
    fn a_veth_whose_peer_namespace_is_dying_still_has_a_peer() {
        assert_eq!(decode(&veth(Some(-1))).peer(), Some((-1, IfIndex(2))));
    }

    /// A vlan on the uplink of a VM host, moved here, names its lower device's namespace.
    #[test]
    fn a_stacked_device_over_another_namespace_has_no_peer() {
        let rest = [LinkAttribute::Link(2), LinkAttribute::LinkNetNsId(3)];
        let vlan = decode(&mk_link(LinkLayerType::Ether, InfoKind::Vlan, &rest));
        assert_eq!((vlan.peer(), vlan.lower()), (None, Some(Lower::Elsewhere)));
        assert!(!vlan.is_pair());
    }

    #[test]
    fn a_stacked_device_names_the_one_below_and_a_pair_none() {
        let lower = |message: &LinkMessage| decode(message).lower();
        let vlan = |rest: &[_]| mk_link(LinkLayerType::Ether, InfoKind::Vlan, rest);
        let here = Some(Lower::Here(IfIndex(2)));
        assert_eq!(lower(&vlan(&[LinkAttribute::Link(2)])), here);
        assert_eq!(lower(&vlan(&[LinkAttribute::Link(0)])), None);
        assert_eq!(lower(&vlan(&[])), None);
        // The namespace below is dying.
        let dying = [LinkAttribute::Link(2), LinkAttribute::LinkNetNsId(-1)];
        assert_eq!(lower(&vlan(&dying)), Some(Lower::Elsewhere));
        for netnsid in [None, Some(3)] {
            assert_eq!(lower(&veth(netnsid)), None);
        }
    }

    #[test]
    fn a_port_names_its_master_and_hardware_is_known() {
        let plain = decode(&veth(None));
        assert_eq!((plain.master, plain.hardware), (None, false));
        // IFLA_PARENT_DEV_NAME
        let parent = LinkAttribute::Other(DefaultNla::new(56, b"virtio0\0".to_vec()));
        let rest = [LinkAttribute::Controller(9), parent];
        let port = decode(&mk_link(LinkLayerType::Ether, InfoKind::Veth, &rest));
        assert_eq!((port.master, port.hardware), (Some(IfIndex(9)), true));
    }

    #[test]
    fn messages_of_the_bridge_family_are_no_links() {
        let mut message = veth(None);
        message.header.interface_family = AddressFamily::Bridge;
        assert_eq!(Link::decode(&bytes(&message)), None);
    }

    #[test]
    fn an_attribute_that_cannot_be_decoded_does_not_hide_the_device() {
        let mut message = veth(Some(3));
        // IFLA_MTU is four bytes.
        message.attributes.insert(0, LinkAttribute::Other(DefaultNla::new(4, vec![1])));
        assert!(LinkMessage::parse(&bytes(&message)).is_err());
        assert_eq!(decode(&message).peer(), Some((3, IfIndex(2))));
    }

    #[test]
    fn a_cut_link_message_is_nothing_or_less_but_no_panic() {
        let whole = bytes(&veth(Some(3)));
        for length in 0..whole.len() {
            if let Some(link) = Link::decode(&whole[..length]) {
                assert_eq!(link.index, IfIndex(7));
            }
        }
    }

    #[test]
    fn devices_without_an_ethernet_header_are_layer_three() {
        let facts = [
            (LinkLayerType::Ether, (false, false)),
            (LinkLayerType::Loopback, (false, true)),
            (LinkLayerType::Tunnel, (true, false)),
            (LinkLayerType::None, (true, false)),
        ];
        for (layer, expected) in facts {
            let link = decode(&mk_link(layer, InfoKind::Tun, &[]));
            assert_eq!((link.layer3, link.loopback), expected, "{layer:?}");
        }
    }

    fn mk_address(index: u32, attributes: Vec<AddressAttribute>) -> Vec<u8> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet6;
        message.header.index = index;
        message.attributes = attributes;
        bytes(&message)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_local_address_wins_over_the_other_sides() {
        let payload = mk_address(
            2,
            vec![
                AddressAttribute::Address(ip("10.0.0.2")),
                AddressAttribute::Local(ip("10.0.0.1")),
            ],
        );
        let address = Address::decode(&payload).expect("an address message");
        assert_eq!(address.address, Some(ip("10.0.0.1")));
    }

    #[test]
    fn a_reply_tells_the_namespace_it_is_for() {
        let payload = mk_address(
            2,
            vec![AddressAttribute::TargetNetNsId(5), AddressAttribute::Address(ip("10.0.0.2"))],
        );
        let address = Address::decode(&payload).expect("an address message");
        assert_eq!((address.index, address.netnsid), (IfIndex(2), Some(5)));
    }

    #[test]
    fn loopback_and_link_local_addresses_identify_nobody() {
        for text in ["127.0.0.1", "::1", "fe80::1", "febf::1", "ff02::1", "0.0.0.0", "::"] {
            assert!(!identifies(&ip(text)), "{text}");
        }
        for text in ["10.0.0.1", "169.254.1.1", "fd00::1", "fec0::1", "2001:db8::1"] {
            assert!(identifies(&ip(text)), "{text}");
        }
    }

    #[test]
    fn facts_add_up_to_a_device_with_sorted_addresses() {
        let claims = vec![ip("fd00::2"), ip("10.0.0.2"), ip("fd00::2")];
        let own = vec![ip("10.0.0.9"), ip("10.0.0.1")];
        let entry = Entry::new(decode(&veth(Some(3))), own, claims, &Routes::default());
        assert_eq!(
            entry.device,
            Device {
                index: IfIndex(7),
                name: "dev7".into(),
                kind: Some("veth".into()),
                hardware: false,
                layer3: false,
                loopback: false,
                encapsulations: vec![],
                master: None,
                lower: None,
                peer: Some(DevicePeer {
                    netnsid: 3,
                    index: IfIndex(2),
                    claims: vec![ip("10.0.0.2"), ip("fd00::2")],
                }),
                addresses: vec![ip("10.0.0.1"), ip("10.0.0.9")],
                gateway: false,
                host_routes: vec![],
            }
        );
    }

    #[test]
    fn what_was_read_between_two_links_counts_only_if_they_agree() {
        let first = decode(&veth(Some(3)));
        assert!(first.same_end(&first.clone()));
        for change in [
            Link { name: "other".into(), ..first.clone() },
            Link { other: Some(IfIndex(3)), ..first.clone() },
            Link { netnsid: Some(4), ..first.clone() },
            Link { netnsid: None, ..first.clone() },
        ] {
            assert!(!first.same_end(&change), "{change:?}");
        }
    }
}
