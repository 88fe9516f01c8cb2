//! Remedies for the mistakes that people make: what a field may have been meant to be, and where
//! it belongs.

use crate::source::names;

/// The remedy for a field that `parent` does not have.
pub(super) fn unknown(key: &str, parent: &str, known: &[&str]) -> String {
    if let Some(home) = home(key, parent) {
        return format!("\"{key}\" belongs {home}");
    }
    if let Some(near) = nearest(key, known.iter().copied()) {
        return format!("did you mean \"{near}\"?");
    }
    if matches!(parent, "podSelector" | "namespaceSelector") {
        return "labels are written one level deeper, under \"matchLabels:\"".to_owned();
    }
    format!("the fields known here are {}", known.join(", "))
}

/// Where a field of NetworkPolicy belongs, when it stands elsewhere under its right name.
fn home(key: &str, parent: &str) -> Option<&'static str> {
    Some(match key {
        "from" if parent == "egress" => "in a rule of ingress; a rule of egress has \"to\"",
        "to" if parent == "ingress" => "in a rule of egress; a rule of ingress has \"from\"",
        "from" => "in a rule of ingress: indent it under an item \"- from:\"",
        "to" => "in a rule of egress: indent it under an item \"- to:\"",
        "ports" => {
            "in a rule, beside \"from\" or \"to\" and at their indentation, inside the same item \
             of ingress or egress"
        }
        "port" | "protocol" | "endPort" => {
            "in an item of \"ports\", at the indentation of the field after its \"- \""
        }
        "cidr" | "except" => "inside ipBlock: indent it two columns more than \"ipBlock:\"",
        "matchLabels" | "matchExpressions" => {
            "inside podSelector or namespaceSelector: indent it two columns more than that"
        }
        "podSelector" | "namespaceSelector"
            if matches!(parent, "podSelector" | "namespaceSelector") =>
        {
            "beside the other selector, at the same indentation, not inside it"
        }
        "ipBlock" | "namespaceSelector" => "in an item of \"from\" or \"to\"",
        "podSelector" => "in spec, or in an item of \"from\" or \"to\"",
        "key" | "operator" | "values" => "in an item of matchExpressions",
        "ingress" | "egress" | "policyTypes" => "in spec: indent it under \"spec:\"",
        "name" | "namespace" | "labels" | "annotations" => {
            "in metadata: indent it under \"metadata:\""
        }
        _ => return None,
    })
}

/// The remedy for a value of the wrong type.
pub(super) fn shape(field: &str, needed: &str, written: Option<&str>) -> String {
    match field {
        "podSelector" | "namespaceSelector" => {
            let label = written.and_then(|text| text.split_once('='));
            let label =
                label.map(|(key, value)| (key.trim(), value.trim_start_matches('=').trim()));
            let (key, value) = label
                .filter(|(key, value)| names::label_key(key) && names::label_value(value))
                .unwrap_or(("name", "value"));
            format!("write \"{field}: {{matchLabels: {{{key}: {value}}}}}\", or \"{{}}\" for all")
        }
        "matchLabels" | "labels" => format!("write \"{field}: {{name: value}}\""),
        "ipBlock" => "write \"ipBlock: {cidr: 10.0.0.0/8}\"".to_owned(),
        "policyTypes" => "write \"policyTypes: [Ingress, Egress]\"".to_owned(),
        "ingress" | "egress" => {
            format!("write each rule as an item: \"{field}:\" and below it \"- …\"")
        }
        "from" | "to" | "ports" | "matchExpressions" | "values" | "except" => {
            format!("write each entry as an item: \"{field}:\" and below it \"- …\"")
        }
        _ => format!("give it {needed}"),
    }
}

/// The remedy for a key that appears twice in `parent`.
pub(super) fn twice(key: &str, parent: &str, first_line: u32) -> String {
    if key == "name" && parent == "metadata" {
        return format!(
            "remove one of them (the first is on line {first_line}), or write \"namespace:\" if \
             that was meant"
        );
    }
    format!("remove one of them, or join them (the first is on line {first_line})")
}

/// The candidate that a misspelt word was meant to be.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let word = word.to_lowercase();
    let within = match word.chars().count() {
        0..=2 => 0,
        3..=5 => 1,
        6..=64 => 2,
        _ => return None,
    };
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= within)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                let swap = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                if swap { best.min(rows[i - 2][j - 2] + 1) } else { best }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_recognised_and_strangers_are_not() {
        let kinds = ["NetworkPolicy", "Pod", "Node", "Namespace"];
        assert_eq!(nearest("NetworPolicy", kinds), Some("NetworkPolicy"));
        assert_eq!(nearest("networkpolicy", kinds), Some("NetworkPolicy"));
        assert_eq!(nearest("Pods", kinds), Some("Pod"));
        assert_eq!(nearest("NameSpace", kinds), Some("Namespace"));
        assert_eq!(nearest("Job", kinds), None);
        assert_eq!(nearest("CiliumNetworkPolicy", kinds), None);
        assert_eq!(nearest("form", ["from", "ports"]), Some("from"));
    }
}
