//! JSON into a tree that has only what the agent reads of an object.
//!
//! A pod of 12 KB has a few hundred bytes that policy knows. What is not kept is passed over in
//! the text and never held.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// What to keep of a value.
#[derive(Debug)]
pub(super) enum Keep {
    Whole,
    /// Of a group of fields those with these names.
    Fields(&'static [(&'static str, Keep)]),
    /// Of a group of fields all, and of these no more than is said.
    AllButPartly(&'static [(&'static str, Keep)]),
    /// The same of every item of a list.
    Items(&'static Keep),
}

/// No field of the API is nested as deep, and a parser recurses.
const DEEPEST: u8 = 24;

/// Reads a text. What is nested deeper than any field of the API is null.
pub(super) fn read(text: &str, keep: &Keep) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Part { keep, depth: 0 }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

#[derive(Clone, Copy)]
struct Part<'k> {
    keep: &'k Keep,
    depth: u8,
}

impl<'k> Part<'k> {
    fn below(self, keep: &'k Keep) -> Self {
        Self { keep, depth: self.depth + 1 }
    }

    /// What to keep of a field, if anything.
    fn field(self, name: &str) -> Option<Self> {
        let of = |fields: &'k [(&str, Keep)]| {
            fields.iter().find(|(field, _)| *field == name).map(|(_, keep)| keep)
        };
        match self.keep {
            Keep::Whole => Some(self.below(&Keep::Whole)),
            Keep::Fields(fields) => of(fields).map(|keep| self.below(keep)),
            Keep::AllButPartly(fields) => Some(self.below(of(fields).unwrap_or(&Keep::Whole))),
            Keep::Items(_) => None,
        }
    }

    /// What to keep of the items of a list, if anything.
    fn item(self) -> Option<Self> {
        match self.keep {
            Keep::Whole => Some(self.below(&Keep::Whole)),
            Keep::Items(keep) => Some(self.below(keep)),
            Keep::Fields(_) | Keep::AllButPartly(_) => None,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Part<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.depth > DEEPEST {
            IgnoredAny::deserialize_in(deserializer)?;
            return Ok(Value::Null);
        }
        deserializer.deserialize_any(self)
    }
}

trait DeserializeIn: Sized {
    fn deserialize_in<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

impl DeserializeIn for IgnoredAny {
    fn deserialize_in<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::Deserialize::deserialize(deserializer)
    }
}

impl<'de> Visitor<'de> for Part<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        let Some(item) = self.item() else {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(Value::Array(list));
        };
        while let Some(value) = items.next_element_seed(item)? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            match self.field(&key) {
                Some(part) => {
                    let value = entries.next_value_seed(part)?;
                    map.insert(key, value);
                }
                None => {
                    entries.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NAMES: Keep = Keep::Fields(&[(
        "spec",
        Keep::Fields(&[("ports", Keep::Items(&Keep::Fields(&[("name", Keep::Whole)])))]),
    )]);

    fn kept(value: &Value) -> Value {
        read(&value.to_string(), &NAMES).expect("it is JSON")
    }

    #[test]
    fn only_what_is_asked_for_is_kept() {
        let pod = json!({"kind": "Pod", "spec": {"image": "x", "ports": [
            {"name": "a", "port": 1}, {"port": 2}]}});
        assert_eq!(kept(&pod), json!({"spec": {"ports": [{"name": "a"}, {}]}}));
    }

    #[test]
    fn a_value_of_another_shape_is_no_fault() {
        for (odd, expected) in [
            (json!({"spec": 7}), json!({"spec": 7})),
            (json!({"spec": [1, {}]}), json!({"spec": []})),
            (json!({"spec": {"ports": {"name": 1}}}), json!({"spec": {"ports": {}}})),
            (json!({"spec": {"ports": ["a", null]}}), json!({"spec": {"ports": ["a", null]}})),
            (json!(null), json!(null)),
        ] {
            assert_eq!(kept(&odd), expected, "{odd}");
        }
    }

    #[test]
    fn nesting_has_an_end_and_costs_no_stack() {
        let text = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        let mut value = &read(&text, &Keep::Whole).expect("it is JSON");
        let mut depth = 0;
        while let Value::Array(items) = value {
            value = &items[0];
            depth += 1;
        }
        assert_eq!((depth, value), (usize::from(DEEPEST) + 1, &Value::Null));
    }
}
