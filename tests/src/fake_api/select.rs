//! Field selectors, as far as agents use them.

use serde_json::Value;

/// Whether an object fits a field selector such as `spec.nodeName!=a,status.podIP!=`.
pub fn matches(selector: &str, object: &Value) -> bool {
    selector.split(',').filter(|term| !term.is_empty()).all(|term| {
        let (field, wanted, equal) = match term.split_once("!=") {
            Some((field, wanted)) => (field, wanted, false),
            None => {
                let (field, wanted) = term.split_once('=').unwrap_or((term, ""));
                (field, wanted.trim_start_matches('='), true)
            }
        };
        let value = field.split('.').fold(object, |value, name| &value[name]);
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Bool(value) => value.to_string(),
            _ if field == "spec.hostNetwork" => "false".to_owned(),
            _ => String::new(),
        };
        (text == wanted) == equal
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn terms_are_compared_with_fields() {
        let pod = json!({"spec": {"nodeName": "a"}, "status": {"phase": "Running"}});
        for (selector, fits) in [
            ("", true),
            ("spec.nodeName=a", true),
            ("spec.nodeName==a", true),
            ("spec.nodeName!=a", false),
            ("status.podIP!=", false),
            ("status.podIP=", true),
            ("spec.hostNetwork=false,status.phase!=Failed", true),
        ] {
            assert_eq!(matches(selector, &pod), fits, "{selector}");
        }
    }
}
