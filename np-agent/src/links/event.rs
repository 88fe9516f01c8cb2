//! Subscriptions to the kernel's events, and what an event hints at.
//!
//! There are two subscriptions, because pods can make events: a pod that floods the one for peer
//! namespaces makes the agent read again, but never miss a device of the node.

use std::io;

use netlink_packet_core::{NLM_F_REPLACE, Parseable};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    LinksError,
    facts::{Address, Link},
    routes::Route,
    socket::{DATAGRAM, Message, Socket, messages},
};
use np_policy::model::IfIndex;

/// What an event hints at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A device of this namespace came or changed.
    Changed(IfIndex),
    /// A device left this namespace. Its index may be in use again already.
    Left(IfIndex),
    /// A device lost an address, and perhaps any device routes that depended on it.
    AddressGone(IfIndex),
    /// Routes through these devices changed.
    Routes(Vec<IfIndex>),
    /// Routes changed and the event does not say through which devices.
    AnyRoutes,
    /// A namespace got or lost its id.
    Namespace(i32),
    /// In another namespace, a device changed.
    Inside { netnsid: i32, other: Option<IfIndex> },
}

#[derive(Debug)]
pub(super) struct Subscription {
    socket: AsyncFd<Socket>,
    buffer: Vec<u8>,
    decode: Decode,
}

/// What a message from the namespace with this id hints at.
type Decode = fn(&Message<'_>, Option<i32>) -> Option<Event>;

/// What was waiting in a subscription.
#[derive(Debug, Default)]
pub(super) struct Drained {
    pub(super) events: Vec<Event>,
    /// The kernel dropped events for lack of room.
    pub(super) overrun: bool,
}

impl Subscription {
    /// To the devices of this namespace.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O enabled.
    pub(super) fn own() -> Result<Self, LinksError> {
        Self::new(
            Socket::open()?,
            decode_own,
            &[
                libc::RTNLGRP_LINK,
                libc::RTNLGRP_IPV4_IFADDR,
                libc::RTNLGRP_IPV6_IFADDR,
                libc::RTNLGRP_IPV4_ROUTE,
                libc::RTNLGRP_IPV6_ROUTE,
                libc::RTNLGRP_NEXTHOP,
                libc::RTNLGRP_NSID,
            ],
        )
    }

    /// To the devices and addresses of every namespace that has an id here.
    ///
    /// # Panics
    ///
    /// As [`Subscription::own`].
    pub(super) fn inside() -> Result<Self, LinksError> {
        let socket = Socket::open()?;
        socket.listen_all_namespaces()?;
        Self::new(
            socket,
            decode_inside,
            &[libc::RTNLGRP_LINK, libc::RTNLGRP_IPV4_IFADDR, libc::RTNLGRP_IPV6_IFADDR],
        )
    }

    fn new(socket: Socket, decode: Decode, groups: &[u32]) -> Result<Self, LinksError> {
        socket.set_buffer(BACKLOG)?;
        socket.join(groups)?;
        // SAFETY: a Socket keeps one file descriptor, its own, open for as long as it lives.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }
            .map_err(|source| LinksError::Socket { action: "epoll", source: source.into() })?;
        Ok(Self { socket, buffer: vec![0; DATAGRAM], decode })
    }

    /// Waits until something is there. Takes nothing out, so it may be dropped at any time.
    pub(super) async fn ready(&self) -> Result<(), LinksError> {
        loop {
            let mut guard = self
                .socket
                .readable()
                .await
                .map_err(|source| LinksError::Socket { action: "epoll", source })?;
            let check = |socket: &AsyncFd<Socket>| {
                if socket.get_ref().is_ready() {
                    Ok(())
                } else {
                    Err(io::Error::from(io::ErrorKind::WouldBlock))
                }
            };
            if guard.try_io(check).is_ok() {
                return Ok(());
            }
        }
    }

    /// Takes out what is there, at most `limit` datagrams.
    pub(super) fn drain(&mut self, limit: usize) -> Result<Drained, LinksError> {
        let mut drained = Drained::default();
        for _ in 0..limit {
            let datagram = match self.socket.get_ref().receive(&mut self.buffer, libc::MSG_DONTWAIT)
            {
                Ok(datagram) => datagram,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    drained.overrun = true;
                    continue;
                }
                Err(source) => {
                    return Err(LinksError::Socket { action: "receive", source });
                }
            };
            drained.overrun |= datagram.truncated;
            for message in messages(datagram.bytes) {
                drained.events.extend((self.decode)(&message, datagram.nsid));
            }
        }
        Ok(drained)
    }
}

fn decode_own(message: &Message<'_>, _: Option<i32>) -> Option<Event> {
    let Message { kind, flags, payload, .. } = message;
    match *kind {
        libc::RTM_NEWLINK => Link::decode(payload).map(|link| Event::Changed(link.index)),
        libc::RTM_DELLINK => Link::decode(payload).map(|link| Event::Left(link.index)),
        libc::RTM_NEWADDR => Address::decode(payload).map(|found| Event::Changed(found.index)),
        // IPv4 routes with this preferred source vanish with it; Linux sends events for them only
        // from 6.6 on.
        libc::RTM_DELADDR => Some(Event::AddressGone(Address::decode(payload)?.index)),
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => route(*flags, payload),
        RTM_NEWNEXTHOP | RTM_DELNEXTHOP => Some(Event::AnyRoutes),
        libc::RTM_NEWNSID | libc::RTM_DELNSID => namespace(payload),
        _ => None,
    }
}

/// This socket hears its own namespace too. Those events must not count here, where they may come
/// later than in the other one: a device would be taken for gone after its index is in use again.
fn decode_inside(message: &Message<'_>, nsid: Option<i32>) -> Option<Event> {
    let (netnsid, payload) = (nsid?, message.payload);
    match message.kind {
        libc::RTM_NEWLINK | libc::RTM_DELLINK => {
            let link = Link::decode(payload)?;
            Some(Event::Inside { netnsid, other: link.other() })
        }
        libc::RTM_NEWADDR | libc::RTM_DELADDR => {
            Address::decode(payload)?;
            Some(Event::Inside { netnsid, other: None })
        }
        _ => None,
    }
}

fn route(flags: u16, payload: &[u8]) -> Option<Event> {
    match Route::decode(payload) {
        Err(error) => {
            tracing::warn!(%error, "route event cannot be read, reading all routes");
            Some(Event::AnyRoutes)
        }
        Ok(None) => None,
        // The event names the new route only, not the one it took the place of.
        Ok(Some(_)) if flags & NLM_F_REPLACE != 0 => Some(Event::AnyRoutes),
        Ok(Some(route)) if route.hides_its_devices() => Some(Event::AnyRoutes),
        Ok(Some(route)) => {
            let devices: Vec<_> = route.concerns().collect();
            (!devices.is_empty()).then_some(Event::Routes(devices))
        }
    }
}

fn namespace(payload: &[u8]) -> Option<Event> {
    let message = NsidMessage::parse(payload).ok()?;
    message.attributes.iter().find_map(|attribute| match attribute {
        NsidAttribute::Id(id) => Some(Event::Namespace(*id)),
        _ => None,
    })
}

/// Room for the events of several hundred pods starting at once while the agent is not scheduled.
const BACKLOG: libc::c_int = 8 << 20;

// linux/rtnetlink.h; libc has no names for them.
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;
    use netlink_packet_route::{
        AddressFamily,
        link::{LinkAttribute, LinkMessage},
        route::{RouteAttribute, RouteMessage, RouteType},
    };

    use super::*;

    fn hint(kind: u16, flags: u16, message: &impl Emitable, nsid: Option<i32>) -> Option<Event> {
        let mut payload = vec![0; message.buffer_len()];
        message.emit(&mut payload);
        let message = Message { kind, flags, sequence: 0, payload: &payload };
        if nsid.is_some() { decode_inside(&message, nsid) } else { decode_own(&message, None) }
    }

    fn mk_link(family: AddressFamily) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.interface_family = family;
        message.header.index = 7;
        message.attributes.push(LinkAttribute::Link(2));
        message
    }

    fn mk_route(length: u8) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.kind = RouteType::Unicast;
        message.header.destination_prefix_length = length;
        let address = std::net::Ipv4Addr::new(10, 0, 0, 0);
        message.attributes.push(RouteAttribute::Destination(address.into()));
        message.attributes.push(RouteAttribute::Oif(7));
        message
    }

    /// Taken for the device's own, a bridge port leaving its bridge would be a device gone.
    #[test]
    fn a_port_leaving_its_bridge_is_no_device_leaving() {
        let left = |family| hint(libc::RTM_DELLINK, 0, &mk_link(family), None);
        assert_eq!(left(AddressFamily::Unspec), Some(Event::Left(IfIndex(7))));
        assert_eq!(left(AddressFamily::Bridge), None);
    }

    #[test]
    fn a_device_leaving_a_peer_namespace_is_no_device_of_the_node_leaving() {
        let event = hint(libc::RTM_DELLINK, 0, &mk_link(AddressFamily::Unspec), Some(3));
        let other = Some(IfIndex(2));
        assert_eq!(event, Some(Event::Inside { netnsid: 3, other }));
    }

    /// They come by the other subscription, in their order.
    #[test]
    fn events_of_the_own_namespace_say_nothing_among_those_from_inside() {
        let mut payload = vec![0; mk_link(AddressFamily::Unspec).buffer_len()];
        mk_link(AddressFamily::Unspec).emit(&mut payload);
        for kind in [libc::RTM_NEWLINK, libc::RTM_DELLINK] {
            let message = Message { kind, flags: 0, sequence: 0, payload: &payload };
            assert_eq!(decode_inside(&message, None), None);
        }
    }

    #[test]
    fn a_replaced_route_calls_for_all_routes() {
        let new = |flags, length| hint(libc::RTM_NEWROUTE, flags, &mk_route(length), None);
        assert_eq!(new(0, 32), Some(Event::Routes(vec![IfIndex(7)])));
        assert_eq!(new(0, 24), Some(Event::Routes(vec![IfIndex(7)])));
        assert_eq!(new(NLM_F_REPLACE, 24), Some(Event::AnyRoutes));
    }

    #[test]
    fn routes_of_peer_namespaces_say_nothing() {
        assert_eq!(hint(libc::RTM_NEWROUTE, 0, &mk_route(32), Some(3)), None);
    }

    #[test]
    fn messages_that_cannot_be_read_are_skipped_or_read_again_but_no_panic() {
        for kind in 0..128 {
            // Shorter than the header of an address, the shortest that could be a hint.
            for length in 0..8 {
                let payload = vec![0xff; length];
                let message = Message { kind, flags: 0, sequence: 0, payload: &payload };
                assert_eq!(decode_inside(&message, Some(3)), None, "{kind} {length}");
                let event = decode_own(&message, None);
                assert!(
                    matches!(event, None | Some(Event::AnyRoutes)),
                    "{kind} {length} {event:?}"
                );
            }
        }
    }
}
