//! How findings speak of selectors and lists.

use std::collections::BTreeSet;

use crate::model::{Requirement, Selector};

/// "app=web,tier in (a, b)", as kubectl takes it; "every" for the empty selector.
pub(super) fn selector(selector: &Selector) -> String {
    if selector.is_everything() {
        return "every".to_owned();
    }
    let requirement = |requirement: &Requirement| match requirement {
        Requirement::In(key, values) => match values.first().filter(|_| values.len() == 1) {
            Some(value) => format!("{key}={value}"),
            None => format!("{key} in ({})", joined(values.iter())),
        },
        Requirement::NotIn(key, values) => format!("{key} notin ({})", joined(values.iter())),
        Requirement::Exists(key) => key.to_string(),
        Requirement::DoesNotExist(key) => format!("!{key}"),
    };
    selector.requirements().map(requirement).collect::<Vec<_>>().join(",")
}

/// "a, b, c", and of many only the first.
pub(super) fn joined<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    const MOST: usize = 4;
    let mut items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    let more = items.len().saturating_sub(MOST);
    items.truncate(MOST);
    let text = items.join(", ");
    if more > 0 { format!("{text} and {more} more") } else { text }
}

/// "8080 or 8443".
pub(super) fn either<T: ToString + Ord>(items: impl IntoIterator<Item = T>) -> String {
    let items: BTreeSet<T> = items.into_iter().collect();
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}
