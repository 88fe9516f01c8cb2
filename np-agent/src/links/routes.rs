//! What routes say about devices: behind which one a gateway is, and which single hosts are
//! straight on which. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use netlink_packet_core::Parseable;
use netlink_packet_route::{
    AddressFamily,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop,
        RouteProtocol, RouteType,
    },
};

use super::facts::identifies;
use np_policy::model::{HostRoute, IfIndex};

/// What one route says about devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    destination: Destination,
    by_rule: bool,
    metric: u32,
    /// Each output device, and what is behind it.
    outputs: Vec<(IfIndex, Behind)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Destination {
    /// Everything that no other route leads to.
    Default,
    /// One host that can be distinguished from others.
    Host(IpAddr),
    /// A network in which hosts can be distinguished.
    Network(IpNet),
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    /// The destination itself.
    Destination,
    Gateway(IpAddr),
    /// A gateway of the other family.
    OtherGateway,
}

impl Route {
    /// Fails for a message that cannot be read; `None` for a route without meaning here.
    pub(super) fn decode(payload: &[u8]) -> Result<Option<Self>, netlink_packet_core::DecodeError> {
        let RouteMessage { header, attributes, .. } = RouteMessage::parse(payload)?;
        // A cloned "route" is a cached path MTU or redirect: any remote host can make one. So can
        // any host on the link with a redirect or a router advertisement.
        let by_others = matches!(header.protocol, RouteProtocol::Ra | RouteProtocol::IcmpRedirect);
        let cloned = header.flags.contains(RouteFlags::Cloned);
        if header.kind != RouteType::Unicast || cloned || by_others {
            return Ok(None);
        }
        let mut table = u32::from(header.table);
        let (mut device, mut behind, mut destination) = (None, Behind::Destination, None);
        let mut metric = 0;
        let mut outputs = Vec::new();
        for attribute in &attributes {
            match attribute {
                RouteAttribute::Table(id) => table = *id,
                RouteAttribute::Oif(index) => device = Some(IfIndex(*index)),
                RouteAttribute::Destination(address) => destination = ip(address),
                RouteAttribute::Priority(priority) => metric = *priority,
                RouteAttribute::MultiPath(hops) => outputs.extend(hops.iter().map(hop)),
                other => behind = gateway(other).unwrap_or(behind),
            }
        }
        if table == u32::from(libc::RT_TABLE_LOCAL) {
            return Ok(None);
        }
        outputs.extend(device.map(|device| (device, behind)));
        let by_rule = table != u32::from(libc::RT_TABLE_MAIN);
        let destination = Destination::of(&header, destination);
        Ok(Some(Self { destination, by_rule, metric, outputs }))
    }

    /// Devices about which this route says something.
    pub(super) fn concerns(&self) -> impl Iterator<Item = IfIndex> {
        let silent = self.destination == Destination::Other;
        let concerned =
            move |(_, behind): &&(IfIndex, Behind)| !silent || *behind != Behind::Destination;
        self.outputs.iter().filter(concerned).map(|(index, _)| *index)
    }

    /// The route names a next hop object and not its devices
    /// (net.ipv4.nexthop_compat_mode is 0).
    pub(super) fn hides_its_devices(&self) -> bool {
        self.outputs.is_empty()
    }
}

impl Destination {
    fn of(header: &RouteHeader, address: Option<IpAddr>) -> Self {
        let length = header.destination_prefix_length;
        if length == 0 {
            return Self::Default;
        }
        let Some(address) = address.filter(identifies) else { return Self::Other };
        let family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        match IpNet::new(address, length) {
            _ if header.address_family != family => Self::Other,
            Ok(net) if net.prefix_len() == net.max_prefix_len() => Self::Host(address),
            Ok(net) => Self::Network(net),
            Err(_) => Self::Other,
        }
    }
}

/// Routes added up by device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Routes {
    devices: BTreeMap<IfIndex, Through>,
}

/// The routes through one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Through {
    default_gateway: bool,
    gateways: BTreeSet<IpAddr>,
    networks: BTreeSet<IpNet>,
    hosts: BTreeSet<HostRoute>,
}

impl Routes {
    pub(super) fn add(&mut self, route: &Route) {
        let Route { destination, by_rule, metric, outputs } = route;
        for (device, behind) in outputs {
            let through = self.devices.entry(*device).or_default();
            match (destination, behind) {
                (Destination::Default, Behind::Gateway(_) | Behind::OtherGateway) => {
                    through.default_gateway = true;
                }
                (_, Behind::Gateway(gateway)) => {
                    through.gateways.insert(*gateway);
                }
                (Destination::Host(to), Behind::Destination) => {
                    let host = HostRoute { to: *to, by_rule: *by_rule, metric: *metric };
                    through.hosts.insert(host);
                }
                (Destination::Network(net), Behind::Destination) => {
                    through.networks.insert(*net);
                }
                (Destination::Default | Destination::Other, Behind::Destination)
                | (_, Behind::OtherGateway) => {}
            }
        }
    }

    /// Whether routes make the device look like one that leads away from the node. A gateway that
    /// is a single host straight on the device says nothing: it may be a pod that forwards.
    pub(super) fn gateway(&self, device: IfIndex) -> bool {
        let Some(through) = self.devices.get(&device) else { return false };
        let Through { default_gateway, gateways, networks, hosts: _ } = through;
        let in_a_network = |gateway: &IpAddr| networks.iter().any(|net| net.contains(gateway));
        *default_gateway || gateways.iter().any(in_a_network)
    }

    /// Sorted.
    pub(super) fn hosts(&self, device: IfIndex) -> Vec<HostRoute> {
        self.devices.get(&device).into_iter().flat_map(|through| &through.hosts).copied().collect()
    }
}

fn hop(hop: &RouteNextHop) -> (IfIndex, Behind) {
    let behind = hop.attributes.iter().find_map(gateway).unwrap_or(Behind::Destination);
    (IfIndex(hop.interface_index), behind)
}

fn gateway(attribute: &RouteAttribute) -> Option<Behind> {
    match attribute {
        RouteAttribute::Gateway(address) => {
            Some(ip(address).map_or(Behind::OtherGateway, Behind::Gateway))
        }
        RouteAttribute::Via(_) => Some(Behind::OtherGateway),
        _ => None,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;

    use super::*;

    fn mk_route(destination: &str, attributes: &[RouteAttribute]) -> RouteMessage {
        let (address, length) = destination.split_once('/').expect("a prefix");
        let address: IpAddr = address.parse().expect("an address");
        let mut message = RouteMessage::default();
        message.header.address_family =
            if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.destination_prefix_length = length.parse().expect("a length");
        message.header.kind = RouteType::Unicast;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.attributes.push(RouteAttribute::Destination(address.into()));
        message.attributes.extend_from_slice(attributes);
        message
    }

    fn mk_gateway(text: &str) -> RouteAttribute {
        RouteAttribute::Gateway(text.parse::<IpAddr>().expect("an address").into())
    }

    fn decode(message: &RouteMessage) -> Option<Route> {
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        Route::decode(&bytes).expect("a route message")
    }

    fn routes(messages: &[RouteMessage]) -> Routes {
        let mut routes = Routes::default();
        messages.iter().filter_map(decode).for_each(|route| routes.add(&route));
        routes
    }

    fn hosts(messages: &[RouteMessage], device: u32) -> Vec<String> {
        routes(messages).hosts(IfIndex(device)).iter().map(|host| host.to.to_string()).collect()
    }

    #[test]
    fn host_routes_are_those_to_one_address_straight_to_a_device() {
        let oif = RouteAttribute::Oif(4);
        let messages = [
            mk_route("10.0.0.7/32", std::slice::from_ref(&oif)),
            mk_route("fd00::7/128", std::slice::from_ref(&oif)),
            mk_route("10.0.1.0/24", std::slice::from_ref(&oif)),
            mk_route("10.0.0.8/32", &[oif.clone(), mk_gateway("10.0.0.1")]),
            mk_route("10.0.0.9/32", &[RouteAttribute::Oif(5)]),
            mk_route("fe80::7/128", std::slice::from_ref(&oif)),
            mk_route("ff02::1/128", std::slice::from_ref(&oif)),
            mk_route("10.0.0.7/128", &[RouteAttribute::Oif(6)]),
        ];
        assert_eq!(hosts(&messages, 4), ["10.0.0.7", "fd00::7"]);
        assert_eq!(hosts(&messages, 5), ["10.0.0.9"]);
        assert_eq!(hosts(&messages, 6), [""; 0]);
    }

    #[test]
    fn the_local_table_and_other_kinds_of_routes_say_nothing() {
        let plain = mk_route("10.0.0.7/32", &[RouteAttribute::Oif(4)]);
        assert!(decode(&plain).is_some());
        let mut local = plain.clone();
        local.header.table = libc::RT_TABLE_LOCAL;
        let mut named = plain.clone();
        named.attributes.push(RouteAttribute::Table(libc::RT_TABLE_LOCAL.into()));
        let mut blackhole = plain.clone();
        blackhole.header.kind = RouteType::BlackHole;
        // Learned from a remote host's "packet too big".
        let mut cached = plain;
        cached.header.flags = RouteFlags::Cloned;
        for message in [local, named, blackhole, cached] {
            assert_eq!(decode(&message), None, "{message:?}");
        }
    }

    fn mk_via(destination: &str, device: u32, gateway: &str) -> RouteMessage {
        mk_route(destination, &[RouteAttribute::Oif(device), mk_gateway(gateway)])
    }

    #[test]
    fn the_table_and_the_metric_of_a_host_route_are_known() {
        let oif = RouteAttribute::Oif(4);
        let plain = mk_route("10.0.0.7/32", std::slice::from_ref(&oif));
        let spare = mk_route("10.0.0.8/32", &[oif.clone(), RouteAttribute::Priority(50)]);
        let by_rule = mk_route("10.0.0.9/32", &[oif, RouteAttribute::Table(1000)]);
        let to = |text: &str| HostRoute::from(text.parse::<IpAddr>().expect("an address"));
        let expected = [
            to("10.0.0.7"),
            HostRoute { metric: 50, ..to("10.0.0.8") },
            HostRoute { by_rule: true, ..to("10.0.0.9") },
        ];
        assert_eq!(routes(&[plain, spare, by_rule]).hosts(IfIndex(4)), expected);
    }

    #[test]
    fn a_default_gateway_counts_in_every_table_and_for_each_hop_of_several() {
        let mut other_table = mk_via("0.0.0.0/0", 4, "10.0.0.1");
        other_table.attributes.push(RouteAttribute::Table(1000));
        let mut behind = RouteNextHop::default();
        behind.interface_index = 5;
        behind.attributes = vec![mk_gateway("10.0.0.2")];
        let mut direct = RouteNextHop::default();
        direct.interface_index = 6;
        let several = mk_route("0.0.0.0/0", &[RouteAttribute::MultiPath(vec![behind, direct])]);

        let routes = routes(&[other_table, several]);
        let gateways = [4, 5, 6].map(|index| routes.gateway(IfIndex(index)));
        assert_eq!(gateways, [true, true, false]);
    }

    /// A pod that forwards is a gateway too. What leads to it is a route to its one address.
    #[test]
    fn a_gateway_that_is_a_single_host_makes_no_uplink() {
        let on = |device| RouteAttribute::Oif(device);
        let messages = [
            mk_route("192.0.2.0/24", &[on(4)]),
            mk_via("10.0.0.0/8", 4, "192.0.2.254"),
            mk_route("10.244.1.2/32", &[on(5)]),
            mk_via("10.8.0.0/24", 5, "10.244.1.2"),
            mk_via("fd00:8::/64", 5, "fe80::2"),
            // Not in its own network, but in that of another device.
            mk_via("10.9.0.0/16", 6, "192.0.2.7"),
        ];
        let routes = routes(&messages);
        let gateways = [4, 5, 6].map(|index| routes.gateway(IfIndex(index)));
        assert_eq!(gateways, [true, false, false]);
    }

    /// Else a pod that no program watches yet makes itself the uplink.
    #[test]
    fn a_route_that_others_on_the_link_make_says_nothing() {
        for protocol in [RouteProtocol::Ra, RouteProtocol::IcmpRedirect] {
            for mut message in
                [mk_via("::/0", 4, "fe80::2"), mk_route("fd00::7/128", &[RouteAttribute::Oif(4)])]
            {
                assert!(decode(&message).is_some());
                message.header.protocol = protocol;
                assert_eq!(decode(&message), None, "{message:?}");
            }
        }
    }

    #[test]
    fn a_route_concerns_devices_it_says_something_about() {
        let concerned = |message| -> Vec<u32> {
            decode(&message).expect("a unicast route").concerns().map(|index| index.0).collect()
        };
        let oif = RouteAttribute::Oif(4);
        assert_eq!(concerned(mk_route("10.0.0.7/32", std::slice::from_ref(&oif))), [4]);
        assert_eq!(concerned(mk_via("10.0.0.0/8", 4, "10.0.0.1")), [4]);
        assert_eq!(concerned(mk_route("10.0.0.0/8", std::slice::from_ref(&oif))), [4]);
        assert_eq!(concerned(mk_via("fe80::/64", 4, "fe80::2")), [4]);
        assert_eq!(concerned(mk_route("fe80::/64", &[oif])), [0; 0]);
    }
}
