//! Typed, strict access to a document's nodes. Each complaint carries place, field and value.
//!
//! A [`Refused`] can only be had by complaining: a value cannot get lost without a message.

use super::hints;
use super::plain::Plain;
use super::tree::{Entry, Node, Place, Value};
use crate::source::invalid::shortened;

/// Proof that a [`Problem`] has been recorded.
#[derive(Debug)]
pub(super) struct Refused(());

#[derive(Debug)]
pub(super) struct Problem {
    pub place: Place,
    pub field: String,
    pub value: String,
    pub problem: String,
    pub remedy: String,
}

/// The complaints about one object, and the text they quote.
#[derive(Debug)]
pub(super) struct Problems<'n> {
    text: &'n str,
    pub found: Vec<Problem>,
}

impl<'n> Problems<'n> {
    /// More than a user reads about one object.
    const MOST: usize = 20;

    pub fn new(text: &'n str) -> Self {
        Self { text, found: Vec::new() }
    }

    pub fn add(&mut self, problem: Problem) -> Refused {
        if self.found.len() < Self::MOST {
            self.found.push(problem);
        }
        Refused(())
    }
}

/// A node and the path that leads to it.
#[derive(Clone, Debug)]
pub(super) struct At<'n> {
    pub node: &'n Node,
    pub path: String,
}

impl<'n> At<'n> {
    pub fn refuse(
        &self,
        problems: &mut Problems<'n>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Refused {
        let value = shown(self.node, problems.text);
        problems.add(Problem {
            place: self.node.place,
            field: self.path.clone(),
            value,
            problem: problem.into(),
            remedy: remedy.into(),
        })
    }

    pub fn text(&self, problems: &mut Problems<'n>) -> Result<&'n str, Refused> {
        match &self.node.value {
            Value::Text(text) => Ok(text),
            Value::Bool(_) | Value::Integer(_) | Value::Number => {
                let value = shown(self.node, problems.text);
                let remedy = format!("put it in quotes: \"{value}\"");
                let problem = format!("a string is needed here, this is {}", self.type_name());
                Err(self.refuse(problems, problem, remedy))
            }
            _ => Err(self.wrong_type(problems, "a string")),
        }
    }

    pub fn bool(&self, problems: &mut Problems<'n>) -> Result<bool, Refused> {
        match self.node.value {
            Value::Bool(value) => Ok(value),
            _ => Err(self.wrong_type(problems, "true or false")),
        }
    }

    /// The items of a list, with their paths. A null item is refused: in a rule it would mean
    /// "everything" where a dash was left over.
    pub fn items(&self, problems: &mut Problems<'n>) -> Result<Vec<At<'n>>, Refused> {
        let Value::List(items) = &self.node.value else {
            return Err(self.wrong_type(problems, "a list (items that begin with \"- \")"));
        };
        let item = |(index, node)| At { node, path: format!("{}[{index}]", self.path) };
        let items: Vec<_> = items.iter().enumerate().map(item).collect();
        let checked = items.into_iter().map(|item| match item.node.value {
            Value::Null => Err(item.refuse(
                problems,
                "an empty list item",
                "remove the \"-\", or indent under it what belongs to it",
            )),
            _ => Ok(item),
        });
        all(checked)
    }

    pub fn fields(&self, problems: &mut Problems<'n>) -> Result<Fields<'n>, Refused> {
        match &self.node.value {
            Value::Map(entries) => Ok(Fields { at: self.clone(), entries }),
            _ => Err(self.wrong_type(problems, "fields (\"name: value\")")),
        }
    }

    fn wrong_type(&self, problems: &mut Problems<'n>, needed: &str) -> Refused {
        let problem = format!("{needed} needed here, this is {}", self.type_name());
        let written = match &self.node.value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        };
        let remedy = hints::shape(last(&self.path), needed, written);
        self.refuse(problems, problem, remedy)
    }

    fn type_name(&self) -> &'static str {
        match self.node.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Integer(_) | Value::Number => "a number",
            Value::Text(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a group of fields",
        }
    }
}

/// The fields of one mapping.
#[derive(Clone, Debug)]
pub(super) struct Fields<'n> {
    pub at: At<'n>,
    pub entries: &'n [Entry],
}

impl<'n> Fields<'n> {
    /// A field's value; none when it is absent or null, which the API takes as the same.
    pub fn get(&self, key: &str) -> Option<At<'n>> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        let at = At { node: &entry.value, path: join(&self.at.path, key) };
        (!matches!(entry.value.value, Value::Null)).then_some(at)
    }

    pub fn text(&self, key: &str, problems: &mut Problems<'n>) -> Result<Option<&'n str>, Refused> {
        self.get(key).map(|at| at.text(problems)).transpose()
    }

    pub fn fields(
        &self,
        key: &str,
        problems: &mut Problems<'n>,
    ) -> Result<Option<Fields<'n>>, Refused> {
        self.get(key).map(|at| at.fields(problems)).transpose()
    }

    pub fn items(&self, key: &str, problems: &mut Problems<'n>) -> Result<Vec<At<'n>>, Refused> {
        self.get(key).map_or(Ok(Vec::new()), |at| at.items(problems))
    }

    /// A map of strings, such as labels.
    pub fn texts(
        &self,
        key: &str,
        problems: &mut Problems<'n>,
    ) -> Result<Vec<(&'n Entry, At<'n>, &'n str)>, Refused> {
        let Some(fields) = self.fields(key, problems)? else { return Ok(Vec::new()) };
        all(fields.entries.iter().map(|entry| {
            let path = join(&fields.at.path, &shortened(&entry.key));
            let at = At { node: &entry.value, path };
            let name = match entry.plain {
                Plain::Text => Ok(()),
                plain => {
                    let problem = format!(
                        "without quotes kubectl reads this name as {}, and the API server gets \
                         another name",
                        plain.name()
                    );
                    let remedy = format!("put the name in quotes: \"{}\":", shortened(&entry.key));
                    Err(fields.refuse_key(entry, problems, problem, remedy))
                }
            };
            let text = at.text(problems);
            name?;
            text.map(|text| (entry, at, text))
        }))
    }

    /// Refuses every field that is not of `known`.
    pub fn only(&self, known: &[&str], problems: &mut Problems<'n>) -> Result<(), Refused> {
        all(self.entries.iter().map(|entry| {
            if known.contains(&entry.key.as_str()) {
                return Ok(());
            }
            let remedy = hints::unknown(&entry.key, last(&self.at.path), known);
            let problem = format!("unknown field \"{}\"", shortened(&entry.key));
            Err(self.refuse_key(entry, problems, problem, remedy))
        }))?;
        Ok(())
    }

    pub fn refuse_key(
        &self,
        entry: &Entry,
        problems: &mut Problems<'n>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Refused {
        problems.add(Problem {
            place: entry.place,
            field: join(&self.at.path, &shortened(&entry.key)),
            value: shown(&entry.value, problems.text),
            problem: problem.into(),
            remedy: remedy.into(),
        })
    }

    /// Refuses the absence of a field.
    pub fn missing(&self, key: &str, problems: &mut Problems<'n>, remedy: &str) -> Refused {
        self.lacking(key, problems, "missing", remedy)
    }

    pub fn lacking(
        &self,
        key: &str,
        problems: &mut Problems<'n>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Refused {
        problems.add(Problem {
            place: self.at.node.place,
            field: join(&self.at.path, key),
            value: String::new(),
            problem: problem.into(),
            remedy: remedy.into(),
        })
    }

    /// Refuses every key given twice, here and below.
    pub fn no_duplicates(&self, problems: &mut Problems<'n>) -> Result<(), Refused> {
        let mut first = std::collections::BTreeMap::new();
        let own = all(self.entries.iter().map(|entry| {
            let Some(line) = first.insert(entry.key.as_str(), entry.place.line) else {
                return Ok(());
            };
            let problem = format!("\"{}\" appears twice here", shortened(&entry.key));
            let remedy = hints::twice(&entry.key, last(&self.at.path), line);
            Err(self.refuse_key(entry, problems, problem, remedy))
        }));
        let below = all(self.entries.iter().map(|entry| {
            let at = At { node: &entry.value, path: join(&self.at.path, &entry.key) };
            no_duplicates_below(at, problems)
        }));
        own.and(below).map(drop)
    }
}

fn no_duplicates_below<'n>(at: At<'n>, problems: &mut Problems<'n>) -> Result<(), Refused> {
    match &at.node.value {
        Value::Map(entries) => Fields { at: at.clone(), entries }.no_duplicates(problems),
        Value::List(items) => all(items.iter().enumerate().map(|(index, node)| {
            no_duplicates_below(At { node, path: format!("{}[{index}]", at.path) }, problems)
        }))
        .map(drop),
        _ => Ok(()),
    }
}

/// All values, or a refusal; every element is looked at, so that all complaints are heard.
pub(super) fn all<T>(results: impl Iterator<Item = Result<T, Refused>>) -> Result<Vec<T>, Refused> {
    let mut refused = None;
    let mut values = Vec::new();
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(refusal) => refused = Some(refusal),
        }
    }
    refused.map_or(Ok(values), Err)
}

/// A key with dots of its own, such as a label's, goes into brackets.
pub(super) fn join(path: &str, key: &str) -> String {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    match (path, key.chars().all(word)) {
        ("", true) => key.to_owned(),
        (_, true) => format!("{path}.{key}"),
        (_, false) => format!("{path}[{key}]"),
    }
}

/// "from" for "spec.ingress[0].from[1]".
fn last(path: &str) -> &str {
    let path = path.rsplit('.').next().unwrap_or(path);
    path.split('[').next().unwrap_or(path)
}

fn shown(node: &Node, text: &str) -> String {
    match &node.value {
        Value::Text(text) => shortened(text),
        Value::List(items) if items.is_empty() => "[]".to_owned(),
        Value::List(_) => "[…]".to_owned(),
        Value::Map(entries) => {
            let keys: Vec<_> = entries.iter().take(4).map(|entry| entry.key.as_str()).collect();
            shortened(&format!("{{{}}}", keys.join(", ")))
        }
        Value::Null => String::new(),
        Value::Bool(_) | Value::Integer(_) | Value::Number => {
            let (start, end) = node.bytes;
            shortened(text.get(start..end).unwrap_or_default().trim())
        }
    }
}
