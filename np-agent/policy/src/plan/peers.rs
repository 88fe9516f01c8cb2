//! Which class every prefix has. Which classes there are, and what surrounds a prefix, is asked at
//! every plan, and the prefixes are too many to look at each time.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Deref;

use ipnet::IpNet;
use np_common::rules::ClassId;

use crate::index::pack;

/// PEERS and CIDRS together: full-length prefixes lie in the one, shorter ones in the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    by_prefix: BTreeMap<IpNet, ClassId>,
    classes: Counted<ClassId>,
    /// Of both families.
    lengths: Counted<u8>,
}

/// How many prefixes have something.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Counted<T>(BTreeMap<T, usize>);

impl Peers {
    /// Returns the class that the prefix had.
    pub fn insert(&mut self, prefix: IpNet, class: ClassId) -> Option<ClassId> {
        self.classes.add(class);
        self.lengths.add(prefix.prefix_len());
        let old = self.by_prefix.insert(prefix, class);
        self.forget(&prefix, old);
        old
    }

    /// Returns the class that the prefix had.
    pub fn remove(&mut self, prefix: &IpNet) -> Option<ClassId> {
        let old = self.by_prefix.remove(prefix);
        self.forget(prefix, old);
        old
    }

    fn forget(&mut self, prefix: &IpNet, class: Option<ClassId>) {
        if let Some(class) = class {
            self.classes.remove(class);
            self.lengths.remove(prefix.prefix_len());
        }
    }

    /// Whether some prefix has a class.
    pub fn have(&self, class: ClassId) -> bool {
        self.classes.0.contains_key(&class)
    }

    /// The classes that prefixes have, ascending.
    pub fn classes(&self) -> impl Iterator<Item = ClassId> {
        self.classes.0.keys().copied()
    }

    /// The longest entry around a prefix.
    pub fn around(&self, prefix: &IpNet) -> Option<(IpNet, ClassId)> {
        let lengths = self.lengths.0.range(..prefix.prefix_len()).rev();
        lengths
            .filter_map(|(length, _)| Some(IpNet::new(prefix.addr(), *length).ok()?.trunc()))
            .find_map(|outer| Some((outer, *self.by_prefix.get(&outer)?)))
    }

    /// Gives back what growing has left empty.
    pub fn pack(&mut self) {
        pack(&mut self.by_prefix);
    }
}

impl<T: Ord> Counted<T> {
    fn add(&mut self, one: T) {
        *self.0.entry(one).or_default() += 1;
    }

    fn remove(&mut self, one: T) {
        if let Entry::Occupied(mut count) = self.0.entry(one) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl<T> Default for Counted<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
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

    #[test]
    fn around_a_prefix_is_the_longest_entry_that_is_not_its_own() {
        let prefix = |text: &str| text.parse::<IpNet>().expect("a prefix");
        let entries = ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "fd00::/8", "::/0"];
        let mut peers: Peers =
            entries.into_iter().map(prefix).zip((1..).map(ClassId::new)).collect();
        for (inner, outer) in [
            ("10.1.2.3/32", Some("10.1.0.0/16")),
            ("10.1.0.0/16", Some("10.0.0.0/8")),
            ("10.2.0.0/16", Some("10.0.0.0/8")),
            ("192.0.2.1/32", Some("0.0.0.0/0")),
            ("0.0.0.0/0", None),
            ("fd00::1/128", Some("fd00::/8")),
            ("2001:db8::1/128", Some("::/0")),
        ] {
            let found = peers.around(&prefix(inner)).map(|(outer, _)| outer);
            assert_eq!(found, outer.map(prefix), "{inner}");
        }
        peers.remove(&prefix("10.1.0.0/16"));
        let found = peers.around(&prefix("10.1.2.3/32"));
        assert_eq!(found, Some((prefix("10.0.0.0/8"), ClassId::new(2))));
    }
}
