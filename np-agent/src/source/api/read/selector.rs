//! Label selectors, totally: understood to the last field, or not at all.
//!
//! Keys and values are compared as text. Stored objects may hold some that are no labels: `In`
//! then never matches and `NotIn` always does, as at the API server.

use serde_json::{Map, Value};

use super::notes::{Notes, below};
use np_policy::model::{Requirement, Selector};

/// Reads a selector; none when a part of it is not understood.
pub(super) fn selector(
    value: &Value,
    path: &str,
    counts: &'static str,
    notes: &mut Notes,
) -> Option<Selector> {
    let Some(fields) = value.as_object() else {
        notes.add(path, value, "no label selector", counts);
        return None;
    };
    let known = notes.only(path, fields, &["matchLabels", "matchExpressions"], counts);
    let labels = labels(fields, path, counts, notes);
    let expressions = expressions(fields, path, counts, notes);
    known.then_some(())?;
    Some(labels?.into_iter().chain(expressions?).collect())
}

fn labels(
    selector: &Map<String, Value>,
    path: &str,
    counts: &'static str,
    notes: &mut Notes,
) -> Option<Vec<Requirement>> {
    let value = match selector.get("matchLabels") {
        None | Some(Value::Null) => return Some(Vec::new()),
        Some(value) => value,
    };
    let path = below(path, "matchLabels");
    let Some(labels) = value.as_object() else {
        notes.add(&path, value, "no labels", counts);
        return None;
    };
    let mut requirements = Vec::new();
    let mut understood = true;
    for (key, value) in labels {
        if let Some(text) = value.as_str() {
            requirements.push(Requirement::equals(key.as_str(), text));
        } else {
            notes.add(&below(&path, key), value, "no label value", counts);
            understood = false;
        }
    }
    understood.then_some(requirements)
}

fn expressions(
    selector: &Map<String, Value>,
    path: &str,
    counts: &'static str,
    notes: &mut Notes,
) -> Option<Vec<Requirement>> {
    let value = match selector.get("matchExpressions") {
        None | Some(Value::Null) => return Some(Vec::new()),
        Some(value) => value,
    };
    let path = below(path, "matchExpressions");
    let Some(items) = value.as_array() else {
        notes.add(&path, value, "no list of expressions", counts);
        return None;
    };
    let mut requirements = Vec::new();
    let mut understood = true;
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        match expression(item, &path, counts, notes) {
            Ok(requirement) => requirements.push(requirement),
            Err(problem) => {
                if let Some(problem) = problem {
                    notes.add(&path, item, problem, counts);
                }
                understood = false;
            }
        }
    }
    understood.then_some(requirements)
}

/// Says in words what is wrong, or nothing when that is noted already.
fn expression(
    value: &Value,
    path: &str,
    counts: &'static str,
    notes: &mut Notes,
) -> Result<Requirement, Option<String>> {
    let Some(fields) = value.as_object() else {
        return Err(Some("no expression".to_owned()));
    };
    if !notes.only(path, fields, &["key", "operator", "values"], counts) {
        return Err(None);
    }
    let Some(key) = fields.get("key").and_then(Value::as_str) else {
        return Err(Some("an expression without a key".to_owned()));
    };
    let values: Option<Vec<&str>> = match fields.get("values") {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(values)) => values.iter().map(Value::as_str).collect(),
        Some(_) => None,
    };
    let Some(values) = values else {
        return Err(Some("values that are no list of strings".to_owned()));
    };
    let operator = fields.get("operator").and_then(Value::as_str).unwrap_or_default();
    let key = key.into();
    match (operator, values.is_empty()) {
        ("In", false) => Ok(Requirement::In(key, values.into_iter().collect())),
        ("NotIn", false) => Ok(Requirement::NotIn(key, values.into_iter().collect())),
        ("Exists", true) => Ok(Requirement::Exists(key)),
        ("DoesNotExist", true) => Ok(Requirement::DoesNotExist(key)),
        ("In" | "NotIn", true) => Err(Some(format!("operator {operator} without values"))),
        ("Exists" | "DoesNotExist", false) => Err(Some(format!("operator {operator} with values"))),
        _ => Err(Some("an operator that this np-agent does not know".to_owned())),
    }
}
