//! A document as kubectl means it: the types of unquoted scalars, and merge keys.
//!
//! kubectl assigns a mapping's fields in the order of the text. A merge key assigns the fields of
//! its mapping there and then: it overrides what stands before it, and what stands behind
//! overrides it. Of a list of mappings the first has the last word. (YAML's own definition lets a
//! field win over a merge key wherever the two stand.)

use std::collections::{BTreeMap, BTreeSet};

use super::plain::Plain;
use super::tree::{Entry, Node, Place, Syntax, Value};

/// `text` is what the node was parsed from.
pub(super) fn settle(node: &mut Node, text: &str) -> Result<(), Syntax> {
    if let Some(plain) = unquoted(text, node.bytes) {
        scalar(&mut node.value, plain);
    }
    match &mut node.value {
        Value::List(items) => items.iter_mut().try_for_each(|item| settle(item, text)),
        Value::Map(entries) => {
            let mut merges = false;
            for entry in entries.iter_mut() {
                settle(&mut entry.value, text)?;
                if let Some(written) = unquoted(text, entry.bytes) {
                    if entry.key.is_empty() {
                        written.clone_into(&mut entry.key);
                    }
                    entry.plain = Plain::of(&entry.key);
                    merges |= entry.key == MERGE;
                }
            }
            if merges {
                *entries = merged(std::mem::take(entries), text)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

const MERGE: &str = "<<";

/// What stands at a scalar's place, unless it is quoted, a block, or has a tag that says its type.
fn unquoted(text: &str, (start, end): (usize, usize)) -> Option<&str> {
    let mut written = text.get(start..end)?.trim();
    while written.starts_with('&') {
        written = written.split_once(char::is_whitespace).map_or("", |(_, rest)| rest.trim_start());
    }
    (!written.starts_with(['"', '\'', '|', '>', '!'])).then_some(written)
}

/// Gives an unquoted scalar the type that kubectl gives it.
fn scalar(value: &mut Value, written: &str) {
    let plain = match value {
        Value::List(_) | Value::Map(_) => return,
        // An absent value has no text of its own.
        Value::Null if !written.eq_ignore_ascii_case("null") => return,
        Value::Text(text) => Plain::of(text),
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Number => Plain::of(written),
    };
    match (plain, &*value) {
        (Plain::Text, Value::Text(_)) => {}
        (Plain::Text, _) => *value = Value::Text(written.to_owned()),
        (Plain::Null, _) => *value = Value::Null,
        (Plain::Bool(truth), _) => *value = Value::Bool(truth),
        // Readers disagree about 010 and 1_0: no field that needs a number takes such a one.
        (Plain::Number, Value::Integer(number)) if number.to_string() == written => {}
        (Plain::Number, _) => *value = Value::Number,
    }
}

fn merged(entries: Vec<Entry>, text: &str) -> Result<Vec<Entry>, Syntax> {
    let mut fields = Assigned::default();
    for entry in entries {
        if entry.key != MERGE || unquoted(text, entry.bytes).is_none() {
            fields.assign(entry, true);
            continue;
        }
        let mappings = match entry.value.value {
            Value::Map(mapping) => vec![mapping],
            Value::List(items) => items
                .into_iter()
                .rev()
                .map(|item| match item.value {
                    Value::Map(mapping) => Ok(mapping),
                    _ => Err(no_mapping(item.place)),
                })
                .collect::<Result<_, _>>()?,
            _ => return Err(no_mapping(entry.place)),
        };
        for mapping in mappings {
            fields.merge(mapping);
        }
    }
    Ok(fields.entries)
}

fn no_mapping(place: Place) -> Syntax {
    Syntax {
        place: Some(place),
        problem: "\"<<\" merges fields, and this has none".to_owned(),
        remedy: Some("give \"<<\" an alias of a group of fields, or a list of such aliases"),
    }
}

#[derive(Default)]
struct Assigned {
    entries: Vec<Entry>,
    /// Where each field stands, and whether the mapping itself gave it last.
    slots: BTreeMap<String, (usize, bool)>,
}

impl Assigned {
    fn merge(&mut self, mapping: Vec<Entry>) {
        // A field that the merged mapping has twice stays twice, to be refused.
        let mut here = BTreeSet::new();
        for entry in mapping {
            let first = here.insert(entry.key.clone());
            if first { self.assign(entry, false) } else { self.entries.push(entry) }
        }
    }

    fn assign(&mut self, entry: Entry, own: bool) {
        match self.slots.get_mut(&entry.key) {
            Some((_, was_own)) if own && *was_own => self.entries.push(entry),
            Some((slot, was_own)) => {
                *was_own = own;
                self.entries[*slot] = entry;
            }
            None => {
                self.slots.insert(entry.key.clone(), (self.entries.len(), own));
                self.entries.push(entry);
            }
        }
    }
}
