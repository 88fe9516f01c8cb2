//! JSON as nodes that know their place.
//!
//! Separate from YAML, which reads most JSON but not all: not a tab in the indentation, and not the
//! two halves of a character that JSON escapes by pairs.

use serde::de::IgnoredAny;

use super::plain::Plain;
use super::tree::{DEEPEST, Entry, MOST_NODES, Node, Place, Syntax, Value};

/// Reads a text that is one JSON object or list; none when it is not.
pub(super) fn parse(text: &str) -> Option<Result<Node, Syntax>> {
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    // What is valid is then only walked through.
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    let mut walk = Walk { text, at: 0, place: Place { line: 1, column: 1 }, nodes: 0 };
    Some(walk.value(0))
}

struct Walk<'a> {
    text: &'a str,
    at: usize,
    place: Place,
    nodes: usize,
}

impl<'a> Walk<'a> {
    fn value(&mut self, depth: usize) -> Result<Node, Syntax> {
        self.nodes += 1;
        if depth > DEEPEST || self.nodes > MOST_NODES {
            return Err(self.syntax(format!(
                "more than {DEEPEST} levels or {MOST_NODES} values in one object"
            )));
        }
        let first = self.peek();
        let (place, start) = (self.place, self.at);
        let value = match first {
            Some(b'{') => {
                let mut entries = Vec::new();
                self.skip(1);
                while let Some(b'"') = self.peek_behind(b',') {
                    let (place, start) = (self.place, self.at);
                    let key = self.string()?;
                    let bytes = (start, self.at);
                    self.peek_behind(b':');
                    let value = self.value(depth + 1)?;
                    entries.push(Entry { key, place, plain: Plain::Text, bytes, value });
                }
                self.skip(1);
                Value::Map(entries)
            }
            Some(b'[') => {
                let mut items = Vec::new();
                self.skip(1);
                while self.peek_behind(b',').is_some_and(|byte| byte != b']') {
                    items.push(self.value(depth + 1)?);
                }
                self.skip(1);
                Value::List(items)
            }
            Some(b'"') => Value::Text(self.string()?),
            _ => match self.word() {
                "null" => Value::Null,
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                number => number.parse().map_or(Value::Number, Value::Integer),
            },
        };
        Ok(Node { place, bytes: (start, self.at), value })
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.as_bytes().get(self.at)?;
            match byte {
                b'\n' => {
                    self.at += 1;
                    self.place = Place { line: self.place.line.saturating_add(1), column: 1 };
                }
                b' ' | b'\t' | b'\r' => self.skip(1),
                _ => return Some(byte),
            }
        }
    }

    /// The next byte behind a separator, which may be absent.
    fn peek_behind(&mut self, separator: u8) -> Option<u8> {
        if self.peek() == Some(separator) {
            self.skip(1);
        }
        self.peek()
    }

    /// Passes over bytes of one line.
    fn skip(&mut self, bytes: usize) {
        let end = (self.at + bytes).min(self.text.len());
        let characters = self.text.get(self.at..end).unwrap_or_default().chars().count();
        let columns = u32::try_from(characters).unwrap_or(u32::MAX);
        self.place.column = self.place.column.saturating_add(columns);
        self.at = end;
    }

    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let ends = |c: char| c.is_ascii_whitespace() || matches!(c, ',' | ']' | '}');
        // Something, so that a walk always ends.
        let end = rest.find(ends).unwrap_or(rest.len()).max(1);
        self.skip(end);
        rest.get(..end).unwrap_or_default()
    }

    fn string(&mut self) -> Result<String, Syntax> {
        let rest = self.rest();
        let mut end = 1;
        let bytes = rest.as_bytes();
        while let Some(byte) = bytes.get(end).filter(|byte| **byte != b'"') {
            end += if *byte == b'\\' { 2 } else { 1 };
        }
        let written = rest.get(..=end).unwrap_or_default();
        let plain = written.get(1..end).filter(|text| !text.contains('\\'));
        let text = match plain {
            Some(text) => text.to_owned(),
            // Half a character is found only here.
            None => serde_json::from_str(written)
                .map_err(|error| self.syntax(format!("not a JSON string: {error}")))?,
        };
        self.skip(end + 1);
        Ok(text)
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn syntax(&self, problem: String) -> Syntax {
        Syntax { place: Some(self.place), problem, remedy: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "1:2 {a: …}", with the place of every value and key.
    fn shown(node: &Node) -> String {
        let Place { line, column } = node.place;
        let value = match &node.value {
            Value::Null => "null".to_owned(),
            Value::Bool(truth) => truth.to_string(),
            Value::Integer(number) => number.to_string(),
            Value::Number => "number".to_owned(),
            Value::Text(text) => format!("{text:?}"),
            Value::List(items) => {
                format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", "))
            }
            Value::Map(entries) => {
                let entry = |entry: &Entry| {
                    let Place { line, column } = entry.place;
                    format!("{line}:{column} {}={}", entry.key, shown(&entry.value))
                };
                format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
            }
        };
        format!("{line}:{column} {value}")
    }

    #[test]
    fn json_is_read_with_its_places() {
        let text =
            "\n{\t\"é\": [1, -2.5, true ,null],\r\n\t\"b\\/\\ud83d\\ude00\":{} , \"b\":\"\"}";
        let node = parse(text).unwrap().unwrap();
        assert_eq!(
            shown(&node),
            "2:1 {2:3 é=2:8 [2:9 1, 2:12 number, 2:18 true, 2:24 null], \
             3:2 b/😀=3:20 {}, 3:25 b=3:29 \"\"}"
        );
    }

    #[test]
    fn what_is_not_json_is_left_to_yaml() {
        for text in ["{a: 1}", "{\"a\": 1} x", "{'a': 1}", "- 1", "{\"a\": 1,}", ""] {
            assert!(parse(text).is_none(), "{text}");
        }
        assert!(parse("{\"a\": \"\\ud83d\"}").is_none_or(|read| read.is_err()));
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(&deep(90)).unwrap().is_ok());
        assert!(parse(&deep(200)).is_none_or(|read| read.is_err()));
        assert!(parse(&deep(1_000_000)).is_none_or(|read| read.is_err()));
        assert!(parse(&format!("[{}1]", "1,".repeat(700_000))).unwrap().is_err());
    }
}
