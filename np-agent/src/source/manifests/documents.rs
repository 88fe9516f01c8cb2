//! Where the documents of a file begin and end, found before any parser sees them: a broken
//! document hides no other one, and a file of any size is read in pieces.
//!
//! A line that begins with `---` ends a document wherever it stands: YAML lets no scalar, quoted
//! or not, contain one. Of a large document that may be a list, the places of its items are noted
//! as well, by indentation ([`block`](super::block)) or by brackets ([`brackets`](super::brackets)).
//! Nothing but these places is kept of the text.

use std::io::{self, BufRead, Read};

use super::block::Block;
use super::brackets::{Brackets, Object};
use super::tree::Place;

/// One document of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Document {
    pub start: Mark,
    pub end: u64,
    /// Only of a large document.
    pub items: Option<Items>,
}

/// A byte of the file and the place that a user finds it at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub offset: u64,
    pub place: Place,
}

/// The items of a list. Each ends where the next one begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Items {
    pub json: bool,
    pub starts: Vec<Mark>,
    /// Where the last one ends.
    pub tail: Mark,
}

/// What is read of a line at once. Whatever tells documents apart stands at a line's begin.
const FRAGMENT: u64 = 64 << 10;

/// All documents that hold anything but comments. Those up to `small` bytes are not looked into.
pub(super) fn scan(mut input: impl BufRead, small: u64) -> io::Result<Vec<Document>> {
    let mut scan = Scan {
        small,
        documents: Vec::new(),
        here: Mark { offset: 0, place: Place { line: 1, column: 1 } },
        document: Open::at(Mark { offset: 0, place: Place { line: 1, column: 1 } }),
    };
    let mut fragment = Vec::new();
    let mut begins = true;
    while input.by_ref().take(FRAGMENT).read_until(b'\n', &mut fragment)? > 0 {
        if begins {
            scan.line(&fragment);
        } else {
            scan.rest_of_line(&fragment);
        }
        begins = fragment.ends_with(b"\n");
        fragment.clear();
    }
    scan.close();
    Ok(scan.documents)
}

/// The mark that begins a UTF-8 file on other systems. Joined files have it before any document.
const BOM: &[u8] = b"\xef\xbb\xbf";

struct Scan {
    small: u64,
    documents: Vec<Document>,
    here: Mark,
    document: Open,
}

/// A document whose end is not found yet.
struct Open {
    start: Mark,
    /// It holds more than comments.
    content: bool,
    /// Directives (`%YAML 1.2`) belong to the document that the next marker opens.
    directives: bool,
    block: Block,
    /// None once it is known not to be JSON.
    brackets: Option<Brackets>,
    /// The line being read is white space and a comment so far.
    comment: bool,
}

impl Open {
    fn at(start: Mark) -> Self {
        let brackets = Some(Brackets::default());
        let block = Block::default();
        Self { start, content: false, directives: false, block, brackets, comment: false }
    }
}

impl Scan {
    fn line(&mut self, line: &[u8]) {
        let text = line.strip_prefix(BOM).unwrap_or(line);
        if let Some(rest) = marker(text, b"---") {
            if self.document.content || !self.document.directives {
                self.close();
                self.document = Open::at(self.here);
            }
            self.document.directives = false;
            if blank(rest) {
                self.document.comment = comment(rest);
                let plain = self.document.start == self.here;
                self.advance(line);
                if plain {
                    self.document.start = self.here;
                }
                return;
            }
            self.document.content = true;
            self.document.block = Block::Other;
            self.document.brackets = None;
        } else if marker(text, b"...").is_some() {
            self.advance(line);
            self.close();
            self.document = Open::at(self.here);
            return;
        } else if text.starts_with(b"%") && !self.document.content {
            self.document.directives = true;
            self.document.brackets = None;
        } else if !blank(text) {
            self.document.content = true;
            self.document.block.line(text.trim_ascii_end(), self.here);
            self.feed(line);
        } else if self.document.content {
            self.feed(line);
        } else if comment(text) {
            // That makes it YAML.
            self.document.brackets = None;
        }
        self.document.comment = comment(text);
        self.advance(line);
    }

    fn rest_of_line(&mut self, fragment: &[u8]) {
        if self.document.content {
            self.feed(fragment);
        } else if !self.document.comment && !fragment.trim_ascii().is_empty() {
            // More white space than anybody looks through.
            self.document.content = true;
            self.document.block = Block::Other;
            self.document.brackets = None;
        }
        self.advance(fragment);
    }

    fn feed(&mut self, bytes: &[u8]) {
        let text = bytes.strip_prefix(BOM).unwrap_or(bytes);
        let (mark, _) = bytes.split_at(bytes.len() - text.len());
        if let Some(brackets) = &mut self.document.brackets
            && !brackets.read(text, self.here.behind(mark))
        {
            self.document.brackets = None;
        }
    }

    fn advance(&mut self, bytes: &[u8]) {
        self.here = self.here.behind(bytes);
    }

    /// Ends the document here.
    fn close(&mut self) {
        let Mark { offset: end, .. } = self.here;
        let document = std::mem::replace(&mut self.document, Open::at(self.here));
        let Open { start, content, directives: _, block, brackets, comment: _ } = document;
        if !content {
            return;
        }
        if end - start.offset <= self.small {
            return self.documents.push(Document { start, end, items: None });
        }
        match brackets.and_then(Brackets::objects) {
            Some(objects) => self.documents.extend(objects.into_iter().map(|object| {
                let Object { start, end, items } = object;
                let items = items.filter(|_| end - start.offset > self.small);
                Document { start, end, items }
            })),
            None => {
                let items = block.items(self.here);
                self.documents.push(Document { start, end, items });
            }
        }
    }
}

impl Mark {
    /// The place behind some bytes that stand here.
    pub fn behind(self, bytes: &[u8]) -> Self {
        let Self { offset, place: Place { line, column } } = self;
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        let last = bytes.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        // Bytes that go on a character of UTF-8 take no column.
        let columns = number(last.iter().filter(|byte| **byte & 0xc0 != 0x80).count());
        let from = if lines == 0 { column } else { 1 };
        Self {
            offset: offset + bytes.len() as u64,
            place: Place {
                line: line.saturating_add(number(lines)),
                column: from.saturating_add(columns),
            },
        }
    }
}

/// Without the byte-order marks before what the document says.
pub(super) fn without_marks(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut prologue = true;
    for line in text.split_inclusive('\n') {
        let bare = line.trim_start_matches('\u{feff}');
        clean.push_str(if prologue { bare } else { line });
        let bytes = bare.as_bytes();
        prologue &= blank(bytes) || bare.starts_with('%') || marker(bytes, b"---").is_some();
    }
    clean
}

/// What follows the marker on its line.
fn marker<'a>(line: &'a [u8], marker: &[u8]) -> Option<&'a [u8]> {
    let rest = line.strip_prefix(marker)?;
    rest.first().is_none_or(u8::is_ascii_whitespace).then_some(rest)
}

fn comment(text: &[u8]) -> bool {
    text.trim_ascii_start().starts_with(b"#")
}

/// Nothing but white space or a comment. A tab is content: the parser has to judge it.
pub(super) fn blank(text: &[u8]) -> bool {
    let rest = text.trim_ascii();
    rest.is_empty() || rest.starts_with(b"#")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<(u32, &str)> {
        let documents = scan(text.as_bytes(), u64::MAX).unwrap();
        let shown = |document: &Document| {
            let start = usize::try_from(document.start.offset).unwrap();
            let end = usize::try_from(document.end).unwrap();
            assert_eq!(document.start.place.column, 1);
            (document.start.place.line, text.get(start..end).unwrap())
        };
        documents.iter().map(shown).collect()
    }

    #[test]
    fn documents_end_at_markers_and_know_their_lines() {
        assert_eq!(
            texts("a: 1\n---\nb: 2\n--- # c\nc: 3"),
            [(1, "a: 1\n"), (3, "b: 2\n"), (5, "c: 3")]
        );
        assert_eq!(texts("a: 1\n...\nb: 2\n"), [(1, "a: 1\n...\n"), (3, "b: 2\n")]);
        assert_eq!(texts("--- {a: 1}\n--- {b: 1}\n"), [(1, "--- {a: 1}\n"), (2, "--- {b: 1}\n")]);
    }

    #[test]
    fn empty_documents_are_no_documents() {
        assert_eq!(texts(""), []);
        assert_eq!(texts("\u{feff}\n# nothing\n---\n\n---\n"), []);
    }

    #[test]
    fn directives_stay_with_their_document() {
        assert_eq!(texts("%YAML 1.2\n---\na: 1\n"), [(1, "%YAML 1.2\n---\na: 1\n")]);
    }

    #[test]
    fn longer_dashes_are_no_marker() {
        assert_eq!(texts("a: |\n  ---\n----\n").len(), 1);
    }

    #[test]
    fn a_byte_order_mark_may_stand_before_any_document() {
        assert_eq!(texts("\u{feff}---\na: 1\n---\n\u{feff}b: 2\n\u{feff}---\nc: 3\n").len(), 3);
        for (text, clean) in [
            ("\u{feff}a: 1\n", "a: 1\n"),
            ("# c\n\n\u{feff}a: \u{feff}\n\u{feff}b: 1", "# c\n\na: \u{feff}\n\u{feff}b: 1"),
            ("%YAML 1.2\n\u{feff}---\n\u{feff}{}", "%YAML 1.2\n---\n{}"),
        ] {
            assert_eq!(without_marks(text), clean);
        }
    }

    #[test]
    fn a_line_of_any_length_is_one_line() {
        let long = format!("a: {}\n---\nb: 1\n", "x".repeat(300_000));
        assert_eq!(texts(&long).len(), 2);
        assert_eq!(texts(&long)[1], (3, "b: 1\n"));
        assert_eq!(texts(&format!("{}x\n---\n", " ".repeat(300_000))).len(), 1);
        assert_eq!(texts(&format!("#{}x\n---\n", " ".repeat(300_000))).len(), 0);
    }
}
