//! What is not understood of an object, while it is read.

use serde_json::{Map, Value};

use crate::source::invalid::shortened;
use crate::source::narrowed::Narrowed;

/// What was not understood of one object.
#[derive(Debug, Default)]
pub(in crate::source::api) struct Notes {
    notes: Vec<Note>,
    more: usize,
}

#[derive(Debug)]
struct Note {
    field: String,
    value: String,
    problem: String,
    counts: &'static str,
    remedy: &'static str,
}

/// More than a user reads about one object.
const MOST: usize = 20;

const REMEDY: &str =
    "correct it, or if the API server is newer than np-agent, upgrade np-agent and check again";

impl Notes {
    /// Notes that a value is not understood, and what counts instead.
    pub fn add(
        &mut self,
        field: &str,
        value: &Value,
        problem: impl Into<String>,
        counts: &'static str,
    ) {
        if self.notes.len() == MOST {
            self.more += 1;
            return;
        }
        let (field, value) = (field.to_owned(), shown(value));
        self.notes.push(Note { field, value, problem: problem.into(), counts, remedy: REMEDY });
    }

    /// Notes every field that is not among those known. False if there is one.
    pub fn only(
        &mut self,
        path: &str,
        fields: &Map<String, Value>,
        known: &[&str],
        counts: &'static str,
    ) -> bool {
        let unknown = fields.iter().filter(|(key, _)| !known.contains(&key.as_str()));
        let mut all_known = true;
        for (key, value) in unknown {
            let field = below(path, &shortened(key));
            self.add(&field, value, "no field that this np-agent knows", counts);
            all_known = false;
        }
        all_known
    }

    pub fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }

    /// Says of which object all this is.
    pub fn of(self, object: &str, resource_version: &str) -> Vec<Narrowed> {
        let told = |note: Note| Narrowed {
            object: object.to_owned(),
            resource_version: resource_version.to_owned(),
            field: note.field,
            value: note.value,
            problem: note.problem,
            counts: note.counts.to_owned(),
            remedy: note.remedy.to_owned(),
        };
        let mut told: Vec<Narrowed> = self.notes.into_iter().map(told).collect();
        if let (Some(last), true) = (told.last_mut(), self.more > 0) {
            last.problem =
                format!("{} (and {} more parts of this object)", last.problem, self.more);
        }
        told
    }
}

/// "spec.ingress" below which "from" is "spec.ingress.from".
pub(super) fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => shortened(text),
        Value::Array(items) if !items.is_empty() => "[…]".to_owned(),
        Value::Object(fields) if !fields.is_empty() => {
            let keys: Vec<&str> = fields.keys().take(4).map(String::as_str).collect();
            shortened(&format!("{{{}}}", keys.join(", ")))
        }
        other => other.to_string(),
    }
}
