//! How a policy that was understood is written: where its fields stand, and what the model drops.

use std::collections::BTreeMap;

use super::fields::{At, Fields, Problems, join};
use super::selector;
use super::tree::{Node, Place, Value};
use np_policy::model::Written;

/// `position` turns a place in the document into line and column of the file.
pub(super) fn read(object: &Fields<'_>, position: impl Fn(Place) -> (u32, u32)) -> Written {
    let mut written = Written::default();
    let Some(At { node, .. }) = object.get("spec") else { return written };
    // Paths begin at the object, also for the items of a list.
    let spec = At { node, path: "spec".to_owned() };
    places(&spec, &position, &mut written.places);
    let Value::Map(entries) = &node.value else { return written };
    let spec = Fields { at: spec, entries };
    let items = |name: &str| match &spec.entries.iter().find(|entry| entry.key == name)?.value {
        Node { value: Value::List(items), .. } => Some(items.len()),
        _ => Some(0),
    };
    written.policy_types = items("policyTypes").is_some_and(|types| types > 0);
    written.ingress = items("ingress");
    written.egress = items("egress");
    repeated(&spec.at, &mut written.repeated);
    written
}

fn places(
    at: &At<'_>,
    position: &impl Fn(Place) -> (u32, u32),
    into: &mut BTreeMap<String, (u32, u32)>,
) {
    into.insert(at.path.clone(), position(at.node.place));
    each_below(at, |below| places(&below, position, into));
}

/// Finds the selectors, and in each the requirements that stand there already.
fn repeated(at: &At<'_>, into: &mut Vec<String>) {
    if !at.path.ends_with("Selector") {
        return each_below(at, |below| repeated(&below, into));
    }
    let mut problems = Problems::new("");
    let Ok(requirements) = selector::requirements(at, &mut problems) else { return };
    for (number, (field, requirement)) in requirements.iter().enumerate() {
        if requirements[..number].iter().any(|(_, earlier)| earlier == requirement) {
            into.push(field.clone());
        }
    }
}

fn each_below<'n>(at: &At<'n>, mut visit: impl FnMut(At<'n>)) {
    match &at.node.value {
        Value::Map(entries) => {
            for entry in entries {
                visit(At { node: &entry.value, path: join(&at.path, &entry.key) });
            }
        }
        Value::List(items) => {
            for (index, node) in items.iter().enumerate() {
                visit(At { node, path: format!("{}[{index}]", at.path) });
            }
        }
        _ => {}
    }
}
