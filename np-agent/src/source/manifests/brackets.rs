//! JSON objects one behind the other, and the items of those that are lists, found by their
//! brackets and quotes alone. Whether the pieces are JSON is for the parser.

use serde::de::IgnoredAny;

use super::documents::{Items, Mark};
use super::tree::Place;

/// An object at the top.
#[derive(Debug)]
pub(super) struct Object {
    pub start: Mark,
    pub end: u64,
    pub items: Option<Items>,
}

/// How far a text has been looked through.
#[derive(Debug, Default)]
pub(super) struct Brackets {
    objects: Vec<Object>,
    /// Of the object that is open.
    start: Option<Mark>,
    depth: usize,
    string: Option<Inside>,
    /// At the top of an object a key comes next.
    key_next: bool,
    /// The last key there, as far as it matters.
    key: Vec<u8>,
    items: List,
}

/// What a byte of a string is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    Text,
    /// Behind a backslash.
    Escaped,
}

#[derive(Debug, Default)]
enum List {
    #[default]
    None,
    Open {
        starts: Vec<Mark>,
        between: bool,
    },
    Closed {
        starts: Vec<Mark>,
        tail: Mark,
    },
    /// More than one.
    Unclear,
}

const ITEMS: &[u8] = b"items";

impl Brackets {
    /// Reads on; false when this is not a row of objects.
    pub fn read(&mut self, bytes: &[u8], mut here: Mark) -> bool {
        for byte in bytes {
            if !self.byte(*byte, here) {
                return false;
            }
            let Place { line, column } = here.place;
            here.place = match byte {
                b'\n' => Place { line: line.saturating_add(1), column: 1 },
                byte if byte & 0xc0 != 0x80 => Place { line, column: column.saturating_add(1) },
                _ => here.place,
            };
            here.offset += 1;
        }
        true
    }

    /// The objects, if all are complete.
    pub fn objects(self) -> Option<Vec<Object>> {
        (self.depth == 0 && !self.objects.is_empty()).then_some(self.objects)
    }

    fn byte(&mut self, byte: u8, here: Mark) -> bool {
        if let Some(inside) = self.string {
            self.string = match (inside, byte) {
                (Inside::Text, b'"') => None,
                (Inside::Text, b'\\') => Some(Inside::Escaped),
                _ => Some(Inside::Text),
            };
            let names = self.depth == 1 && self.key_next && self.string.is_some();
            if names && self.key.len() <= ITEMS.len() {
                self.key.push(byte);
            }
            return true;
        }
        if byte.is_ascii_whitespace() {
            return true;
        }
        if self.depth == 0 {
            if byte == b'{' {
                (self.start, self.depth, self.key_next) = (Some(here), 1, true);
            }
            return byte == b'{';
        }
        if self.depth == 2
            && let List::Open { starts, between } = &mut self.items
        {
            match byte {
                b',' => *between = true,
                b']' => {}
                _ => {
                    if std::mem::replace(between, false) {
                        starts.push(here);
                    }
                }
            }
        }
        match byte {
            b'"' => {
                self.string = Some(Inside::Text);
                if self.depth == 1 && self.key_next {
                    self.key.clear();
                }
            }
            b'{' | b'[' => self.open(byte),
            b'}' | b']' => self.close(here),
            b',' if self.depth == 1 => self.key_next = true,
            b':' if self.depth == 1 => self.key_next = false,
            _ => {}
        }
        true
    }

    fn open(&mut self, byte: u8) {
        if self.depth == 1 && !self.key_next && self.key == ITEMS && byte == b'[' {
            self.items = match self.items {
                List::None => List::Open { starts: Vec::new(), between: true },
                _ => List::Unclear,
            };
        }
        self.depth += 1;
    }

    fn close(&mut self, here: Mark) {
        if self.depth == 2 {
            self.items = match std::mem::take(&mut self.items) {
                List::Open { starts, between: _ } => List::Closed { starts, tail: here },
                other => other,
            };
        }
        self.depth -= 1;
        if self.depth > 0 {
            return;
        }
        let items = match std::mem::take(&mut self.items) {
            List::Closed { starts, tail } if !starts.is_empty() => {
                Some(Items { json: true, starts, tail })
            }
            _ => None,
        };
        if let Some(start) = self.start.take() {
            self.objects.push(Object { start, end: here.offset + 1, items });
        }
    }
}

/// Where the objects of a text that holds more than one and nothing else begin and end.
pub(super) fn split(text: &str) -> Vec<(usize, usize)> {
    if !text.trim_start().starts_with('{') {
        return Vec::new();
    }
    let mut objects = Vec::new();
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let mut start = text.len() - text.trim_start().len();
    while let Some(object) = stream.next() {
        let end = stream.byte_offset();
        if object.is_err() || !text[start..].starts_with('{') {
            return Vec::new();
        }
        objects.push((start, end));
        start = end + text[end..].len() - text[end..].trim_start().len();
    }
    if objects.len() > 1 { objects } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::super::documents::{Document, scan};
    use super::*;

    /// Each document, and each of its items with what is left between them.
    fn pieces(text: &str) -> Vec<(&str, Vec<&str>)> {
        let cut = |start: u64, end: u64| {
            text.get(usize::try_from(start).unwrap()..usize::try_from(end).unwrap()).unwrap()
        };
        let items = |items: &Items| {
            let ends = items.starts.iter().skip(1).chain([&items.tail]);
            items.starts.iter().zip(ends).map(|(a, b)| cut(a.offset, b.offset)).collect()
        };
        let piece = |document: &Document| {
            let found = document.items.as_ref().map_or(Vec::new(), items);
            (cut(document.start.offset, document.end), found)
        };
        scan(text.as_bytes(), 0).unwrap().iter().map(piece).collect()
    }

    #[test]
    fn objects_and_the_items_of_lists_are_distinguished() {
        let list = r#"{"a":{"items":[0]},"items":[{"b":"],{\""} , {},"c"], "d":[1]}"#;
        assert_eq!(
            pieces(&format!("{list}{{}}\n{{\"items\":[]}}")),
            [
                (list, vec![r#"{"b":"],{\""} , "#, "{},", "\"c\""]),
                ("{}", vec![]),
                ("{\"items\":[]}", vec![]),
            ]
        );
    }

    #[test]
    fn what_is_not_a_row_of_objects_is_left_whole() {
        for text in ["{} x", "{}, {}", "[{}]", "{", "{\"a", "{\"items\":[1],\"items\":[2]}"] {
            assert_eq!(pieces(text), [(text, vec![])], "{text}");
        }
    }

    #[test]
    fn places_are_counted_in_characters() {
        let documents = scan("{\n\"é\": 1, \"items\": [7,\n 8]}".as_bytes(), 0).unwrap();
        let items = documents[0].items.as_ref().unwrap();
        let places: Vec<_> = items.starts.iter().map(|m| (m.place.line, m.place.column)).collect();
        assert_eq!(places, [(2, 19), (3, 2)]);
    }
}
