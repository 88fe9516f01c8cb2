//! Label selectors, as in `metav1.LabelSelector`.
//!
//! Source of the rules: `staging/src/k8s.io/apimachinery/pkg/labels/selector.go`
//! (`Requirement.Matches`) of kubernetes/kubernetes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// All requirements must hold; an empty selector matches everything. Kept sorted and without
/// repetition, so that equal selectors compare equal.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Selector {
    /// Policies mostly repeat each other's: the index holds equal ones once.
    pub(crate) requirements: Arc<[Requirement]>,
}

/// `matchLabels` entries are `In` with one value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Requirement {
    /// The key is present and its value in the set.
    In(Box<str>, Values),
    /// The key is absent, or its value not in the set.
    NotIn(Box<str>, Values),
    Exists(Box<str>),
    DoesNotExist(Box<str>),
}

/// The values of a requirement, sorted and without repetition. Nearly always one or two: an ordered
/// set of its own would be ten times their size.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Values(Box<[Box<str>]>);

impl Selector {
    /// The empty selector.
    pub fn everything() -> Self {
        Self::default()
    }

    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|requirement| requirement.holds(labels))
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    pub fn requirements(&self) -> impl ExactSizeIterator<Item = &Requirement> {
        self.requirements.iter()
    }
}

impl FromIterator<Requirement> for Selector {
    fn from_iter<I: IntoIterator<Item = Requirement>>(requirements: I) -> Self {
        let requirements: BTreeSet<Requirement> = requirements.into_iter().collect();
        Self { requirements: requirements.into_iter().collect() }
    }
}

impl Requirement {
    pub fn equals(key: impl Into<Box<str>>, value: impl Into<Box<str>>) -> Self {
        Self::In(key.into(), Values::from_iter([value]))
    }

    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::In(key, values) => labels.get(&**key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => {
                labels.get(&**key).is_none_or(|value| !values.contains(value))
            }
            Self::Exists(key) => labels.contains_key(&**key),
            Self::DoesNotExist(key) => !labels.contains_key(&**key),
        }
    }
}

impl<T: Into<Box<str>>> FromIterator<T> for Values {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut values: Vec<Box<str>> = values.into_iter().map(T::into).collect();
        values.sort_unstable();
        values.dedup();
        Self(values.into())
    }
}

impl Values {
    pub fn contains(&self, value: &str) -> bool {
        self.0.binary_search_by(|other| other.as_ref().cmp(value)).is_ok()
    }
}

impl Deref for Values {
    type Target = [Box<str>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    }

    #[test]
    fn a_missing_key_satisfies_only_the_negative_operators() {
        let none = labels(&[]);
        let values = Values::from_iter(["db"]);
        assert!(!Requirement::In("role".into(), values.clone()).holds(&none));
        assert!(Requirement::NotIn("role".into(), values).holds(&none));
        assert!(!Requirement::Exists("role".into()).holds(&none));
        assert!(Requirement::DoesNotExist("role".into()).holds(&none));
    }

    #[test]
    fn an_empty_value_is_a_value() {
        let empty = Selector::from_iter([Requirement::equals("role", "")]);
        assert!(empty.matches(&labels(&[("role", "")])));
        assert!(!empty.matches(&labels(&[])));
        assert!(!Requirement::DoesNotExist("role".into()).holds(&labels(&[("role", "")])));
    }

    #[test]
    fn contradicting_requirements_match_nothing() {
        let both = Selector::from_iter([
            Requirement::equals("role", "a"),
            Requirement::equals("role", "b"),
        ]);
        assert!(!both.matches(&labels(&[("role", "a")])));
        assert!(!both.matches(&labels(&[("role", "b")])));
    }
}
