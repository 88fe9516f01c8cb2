//! Which class every prefix has, and which classes there are: asked at every plan, and too many
//! prefixes to look at each time.

use std::collections::BTreeMap;
use std::ops::Deref;

use ipnet::IpNet;
use np_common::rules::ClassId;

use crate::index::pack;

/// PEERS and CIDRS together: full-length prefixes lie in the one, shorter ones in the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    by_prefix: BTreeMap<IpNet, ClassId>,
    /// How many prefixes have each class.
    classes: BTreeMap<ClassId, usize>,
}

impl Peers {
    /// Returns the class that the prefix had.
    pub fn insert(&mut self, prefix: IpNet, class: ClassId) -> Option<ClassId> {
        *self.classes.entry(class).or_default() += 1;
        let old = self.by_prefix.insert(prefix, class);
        self.leave(old)
    }

    /// Returns the class that the prefix had.
    pub fn remove(&mut self, prefix: &IpNet) -> Option<ClassId> {
        let old = self.by_prefix.remove(prefix);
        self.leave(old)
    }

    fn leave(&mut self, class: Option<ClassId>) -> Option<ClassId> {
        if let Some(prefixes) = class.and_then(|class| self.classes.get_mut(&class)) {
            *prefixes -= 1;
        }
        class.inspect(|class| {
            if self.classes.get(class) == Some(&0) {
                self.classes.remove(class);
            }
        })
    }

    /// Whether some prefix has a class.
    pub fn have(&self, class: ClassId) -> bool {
        self.classes.contains_key(&class)
    }

    /// The classes that prefixes have, ascending.
    pub fn classes(&self) -> impl Iterator<Item = ClassId> {
        self.classes.keys().copied()
    }

    /// Gives back what growing has left empty.
    pub fn pack(&mut self) {
        pack(&mut self.by_prefix);
    }
}

impl Deref for Peers {
    type Target = BTreeMap<IpNet, ClassId>;

    fn deref(&self) -> &Self::Target {
        &self.by_prefix
    }
}

impl FromIterator<(IpNet, ClassId)> for Peers {
    fn from_iter<I: IntoIterator<Item = (IpNet, ClassId)>>(prefixes: I) -> Self {
        let mut peers = Self::default();
        peers.extend(prefixes);
        peers
    }
}

impl Extend<(IpNet, ClassId)> for Peers {
    fn extend<I: IntoIterator<Item = (IpNet, ClassId)>>(&mut self, prefixes: I) {
        for (prefix, class) in prefixes {
            self.insert(prefix, class);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_there_as_long_as_a_prefix_has_it() {
        let [one, two] = ["10.0.0.1/32", "10.0.0.2/32"].map(|text| text.parse().expect("a prefix"));
        let [first, second] = [1, 2].map(ClassId::new);
        let mut peers = Peers::from_iter([(one, first), (two, first)]);
        assert_eq!(peers.insert(one, first), Some(first));
        assert_eq!(peers.insert(one, second), Some(first));
        assert_eq!(peers.classes().collect::<Vec<_>>(), [first, second]);
        assert_eq!(peers.remove(&two), Some(first));
        assert_eq!(peers.remove(&two), None);
        assert!(!peers.have(first) && peers.have(second));
        assert_eq!(peers, Peers::from_iter([(one, second)]));
    }
}
