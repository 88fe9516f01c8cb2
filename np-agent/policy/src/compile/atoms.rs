//! The distinct tests that policies put to a peer, and sets of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::content::hash_of;
use crate::model::{ContainerPort, IpBlock, Selector};

/// One test that policies put to a peer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Atom {
    /// A pod of a namespace.
    PodsOf {
        namespace: Arc<str>,
        pods: Selector,
    },
    /// A pod of the namespaces that a selector matches.
    Pods {
        namespaces: Selector,
        pods: Selector,
    },
    Block(IpBlock),
    /// A pod that gives this number to a named port.
    Port(ContainerPort),
}

/// Stands for an atom while the agent runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AtomId(u32);

/// The atoms that a peer satisfies, ascending. Peers with equal sets are one class.
pub type AtomSet = Arc<[AtomId]>;

/// Holds the atoms in use. An id is never used again for another atom.
#[derive(Clone, Debug, Default)]
pub struct Atoms {
    ids: HashMap<Arc<Atom>, AtomId>,
    atoms: BTreeMap<AtomId, Arc<Atom>>,
    last: u32,
}

impl Atoms {
    pub(super) fn id(&mut self, atom: &Atom) -> AtomId {
        if let Some(id) = self.ids.get(atom) {
            return *id;
        }
        self.last += 1;
        let id = AtomId(self.last);
        let atom = Arc::new(atom.clone());
        self.ids.insert(atom.clone(), id);
        self.atoms.insert(id, atom);
        id
    }

    pub(super) fn retain(&mut self, used: &BTreeSet<AtomId>) {
        self.atoms.retain(|id, _| used.contains(id));
        self.ids.retain(|_, id| used.contains(id));
    }

    /// None for an atom that nothing asks for.
    pub fn find(&self, atom: &Atom) -> Option<AtomId> {
        self.ids.get(atom).copied()
    }

    /// All that are held, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (AtomId, &Arc<Atom>)> {
        self.atoms.iter().map(|(id, atom)| (*id, atom))
    }

    /// How many are numbers of named ports.
    pub fn ports(&self) -> usize {
        self.atoms.values().filter(|atom| matches!(***atom, Atom::Port(_))).count()
    }

    pub fn get(&self, id: AtomId) -> Option<&Arc<Atom>> {
        self.atoms.get(&id)
    }

    /// The same for the same atoms, whatever their ids: today and after a restart.
    pub fn content(&self, set: &AtomSet) -> u64 {
        let atoms: BTreeSet<&Atom> =
            set.iter().filter_map(|id| self.get(*id)).map(Arc::as_ref).collect();
        hash_of(atoms.into_iter())
    }
}
