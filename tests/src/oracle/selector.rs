//! Label selectors, matched by kube.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::core::{Selector, SelectorExt};

/// A selector that the API server would refuse matches nothing: kube would read `NotIn []` as
/// everything.
pub fn matches(selector: &LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();
    let labels = labels.unwrap_or(&NO_LABELS);
    selector.match_expressions.iter().flatten().all(usable)
        && Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(labels))
}

fn usable(requirement: &LabelSelectorRequirement) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    match requirement.operator.as_str() {
        "In" | "NotIn" => !values.is_empty(),
        "Exists" | "DoesNotExist" => values.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(operator: &str, values: &[&str]) -> LabelSelector {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "role".into(),
                operator: operator.into(),
                values: Some(values),
            }]),
            match_labels: None,
        }
    }

    #[test]
    fn what_the_api_would_refuse_matches_nothing() {
        let unlabelled = None;
        let labelled = BTreeMap::from([("role".to_owned(), "3".to_owned())]);
        let labelled = Some(&labelled);
        for broken in [
            selector("NotIn", &[]),
            selector("In", &[]),
            selector("Exists", &["3"]),
            selector("DoesNotExist", &["3"]),
            selector("Gt", &["2"]),
        ] {
            assert!(!matches(&broken, unlabelled), "{broken:?}");
            assert!(!matches(&broken, labelled), "{broken:?}");
        }
    }

    #[test]
    fn a_missing_key_satisfies_only_the_negative_operators() {
        let unlabelled = None;
        assert!(matches(&selector("NotIn", &["db"]), unlabelled));
        assert!(matches(&selector("DoesNotExist", &[]), unlabelled));
        assert!(!matches(&selector("In", &["db"]), unlabelled));
        assert!(!matches(&selector("Exists", &[]), unlabelled));
    }
}
