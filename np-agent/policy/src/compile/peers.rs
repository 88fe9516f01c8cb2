//! Which atoms the addresses of the world satisfy, as prefixes of which the longest counts.
//!
//! Blocks and their excepts cut the address space at their borders; a pod's address is a border of
//! its own, at which selectors apply and every block is asked again. So `except` cuts only its own
//! block, and overlapping blocks add up.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::selectors::Selectors;
use super::{AllowPorts, AllowRule, Atom, AtomId, Atoms};
use crate::index::Index;
use crate::model::{ContainerPort, IpBlock, Pod, Protocol};

/// What rule sets ask of peers, laid out so that asking one peer costs what the peer has, not what
/// the policies ask.
#[derive(Clone, Debug, Default)]
pub struct Tests {
    asked: Asked,
    blocks: Blocks,
    selectors: Selectors,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Asked {
    blocks: BTreeSet<AtomId>,
    selectors: BTreeSet<AtomId>,
    ports: BTreeSet<(Protocol, String)>,
}

/// Which peers may satisfy other atoms now that other tests are put to them.
#[derive(Debug)]
pub enum Anew {
    Nobody,
    /// Those that satisfied what is asked no more, and those that satisfy what is new.
    Some(Box<NewTests>),
}

#[derive(Debug)]
pub struct NewTests {
    /// Selectors that are asked for now or were before, and not both.
    selectors: Selectors,
    /// The same of names of ports.
    ports: BTreeSet<(Protocol, String)>,
    /// The same of blocks: what is inside one may be another peer.
    pub blocks: BTreeSet<IpNet>,
    /// Where blocks began or ended.
    pub borders: BTreeSet<IpNet>,
}

impl NewTests {
    /// Whether there may be pods in a namespace that they concern.
    pub fn reach(&self, index: &Index, namespace: &str) -> bool {
        !self.ports.is_empty() || self.selectors.reach(namespace, index.namespace(namespace))
    }

    pub fn concern(&self, index: &Index, pod: &Pod) -> bool {
        let namespace = index.namespace(&pod.key.namespace);
        let named = |port: &ContainerPort| self.ports.contains(&(port.protocol, port.name.clone()));
        self.selectors.matching(pod, namespace).next().is_some()
            || (!self.ports.is_empty() && pod.named_ports.iter().any(named))
    }
}

impl Tests {
    /// Takes what these rules ask, instead of what was asked before.
    pub fn ask<'a>(
        &mut self,
        rules: impl Iterator<Item = &'a AllowRule>,
        atoms: &mut Atoms,
    ) -> Anew {
        let mut asked = Asked::default();
        for rule in rules {
            for atom in rule.peers.iter().flatten() {
                let kind = match atom {
                    Atom::Block(_) => &mut asked.blocks,
                    Atom::PodsOf { .. } | Atom::Pods { .. } | Atom::Port(_) => &mut asked.selectors,
                };
                kind.insert(atoms.id(atom));
            }
            for ports in rule.ports.iter().flatten() {
                if let AllowPorts::OfPeer(protocol, name) = ports {
                    asked.ports.insert((*protocol, name.clone()));
                }
            }
        }
        if asked == self.asked {
            return Anew::Nobody;
        }
        let selectors = asked.selectors.symmetric_difference(&self.asked.selectors);
        let blocks = asked.blocks.symmetric_difference(&self.asked.blocks);
        let new = NewTests {
            selectors: Selectors::of(selectors.copied(), atoms),
            ports: asked.ports.symmetric_difference(&self.asked.ports).cloned().collect(),
            blocks: blocks.filter_map(|id| Some(block(atoms, *id)?.cidr)).collect(),
            borders: self.blocks.borders.keys().copied().collect(),
        };
        if asked.blocks != self.asked.blocks {
            self.blocks = Blocks::of(&asked.blocks, atoms);
        }
        if asked.selectors != self.asked.selectors {
            self.selectors = Selectors::of(asked.selectors.iter().copied(), atoms);
        }
        self.asked = asked;
        Anew::Some(Box::new(new))
    }

    pub fn atoms(&self) -> impl Iterator<Item = AtomId> {
        self.asked.blocks.iter().chain(&self.asked.selectors).copied()
    }

    /// The prefixes at which the blocks around an address change.
    pub fn borders(&self) -> impl Iterator<Item = IpNet> {
        self.blocks.borders.keys().copied()
    }

    /// The blocks that hold a prefix, and those that hold what is right around it.
    pub fn blocks(&self, prefix: IpNet) -> (BTreeSet<AtomId>, BTreeSet<AtomId>) {
        let around = self.blocks.around(prefix);
        (self.blocks.within(prefix, &around), around)
    }

    /// What a pod satisfies besides blocks.
    pub fn of_pod(&self, index: &Index, pod: &Pod, atoms: &mut Atoms) -> BTreeSet<AtomId> {
        let mut set = BTreeSet::new();
        set.extend(self.selectors.matching(pod, index.namespace(&pod.key.namespace)));
        for port in pod.named_ports.iter() {
            if self.asked.ports.contains(&(port.protocol, port.name.clone())) {
                set.insert(atoms.id(&Atom::Port(port.clone())));
            }
        }
        set
    }
}

fn block(atoms: &Atoms, id: AtomId) -> Option<&IpBlock> {
    match &**atoms.get(id)? {
        Atom::Block(block) => Some(block),
        Atom::PodsOf { .. } | Atom::Pods { .. } | Atom::Port(_) => None,
    }
}

/// The blocks, by the prefixes they begin and end at.
#[derive(Clone, Debug, Default)]
struct Blocks {
    borders: BTreeMap<IpNet, Border>,
    /// The lengths of the borders, of both families.
    lengths: BTreeSet<u8>,
}

#[derive(Clone, Debug, Default)]
struct Border {
    blocks: Vec<AtomId>,
    excepted: Vec<AtomId>,
}

impl Blocks {
    fn of(asked: &BTreeSet<AtomId>, atoms: &Atoms) -> Self {
        let mut borders: BTreeMap<IpNet, Border> = BTreeMap::new();
        for id in asked {
            let Some(block) = block(atoms, *id) else { continue };
            borders.entry(block.cidr).or_default().blocks.push(*id);
            for except in &block.except {
                borders.entry(*except).or_default().excepted.push(*id);
            }
        }
        let lengths = borders.keys().map(IpNet::prefix_len).collect();
        Self { borders, lengths }
    }

    /// The blocks that hold what is right around a prefix.
    fn around(&self, prefix: IpNet) -> BTreeSet<AtomId> {
        let mut held = BTreeSet::new();
        for length in self.lengths.range(..prefix.prefix_len()) {
            let outer = IpNet::new(prefix.addr(), *length).map(|outer| outer.trunc());
            if let Some(border) = outer.ok().and_then(|outer| self.borders.get(&outer)) {
                border.cross(&mut held);
            }
        }
        held
    }

    /// The blocks that hold a prefix, given those around it.
    fn within(&self, prefix: IpNet, around: &BTreeSet<AtomId>) -> BTreeSet<AtomId> {
        let mut held = around.clone();
        if let Some(border) = self.borders.get(&prefix) {
            border.cross(&mut held);
        }
        held
    }
}

impl Border {
    /// An except is inside its block, and at the same border when it removes all of it: so it
    /// comes second.
    fn cross(&self, held: &mut BTreeSet<AtomId>) {
        held.extend(&self.blocks);
        for excepted in &self.excepted {
            held.remove(excepted);
        }
    }
}
