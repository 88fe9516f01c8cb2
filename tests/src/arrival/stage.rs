//! What the story, the adversary and the judge share: who is there and what has been heard.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};

use super::chronicle::Chronicle;
use super::host::{HostId, Kind};
use super::seen::{Flow, Form};
use super::tap::Muzzle;
use crate::address::{Family, twin};
use crate::netns::Namespace;

/// A host that the adversary speaks through.
#[derive(Debug)]
pub struct Actor {
    pub id: HostId,
    pub kind: Kind,
    pub node: usize,
    pub v4: Ipv4Addr,
    pub app: &'static str,
    pub mac: [u8; 6],
    /// The hardware address of its router.
    pub gateway: [u8; 6],
    /// Whether the pods of its node hear its frames.
    pub bridged: bool,
    mouth: Mouth,
}

#[derive(Debug)]
enum Mouth {
    /// Frames as they are.
    Frames(Muzzle),
    /// The node's own datagrams, which its kernel makes.
    Datagrams(UdpSocket),
}

/// How a host is reached by frames.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    pub mac: [u8; 6],
    pub gateway: [u8; 6],
    pub bridged: bool,
}

impl Actor {
    pub fn of_frames(
        chronicle: &Chronicle,
        id: HostId,
        inside: &Namespace,
        link: Link,
    ) -> Result<Self> {
        let mouth = Mouth::Frames(Muzzle::open(inside, "eth0")?);
        let host = chronicle.host(id);
        let Link { mac, gateway, bridged } = link;
        let (kind, node, v4) = (host.kind, host.node, host.v4);
        Ok(Self { id, kind, node, v4, app: host.app(), mac, gateway, bridged, mouth })
    }

    pub fn of_node(chronicle: &Chronicle, id: HostId, inside: &Namespace) -> Result<Self> {
        let socket = inside
            .run(|| {
                let socket = UdpSocket::bind("[::]:0")?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            })
            .with_context(|| format!("a socket of {}", inside.name()))?;
        let host = chronicle.host(id);
        Ok(Self {
            id,
            kind: host.kind,
            node: host.node,
            v4: host.v4,
            app: "",
            mac: [0; 6],
            gateway: [0; 6],
            bridged: false,
            mouth: Mouth::Datagrams(socket),
        })
    }

    pub fn address(&self, family: Family) -> IpAddr {
        family.address(self.v4)
    }

    pub fn has(&self, address: IpAddr) -> bool {
        address == IpAddr::V4(self.v4) || address == IpAddr::V6(twin(self.v4))
    }

    /// Whether it sends frames of its own making.
    pub fn is_raw(&self) -> bool {
        matches!(self.mouth, Mouth::Frames(_))
    }

    /// Sends a frame as it is; false when it cannot be sent.
    pub fn send(&self, frame: &[u8]) -> bool {
        match &self.mouth {
            Mouth::Frames(muzzle) => muzzle.send(frame),
            Mouth::Datagrams(_) => false,
        }
    }

    /// Sends a datagram by the node's kernel.
    pub fn say(&self, to: SocketAddr, data: &[u8]) -> bool {
        let mapped = match to.ip() {
            IpAddr::V4(v4) => IpAddr::V6(v4.to_ipv6_mapped()),
            v6 => v6,
        };
        match &self.mouth {
            Mouth::Datagrams(socket) => socket.send_to(data, (mapped, to.port())).is_ok(),
            Mouth::Frames(_) => false,
        }
    }
}

/// What a host got, to be answered.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    pub host: HostId,
    pub flow: Flow,
    pub form: Form,
}

#[derive(Debug, Default)]
pub struct Stage {
    chronicle: Mutex<Chronicle>,
    actors: Mutex<Vec<Arc<Actor>>>,
    gone: Mutex<VecDeque<Arc<Actor>>>,
    heard: Mutex<VecDeque<Heard>>,
}

const HEARD: usize = 256;
const GONE: usize = 12;

impl Stage {
    pub fn chronicle(&self) -> MutexGuard<'_, Chronicle> {
        lock(&self.chronicle)
    }

    pub fn actors(&self) -> Vec<Arc<Actor>> {
        lock(&self.actors).clone()
    }

    pub fn enter(&self, actor: Actor) {
        lock(&self.actors).push(Arc::new(actor));
    }

    pub fn leave(&self, id: HostId) {
        let mut actors = lock(&self.actors);
        let Some(at) = actors.iter().position(|actor| actor.id == id) else { return };
        let mut gone = lock(&self.gone);
        gone.push_back(actors.remove(at));
        if gone.len() > GONE {
            gone.pop_front();
        }
    }

    /// Pods that are no more, the last one last.
    pub fn gone(&self) -> Vec<Arc<Actor>> {
        lock(&self.gone).iter().cloned().collect()
    }

    pub fn hear(&self, heard: Heard) {
        let mut all = lock(&self.heard);
        all.push_back(heard);
        if all.len() > HEARD {
            all.pop_front();
        }
    }

    pub fn heard(&self) -> Vec<Heard> {
        lock(&self.heard).iter().copied().collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
