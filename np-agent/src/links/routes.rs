//! What routes say about devices: behind which one a gateway is, and which single hosts are
//! straight on which. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use netlink_packet_core::Parseable;
use netlink_packet_route::{
    AddressFamily,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop,
        RouteType,
    },
};

use super::facts::identifies;
use crate::model::IfIndex;

/// What one route says about devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// The destination, when it is one host.
    host: Option<IpAddr>,
    /// Each output device, and whether a gateway is behind it.
    outputs: Vec<(IfIndex, bool)>,
}

impl Route {
    /// Fails for a message that cannot be read; `None` for a route without meaning here.
    pub(super) fn decode(payload: &[u8]) -> Result<Option<Self>, netlink_packet_core::DecodeError> {
        let RouteMessage { header, attributes, .. } = RouteMessage::parse(payload)?;
        // A cloned "route" is a cached path MTU or redirect: any remote host can make one.
        if header.kind != RouteType::Unicast || header.flags.contains(RouteFlags::Cloned) {
            return Ok(None);
        }
        let mut table = u32::from(header.table);
        let (mut device, mut gateway, mut destination) = (None, false, None);
        let mut outputs = Vec::new();
        for attribute in &attributes {
            match attribute {
                RouteAttribute::Table(id) => table = *id,
                RouteAttribute::Oif(index) => device = Some(IfIndex(*index)),
                RouteAttribute::Destination(address) => destination = ip(address),
                RouteAttribute::MultiPath(hops) => outputs.extend(hops.iter().map(hop)),
                other => gateway |= is_gateway(other),
            }
        }
        if table == u32::from(libc::RT_TABLE_LOCAL) {
            return Ok(None);
        }
        outputs.extend(device.map(|device| (device, gateway)));
        let host = destination.filter(|ip| is_host(&header) && identifies(ip));
        Ok(Some(Self { host, outputs }))
    }

    /// Devices about which this route says something.
    pub(super) fn concerns(&self) -> impl Iterator<Item = IfIndex> {
        let host = self.host.is_some();
        self.outputs.iter().filter(move |(_, gateway)| *gateway || host).map(|(index, _)| *index)
    }

    /// The route names a next hop object and not its devices
    /// (net.ipv4.nexthop_compat_mode is 0).
    pub(super) fn hides_its_devices(&self) -> bool {
        self.outputs.is_empty()
    }
}

/// Routes added up by device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Routes {
    gateways: BTreeSet<IfIndex>,
    hosts: BTreeMap<IfIndex, BTreeSet<IpAddr>>,
}

impl Routes {
    pub(super) fn add(&mut self, route: &Route) {
        for (device, gateway) in &route.outputs {
            if *gateway {
                self.gateways.insert(*device);
            } else if let Some(host) = route.host {
                self.hosts.entry(*device).or_default().insert(host);
            }
        }
    }

    pub(super) fn gateway(&self, device: IfIndex) -> bool {
        self.gateways.contains(&device)
    }

    /// Sorted.
    pub(super) fn hosts(&self, device: IfIndex) -> Vec<IpAddr> {
        self.hosts.get(&device).into_iter().flatten().copied().collect()
    }
}

fn hop(hop: &RouteNextHop) -> (IfIndex, bool) {
    (IfIndex(hop.interface_index), hop.attributes.iter().any(is_gateway))
}

fn is_gateway(attribute: &RouteAttribute) -> bool {
    matches!(attribute, RouteAttribute::Gateway(_) | RouteAttribute::Via(_))
}

fn is_host(header: &RouteHeader) -> bool {
    match header.address_family {
        AddressFamily::Inet => header.destination_prefix_length == 32,
        AddressFamily::Inet6 => header.destination_prefix_length == 128,
        _ => false,
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
        routes(messages).hosts(IfIndex(device)).iter().map(ToString::to_string).collect()
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

    #[test]
    fn a_gateway_counts_in_every_table_and_for_each_hop_of_several() {
        let mut other_table = mk_route("10.9.0.0/16", &[RouteAttribute::Oif(4)]);
        other_table.attributes.push(mk_gateway("10.0.0.1"));
        other_table.attributes.push(RouteAttribute::Table(1000));
        let mut behind = RouteNextHop::default();
        behind.interface_index = 5;
        behind.attributes = vec![mk_gateway("10.0.0.2")];
        let mut direct = RouteNextHop::default();
        direct.interface_index = 6;
        let several = mk_route("10.8.0.0/16", &[RouteAttribute::MultiPath(vec![behind, direct])]);

        let routes = routes(&[other_table, several]);
        let gateways = [4, 5, 6].map(|index| routes.gateway(IfIndex(index)));
        assert_eq!(gateways, [true, true, false]);
    }

    #[test]
    fn a_route_concerns_devices_it_says_something_about() {
        let concerned = |message| -> Vec<u32> {
            decode(&message).expect("a unicast route").concerns().map(|index| index.0).collect()
        };
        let oif = RouteAttribute::Oif(4);
        assert_eq!(concerned(mk_route("10.0.0.7/32", std::slice::from_ref(&oif))), [4]);
        assert_eq!(concerned(mk_route("10.0.0.0/8", &[oif.clone(), mk_gateway("10.0.0.1")])), [4]);
        assert_eq!(concerned(mk_route("10.0.0.0/8", &[oif])), [0; 0]);
    }
}
