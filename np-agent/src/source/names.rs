//! The rules for names, labels and port names.
//!
//! Source: `staging/src/k8s.io/apimachinery/pkg/util/validation/validation.go` of
//! kubernetes/kubernetes.

/// A DNS-1123 label: a namespace's name.
pub(super) fn dns_label(name: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let outer = |c: Option<&u8>| c.is_some_and(|c| inner(*c) && *c != b'-');
    let bytes = name.as_bytes();
    bytes.len() <= 63
        && bytes.iter().copied().all(inner)
        && outer(bytes.first())
        && outer(bytes.last())
}

/// A DNS-1123 subdomain: labels joined by dots. Here only the whole is limited in length.
pub(super) fn dns_subdomain(name: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// A label's key: a name, with an optional DNS prefix.
pub(super) fn label_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => dns_subdomain(prefix) && qualified(name),
        None => qualified(key),
    }
}

pub(super) fn label_value(value: &str) -> bool {
    value.is_empty() || qualified(value)
}

/// A container port's name.
pub(super) fn port_name(name: &str) -> bool {
    name.len() <= 15
        && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
        && name.bytes().any(|c| c.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}

pub(super) const LABEL_KEY: &str = "a label's name has 1 to 63 letters, digits, \"-\", \"_\" or \
     \".\", begins and ends with a letter or digit, and may follow \"some.domain/\"";
pub(super) const LABEL_VALUE: &str = "a label's value has up to 63 letters, digits, \"-\", \"_\" or \
     \".\" and begins and ends with a letter or digit";
pub(super) const PORT_NAME: &str = "a port's name has 1 to 15 lower-case letters, digits or single \
     \"-\", with at least one letter";

fn qualified(name: &str) -> bool {
    let edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    name.len() <= 63
        && edge(name.bytes().next())
        && edge(name.bytes().last())
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_api_server() {
        assert!(dns_label("a") && dns_label("kube-system") && dns_label(&"a".repeat(63)));
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", &"a".repeat(64)] {
            assert!(!dns_label(bad), "{bad}");
        }
        assert!(dns_subdomain("a.b-c.9") && dns_subdomain(&"a".repeat(253)));
        for bad in ["", "a..b", ".a", "a.", "a.-b", "Web", &"a".repeat(254)] {
            assert!(!dns_subdomain(bad), "{bad}");
        }
        assert!(label_key("app") && label_key("kubernetes.io/metadata.name") && label_key("A_b.c"));
        for bad in ["", "/a", "a/", "a/b/c", "_a", "a b", "Ab.c/d", &"a".repeat(64)] {
            assert!(!label_key(bad), "{bad}");
        }
        assert!(label_value("") && label_value("a") && label_value("A.b_c-d"));
        assert!(!label_value("a/b") && !label_value("-a") && !label_value(&"a".repeat(64)));
        assert!(port_name("http") && port_name("8-web") && port_name(&"a".repeat(15)));
        for bad in ["", "80", "HTTP", "a--b", "-a", "a-", "a_b", &"a".repeat(16)] {
            assert!(!port_name(bad), "{bad}");
        }
    }
}
