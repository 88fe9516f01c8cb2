//! A document as nodes that know their place, so that every later complaint can name one.
//!
//! Types are the ones that kubectl infers ([`Plain`]): a plain `1` is an integer and `on` is true,
//! also where a label was meant, and both are refused there as the API server refuses them. A key
//! given twice stays in the tree twice.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Error, Location, MessageFormatter, Spanned, UserMessageFormatter};

use super::plain::Plain;
use super::{json, settle};

/// A place in a document's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub line: u32,
    pub column: u32,
}

#[derive(Debug)]
pub(super) struct Node {
    pub place: Place,
    /// Where the scalar stands in the text, to show it as written.
    pub bytes: (usize, usize),
    pub value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    /// A number that is no integer, or too large to be one here.
    Number,
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug)]
pub(super) struct Entry {
    pub key: String,
    pub place: Place,
    /// What kubectl takes the key for; text when it is quoted.
    pub plain: Plain,
    /// Where the key stands in the text.
    pub bytes: (usize, usize),
    pub value: Node,
}

/// Why a text is no document.
#[derive(Debug)]
pub(super) struct Syntax {
    pub place: Option<Place>,
    pub problem: String,
    /// None when only the text around the place can tell.
    pub remedy: Option<&'static str>,
}

/// Deepest nesting. Kubernetes objects stay below 20, except schemas in custom resources.
pub(super) const DEEPEST: usize = 96;

/// An 8 MiB list of pods has about 500,000 nodes.
pub(super) const MOST_NODES: usize = 600_000;

/// Reads one document. Like kubectl, JSON is taken as JSON, and all other text as YAML.
pub(super) fn parse(text: &str) -> Result<Node, Syntax> {
    if let Some(read) = json::parse(text) {
        return read;
    }
    let mut node = yaml(text)?;
    settle::settle(&mut node, text)?;
    Ok(node)
}

fn yaml(text: &str) -> Result<Node, Syntax> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEEPEST,
            flow_nesting_limit: DEEPEST,
            max_nodes: MOST_NODES,
            max_events: 1_500_000,
            max_aliases: 1_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
            max_replay_stack_depth: 16,
        },
        emit_comments: false,
        // The last of two equal keys does not win: both arrive, and the reader refuses them with
        // the name of the field.
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        // Merged as kubectl does it, which is not as YAML says.
        merge_keys: MergeKeyPolicy::AsOrdinary,
        with_snippet: false,
        // To kubectl 1e400 is a string.
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| Syntax::from(&error))
}

impl Place {
    fn of(location: Location) -> Self {
        let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Self { line: number(location.line()), column: number(location.column()) }
    }
}

impl From<&Error> for Syntax {
    fn from(error: &Error) -> Self {
        let place = error.location().filter(|location| *location != Location::UNKNOWN);
        let problem = UserMessageFormatter.format_message(error.without_snippet());
        let problem = problem.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self { place: place.map(Place::of), problem, remedy: None }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, defined } = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { place: Place::of(referenced), bytes: bytes(defined), value })
    }
}

fn bytes(location: Location) -> (usize, usize) {
    let span = location.span();
    let byte = |n: Option<u64>| n.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let start = byte(span.byte_offset());
    (start, start.saturating_add(byte(span.byte_len())))
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Number, Value::Integer))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Number)
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<Option<String>>>()? {
            map.push(Entry {
                place: Place::of(key.referenced),
                bytes: bytes(key.defined),
                // Until the text has been read.
                plain: Plain::Text,
                // A null is a key like any other in the text.
                key: key.value.unwrap_or_default(),
                value: entries.next_value()?,
            });
        }
        Ok(Value::Map(map))
    }
}
