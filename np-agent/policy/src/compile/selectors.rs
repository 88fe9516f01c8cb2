//! The selectors that policies put to peers, so laid out that a pod meets only those that may match
//! it: each is filed under a label that it asks for, of the namespace first and of the pod then.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Atom, AtomId, Atoms};
use crate::model::{Namespace, Pod, Requirement, Selector};

#[derive(Clone, Debug, Default)]
pub struct Selectors {
    /// Those for pods of one namespace, by its name.
    of_namespace: HashMap<Arc<str>, ByLabel<Candidate>>,
    /// Those for pods of the namespaces that a selector matches.
    of_namespaces: ByLabel<ByLabel<Candidate>>,
}

type Candidate = Vec<(AtomId, Arc<Atom>)>;

/// What is filed under one label, and what asks for none in particular.
#[derive(Clone, Debug, Default)]
struct ByLabel<T> {
    labels: HashMap<Box<str>, HashMap<Box<str>, T>>,
    others: T,
}

impl Selectors {
    pub fn of(asked: impl Iterator<Item = AtomId>, atoms: &Atoms) -> Self {
        let mut selectors = Self::default();
        for id in asked {
            let Some(atom) = atoms.get(id) else { continue };
            let candidate = || (id, atom.clone());
            match &**atom {
                Atom::PodsOf { namespace, pods } => {
                    let by_label = selectors.of_namespace.entry(namespace.clone()).or_default();
                    by_label.under(pods, |candidates| candidates.push(candidate()));
                }
                Atom::Pods { namespaces, pods } => {
                    selectors.of_namespaces.under(namespaces, |by_label| {
                        by_label.under(pods, |candidates| candidates.push(candidate()));
                    });
                }
                Atom::Block(_) | Atom::Port(_) => {}
            }
        }
        selectors
    }

    /// Whether some may match pods of a namespace.
    pub fn reach(&self, name: &str, namespace: Option<&Namespace>) -> bool {
        let by_labels = namespace.is_some_and(|namespace| {
            let mut candidates = self.of_namespaces.candidates(&namespace.labels);
            candidates.any(|by_label| !by_label.is_empty())
        });
        by_labels || self.of_namespace.contains_key(name)
    }

    pub fn matching<'a>(
        &'a self,
        pod: &'a Pod,
        namespace: Option<&'a Namespace>,
    ) -> impl Iterator<Item = AtomId> + 'a {
        let by_name = self.of_namespace.get(&pod.key.namespace);
        let by_labels = namespace
            .into_iter()
            .flat_map(|namespace| self.of_namespaces.candidates(&namespace.labels));
        by_name
            .into_iter()
            .chain(by_labels)
            .flat_map(|by_label| by_label.candidates(&pod.labels))
            .flatten()
            .filter(move |(_, atom)| match &**atom {
                Atom::PodsOf { namespace: _, pods } => pods.matches(&pod.labels),
                Atom::Pods { namespaces, pods } => {
                    pods.matches(&pod.labels)
                        && namespace.is_some_and(|namespace| namespaces.matches(&namespace.labels))
                }
                Atom::Block(_) | Atom::Port(_) => false,
            })
            .map(|(id, _)| *id)
    }
}

impl<T: Default> ByLabel<T> {
    /// Reaches every place where a pod that the selector may match will look.
    fn under(&mut self, selector: &Selector, mut put: impl FnMut(&mut T)) {
        let certain = selector.requirements().find_map(|requirement| match requirement {
            Requirement::In(key, values) => Some((key, values)),
            Requirement::NotIn(..) | Requirement::Exists(_) | Requirement::DoesNotExist(_) => None,
        });
        let Some((key, values)) = certain else { return put(&mut self.others) };
        let by_value = self.labels.entry(key.clone()).or_default();
        for value in values.iter() {
            put(by_value.entry(value.clone()).or_default());
        }
    }

    fn candidates<'a>(
        &'a self,
        labels: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'a T> {
        let certain =
            labels.iter().filter_map(|(key, value)| self.labels.get(&**key)?.get(&**value));
        certain.chain([&self.others])
    }
}

impl ByLabel<Candidate> {
    fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.others.is_empty()
    }
}
