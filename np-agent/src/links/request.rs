//! Questions to the kernel, one at a time: a device, addresses, routes. Each answer is complete or
//! an error.

use std::{io, mem, net::IpAddr, time::Duration};

use netlink_packet_core::{
    DoneBuffer, ErrorBuffer, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkExtentMask, LinkMessage},
    route::{RouteAttribute, RouteMessage, RouteType},
};

use super::{
    LinksError,
    facts::{Address, Entry, Link},
    routes::{Route, Routes},
    socket::{DATAGRAM, Message, Socket, messages},
};
use np_policy::model::IfIndex;

#[derive(Debug)]
pub(super) struct Requests {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
    undecodable: u64,
    told_of_hidden_devices: bool,
}

impl Requests {
    pub(super) fn open() -> Result<Self, LinksError> {
        let socket = Socket::open()?;
        socket.set_timeout(PATIENCE)?;
        Ok(Self {
            socket,
            buffer: vec![0; DATAGRAM],
            sequence: 0,
            undecodable: 0,
            told_of_hidden_devices: false,
        })
    }

    /// Replies that could not be read and were skipped.
    pub(super) fn undecodable(&self) -> u64 {
        self.undecodable
    }

    /// All about one device; none when it does not exist.
    pub(super) fn entry(&mut self, index: IfIndex) -> Result<Option<Entry>, LinksError> {
        let Some(link) = self.link(index)? else { return Ok(None) };
        let addresses = absent_is_empty(self.addresses(Place::Here, index))?;
        let routes = absent_is_empty(self.routes(Some(index)))?;
        let own = addresses.into_iter().map(|(_, address)| address).collect();
        Ok(self.inside(link)?.map(|(link, claims)| Entry::new(link, own, claims, &routes)))
    }

    /// All about all devices.
    pub(super) fn entries(&mut self) -> Result<Vec<Entry>, LinksError> {
        let links = self.links()?;
        let addresses = self.addresses(Place::Here, IfIndex(0))?;
        let routes = self.routes(None)?;
        let mut entries = Vec::with_capacity(links.len());
        for link in links {
            let index = link.index;
            let own = addresses.iter().filter(|(at, _)| *at == index).map(|(_, ip)| *ip).collect();
            if let Some((link, claims)) = self.inside(link)? {
                entries.push(Entry::new(link, own, claims, &routes));
            }
        }
        Ok(entries)
    }

    /// The addresses in the namespace of `link`'s peer, with the link as read after them; none when
    /// the device is gone. On any device there: a sandbox or a virtual machine may move the pod's
    /// address from the peer to another.
    ///
    /// Namespace ids are reused: between the answer "the peer is in namespace 3" and the question
    /// for the addresses of 3, the pod may die and 3 be another pod. So the addresses count only
    /// if the link still says the same afterwards; a dying namespace gives up its id before
    /// another one can get it.
    fn inside(&mut self, mut link: Link) -> Result<Option<(Link, Vec<IpAddr>)>, LinksError> {
        for _ in 0..BRACKETS {
            let netnsid = match link.peer() {
                Some((netnsid, peer)) if netnsid >= 0 && peer.0 != 0 => netnsid,
                // No peer elsewhere, or in a namespace that is dying.
                _ => return Ok(Some((link, Vec::new()))),
            };
            let found = dead_is_empty(self.addresses(Place::Namespace(netnsid), IfIndex(0)))?;
            match self.link(link.index)? {
                None => return Ok(None),
                Some(again) if link.same_end(&again) => {
                    let claims = found.into_iter().map(|(_, address)| address).collect();
                    return Ok(Some((again, claims)));
                }
                Some(again) => link = again,
            }
        }
        // It changes faster than it can be read: the next event reads again.
        Ok(Some((link, Vec::new())))
    }

    fn link(&mut self, index: IfIndex) -> Result<Option<Link>, LinksError> {
        let mut message = link_request();
        message.header.index = index.0;
        let answer = self.ask("RTM_GETLINK", RouteNetlinkMessage::GetLink(message), 0, |reply| {
            (reply.kind == libc::RTM_NEWLINK).then(|| Link::decode(reply.payload))
        });
        let links = absent_is_empty(answer)?;
        Ok(links.into_iter().find(|link| link.index == index))
    }

    fn links(&mut self) -> Result<Vec<Link>, LinksError> {
        let message = RouteNetlinkMessage::GetLink(link_request());
        self.ask("RTM_GETLINK (dump)", message, NLM_F_DUMP, |reply| {
            (reply.kind == libc::RTM_NEWLINK).then(|| Link::decode(reply.payload))
        })
    }

    /// Addresses of one device, or of all for index 0.
    fn addresses(
        &mut self,
        place: Place,
        index: IfIndex,
    ) -> Result<Vec<(IfIndex, IpAddr)>, LinksError> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = AddressMessage::default();
            message.header.family = family;
            message.header.index = index.0;
            if let Place::Namespace(id) = place {
                message.attributes.push(AddressAttribute::TargetNetNsId(id));
            }
            let message = RouteNetlinkMessage::GetAddress(message);
            let replies = self.ask(GET_ADDRESSES, message, NLM_F_DUMP, |reply| {
                (reply.kind == libc::RTM_NEWADDR).then(|| Address::decode(reply.payload))
            })?;
            for Address { index: at, family: of, netnsid, address } in replies {
                place.check(netnsid)?;
                if of == family && (index.0 == 0 || at == index) {
                    found.extend(address.map(|address| (at, address)));
                }
            }
        }
        Ok(found)
    }

    /// Routes through one device, or all.
    pub(super) fn routes(&mut self, through: Option<IfIndex>) -> Result<Routes, LinksError> {
        let mut routes = Routes::default();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            message.header.kind = RouteType::Unicast;
            message.attributes.extend(through.map(|index| RouteAttribute::Oif(index.0)));
            let message = RouteNetlinkMessage::GetRoute(message);
            let found = self.ask("RTM_GETROUTE", message, NLM_F_DUMP, |reply| {
                (reply.kind == libc::RTM_NEWROUTE).then(|| Route::decode(reply.payload).ok())
            })?;
            for route in found.iter().flatten() {
                routes.add(route);
                if route.hides_its_devices()
                    && !mem::replace(&mut self.told_of_hidden_devices, true)
                {
                    tracing::warn!(
                        "a route names a nexthop object and not its device: uplinks may be \
                         mistaken for pods; set net.ipv4.nexthop_compat_mode=1 or name them with \
                         --uplink"
                    );
                }
            }
        }
        Ok(routes)
    }

    /// Asks until the answer is consistent. `read` is none for a reply that is not meant, and
    /// holds none for one that cannot be read.
    fn ask<T>(
        &mut self,
        request: &'static str,
        message: RouteNetlinkMessage,
        flags: u16,
        read: impl Fn(&Message<'_>) -> Option<Option<T>>,
    ) -> Result<Vec<T>, LinksError> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        for _ in 0..TRIES {
            self.sequence = self.sequence.wrapping_add(1);
            message.header.sequence_number = self.sequence;
            message.finalize();
            let mut bytes = vec![0; message.buffer_len()];
            message.serialize(&mut bytes);
            self.socket.send(&bytes)?;

            let answer = self.answer(request, flags & NLM_F_DUMP != 0, &read)?;
            if answer.unreadable > 0 {
                self.undecodable += answer.unreadable;
                tracing::warn!(request, replies = answer.unreadable, "skipped unreadable replies");
            }
            if !answer.interrupted {
                return Ok(answer.items);
            }
        }
        Err(LinksError::Unstable { request, tries: TRIES })
    }

    /// Reads the whole answer, also after an error in it: the next question must not find its rest.
    fn answer<T>(
        &mut self,
        request: &'static str,
        dump: bool,
        read: impl Fn(&Message<'_>) -> Option<Option<T>>,
    ) -> Result<Answer<T>, LinksError> {
        let mut answer = Answer { items: Vec::new(), unreadable: 0, interrupted: false };
        let mut truncated = false;
        loop {
            let datagram = match self.socket.receive(&mut self.buffer, 0) {
                Ok(datagram) => datagram,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(LinksError::Timeout { request, after: PATIENCE });
                }
                Err(source) => return Err(LinksError::Socket { action: "receive", source }),
            };
            truncated |= datagram.truncated;
            for message in messages(datagram.bytes) {
                if message.sequence != self.sequence {
                    continue;
                }
                answer.interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                let end = match message.kind {
                    // A dump that failed half way says so only here.
                    NLMSG_DONE => Some(done_code(message.payload)),
                    NLMSG_ERROR => Some(error_code(message.payload)),
                    _ => {
                        match read(&message) {
                            Some(Some(item)) => answer.items.push(item),
                            Some(None) => answer.unreadable += 1,
                            None => {}
                        }
                        (!dump).then_some(0)
                    }
                };
                match end {
                    None => {}
                    Some(_) if truncated => {
                        return Err(LinksError::Truncated { request, size: DATAGRAM });
                    }
                    Some(0) => return Ok(answer),
                    Some(code) => {
                        let source = io::Error::from_raw_os_error(code.saturating_abs());
                        return Err(LinksError::Refused { request, source });
                    }
                }
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Here,
    Namespace(i32),
}

impl Place {
    /// Whether the kernel answered for the place it was asked about.
    fn check(self, answered: Option<i32>) -> Result<(), LinksError> {
        match self {
            Self::Namespace(asked) if answered != Some(asked) => {
                Err(LinksError::WrongNamespace { request: GET_ADDRESSES, asked, answered })
            }
            Self::Namespace(_) | Self::Here => Ok(()),
        }
    }
}

struct Answer<T> {
    items: Vec<T>,
    unreadable: u64,
    interrupted: bool,
}

fn link_request() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

/// The device does not exist, or not any more.
fn absent_is_empty<T: Default>(answer: Result<T, LinksError>) -> Result<T, LinksError> {
    match answer {
        Err(LinksError::Refused { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {
            Ok(T::default())
        }
        other => other,
    }
}

/// The namespace has no such device, or no namespace has the id any more (EINVAL).
fn dead_is_empty<T: Default>(answer: Result<T, LinksError>) -> Result<T, LinksError> {
    match absent_is_empty(answer) {
        Err(LinksError::Refused { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => {
            Ok(T::default())
        }
        other => other,
    }
}

/// The kernel may leave the code out.
fn done_code(payload: &[u8]) -> i32 {
    DoneBuffer::new_checked(payload).map_or(0, |done| done.code())
}

fn error_code(payload: &[u8]) -> i32 {
    match ErrorBuffer::new_checked(payload) {
        Ok(error) => error.code().map_or(0, Into::into),
        Err(_) => -libc::EBADMSG,
    }
}

const GET_ADDRESSES: &str = "RTM_GETADDR";

/// An answer takes microseconds; the kernel's lock may be held for a while.
const PATIENCE: Duration = Duration::from_secs(5);

/// Questions asked again because something changed while the kernel answered.
const TRIES: u32 = 50;

/// Attempts to read the addresses of a peer while its link stays the same.
const BRACKETS: u32 = 4;
