//! Label selectors: `metav1.LabelSelector` into [`Selector`].
//!
//! Source of the rules: `staging/src/k8s.io/apimachinery/pkg/apis/meta/v1/validation/validation.go`
//! (`ValidateLabelSelector`) of kubernetes/kubernetes.

use super::fields::{At, Fields, Problems, Refused, all};
use super::hints;
use crate::source::names;
use np_policy::model::{Requirement, Selector, Values};

const OPERATORS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];

pub(super) fn read<'n>(at: &At<'n>, problems: &mut Problems<'n>) -> Result<Selector, Refused> {
    let requirements = requirements(at, problems)?;
    Ok(requirements.into_iter().map(|(_, requirement)| requirement).collect())
}

/// The requirements as written, each with its field: a [`Selector`] keeps neither order nor
/// repetition.
pub(super) fn requirements<'n>(
    at: &At<'n>,
    problems: &mut Problems<'n>,
) -> Result<Vec<(String, Requirement)>, Refused> {
    let selector = at.fields(problems)?;
    let known = selector.only(&["matchLabels", "matchExpressions"], problems);
    let labels = labels(&selector, problems);
    let expressions = selector.items("matchExpressions", problems).and_then(|items| {
        all(items.iter().map(|item| {
            expression(item, problems).map(|requirement| (item.path.clone(), requirement))
        }))
    });
    known?;
    let mut requirements = labels?;
    requirements.extend(expressions?);
    Ok(requirements)
}

fn labels<'n>(
    selector: &Fields<'n>,
    problems: &mut Problems<'n>,
) -> Result<Vec<(String, Requirement)>, Refused> {
    let Some(fields) = selector.fields("matchLabels", problems)? else { return Ok(Vec::new()) };
    let labels = selector.texts("matchLabels", problems)?;
    all(labels.into_iter().map(|(entry, at, value)| {
        if !names::label_key(&entry.key) {
            return Err(fields.refuse_key(entry, problems, "not a valid label", names::LABEL_KEY));
        }
        if !names::label_value(value) {
            return Err(at.refuse(problems, "not a valid label value", names::LABEL_VALUE));
        }
        Ok((at.path, Requirement::equals(entry.key.as_str(), value)))
    }))
}

fn expression<'n>(at: &At<'n>, problems: &mut Problems<'n>) -> Result<Requirement, Refused> {
    let fields = at.fields(problems)?;
    let known = fields.only(&["key", "operator", "values"], problems);
    let key = key(&fields, problems);
    let values = values(&fields, problems);
    let operator = operator(&fields, problems);
    known?;
    let (key, values, operator) = (key?, values?, operator?);
    let empty = values.is_empty();
    match operator {
        "In" | "NotIn" if empty => {
            let remedy = "list at least one value: \"values: [a, b]\"";
            let problem = format!("operator {operator} needs values");
            Err(match fields.get("values") {
                Some(at) => at.refuse(problems, problem, remedy),
                None => fields.lacking("values", problems, problem, remedy),
            })
        }
        "In" => Ok(Requirement::In(key, values)),
        "NotIn" => Ok(Requirement::NotIn(key, values)),
        _ if !empty => {
            let at = fields.get("values").unwrap_or_else(|| at.clone());
            let problem = format!("operator {operator} takes no values");
            let remedy = format!(
                "remove \"values\", or use {}",
                if operator == "Exists" { "In" } else { "NotIn" }
            );
            Err(at.refuse(problems, problem, remedy))
        }
        "Exists" => Ok(Requirement::Exists(key)),
        _ => Ok(Requirement::DoesNotExist(key)),
    }
}

fn key<'n>(fields: &Fields<'n>, problems: &mut Problems<'n>) -> Result<Box<str>, Refused> {
    let Some(at) = fields.get("key") else {
        return Err(fields.missing("key", problems, "name the label: \"key: app\""));
    };
    let key = at.text(problems)?;
    if !names::label_key(key) {
        return Err(at.refuse(problems, "not a valid label", names::LABEL_KEY));
    }
    Ok(key.into())
}

fn values<'n>(fields: &Fields<'n>, problems: &mut Problems<'n>) -> Result<Values, Refused> {
    let items = fields.items("values", problems)?;
    let values = all(items.iter().map(|at| {
        let value = at.text(problems)?;
        if !names::label_value(value) {
            return Err(at.refuse(problems, "not a valid label value", names::LABEL_VALUE));
        }
        Ok(value)
    }))?;
    Ok(values.into_iter().collect())
}

fn operator<'n>(fields: &Fields<'n>, problems: &mut Problems<'n>) -> Result<&'n str, Refused> {
    let choice = "use In, NotIn, Exists or DoesNotExist";
    let Some(at) = fields.get("operator") else {
        return Err(fields.missing("operator", problems, choice));
    };
    let operator = at.text(problems)?;
    if OPERATORS.contains(&operator) {
        return Ok(operator);
    }
    let remedy = match hints::nearest(operator, OPERATORS) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => choice.to_owned(),
    };
    Err(at.refuse(problems, "unknown operator", remedy))
}
