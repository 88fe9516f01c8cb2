//! What rule sets and atoms say, as bytes, and the hash of those. Ids made of it outlive the process in
//! the maps, so that nothing here may change without a new [ABI version](np_common::ABI_VERSION): neither
//! the compiler, the standard library nor the order of a derived `Hash` has a say.
//!
//! The encoding, all integers little-endian:
//!
//! - an alternative: its number in 8 bytes, then what it holds; of an option, none is 0 and some is 1
//! - a list: its length in 8 bytes, then each element
//! - a text: its UTF-8 bytes, then 0xff, which no UTF-8 has
//! - a port: 2 bytes; a prefix: its family as an alternative, the address as on the wire, its length in 1 byte

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::Atom;
use super::rule_set::{AllowPorts, AllowRule};
use crate::model::{ContainerPort, IpBlock, Protocol, Requirement, Selector};

/// The hash of a list.
pub fn hash_of<'a, C: Content + 'a>(list: impl ExactSizeIterator<Item = &'a C>) -> u64 {
    let mut hash = Fnv1a::new();
    put_list(list, &mut hash);
    hash.0
}

/// What has an encoding.
pub trait Content {
    fn put(&self, to: &mut Fnv1a);
}

/// Fowler, Noll and Vo's hash, version 1a, 64 bits.
pub struct Fnv1a(u64);

impl Fnv1a {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn alternative(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
        self.bytes(&[0xff]);
    }

    fn port(&mut self, port: u16) {
        self.bytes(&port.to_le_bytes());
    }
}

fn put_list<'a, C: Content + ?Sized + 'a>(
    list: impl ExactSizeIterator<Item = &'a C>,
    to: &mut Fnv1a,
) {
    to.bytes(&(list.len() as u64).to_le_bytes());
    list.for_each(|element| element.put(to));
}

fn put_option<C: Content>(option: Option<&BTreeSet<C>>, to: &mut Fnv1a) {
    match option {
        None => to.alternative(0),
        Some(set) => {
            to.alternative(1);
            put_list(set.iter(), to);
        }
    }
}

impl Content for AllowRule {
    fn put(&self, to: &mut Fnv1a) {
        let Self { peers, ports } = self;
        put_option(peers.as_ref(), to);
        put_option(ports.as_ref(), to);
    }
}

impl Content for AllowPorts {
    fn put(&self, to: &mut Fnv1a) {
        match self {
            Self::Protocol(protocol) => {
                to.alternative(0);
                protocol.put(to);
            }
            Self::Range(protocol, first, last) => {
                to.alternative(1);
                protocol.put(to);
                to.port(*first);
                to.port(*last);
            }
            Self::OfPeer(protocol, name) => {
                to.alternative(2);
                protocol.put(to);
                to.text(name);
            }
        }
    }
}

impl Content for Protocol {
    fn put(&self, to: &mut Fnv1a) {
        to.alternative(match self {
            Self::Tcp => 0,
            Self::Udp => 1,
            Self::Sctp => 2,
        });
    }
}

impl Content for Atom {
    fn put(&self, to: &mut Fnv1a) {
        match self {
            Self::PodsOf { namespace, pods } => {
                to.alternative(0);
                to.text(namespace);
                pods.put(to);
            }
            Self::Pods { namespaces, pods } => {
                to.alternative(1);
                namespaces.put(to);
                pods.put(to);
            }
            Self::Block(IpBlock { cidr, except }) => {
                to.alternative(2);
                cidr.put(to);
                put_list(except.iter(), to);
            }
            Self::Port(ContainerPort { name, protocol, port }) => {
                to.alternative(3);
                to.text(name);
                protocol.put(to);
                to.port(*port);
            }
        }
    }
}

impl Content for Selector {
    fn put(&self, to: &mut Fnv1a) {
        put_list(self.requirements(), to);
    }
}

impl Content for Requirement {
    fn put(&self, to: &mut Fnv1a) {
        match self {
            Self::In(key, values) => {
                to.alternative(0);
                to.text(key);
                put_list(values.iter(), to);
            }
            Self::NotIn(key, values) => {
                to.alternative(1);
                to.text(key);
                put_list(values.iter(), to);
            }
            Self::Exists(key) => {
                to.alternative(2);
                to.text(key);
            }
            Self::DoesNotExist(key) => {
                to.alternative(3);
                to.text(key);
            }
        }
    }
}

impl Content for IpNet {
    fn put(&self, to: &mut Fnv1a) {
        match self {
            Self::V4(net) => {
                to.alternative(0);
                to.bytes(&net.addr().octets());
            }
            Self::V6(net) => {
                to.alternative(1);
                to.bytes(&net.addr().octets());
            }
        }
        to.bytes(&[self.prefix_len()]);
    }
}

impl Content for Box<str> {
    fn put(&self, to: &mut Fnv1a) {
        to.text(self);
    }
}

impl<C: Content + ?Sized> Content for &C {
    fn put(&self, to: &mut Fnv1a) {
        (**self).put(to);
    }
}

#[cfg(test)]
mod tests;
