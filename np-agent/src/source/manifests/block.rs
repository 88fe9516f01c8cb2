//! The items of a list in YAML's block style, found by their indentation alone.
//!
//! ```text
//! apiVersion: v1
//! items:
//! - apiVersion: v1     every "- " in the column of the first one begins an item, and the
//!   kind: Pod          first line to its left that is no item ends the list
//! kind: List
//! ```
//!
//! That is how kubectl prints a list. What the pieces say is for the parser: a text that only
//! looks like a list gives pieces that it refuses.

use super::documents::{Items, Mark, blank};

/// How far the lines of a document have been looked through.
#[derive(Debug, Default)]
pub(super) enum Block {
    #[default]
    Head,
    /// `items:` has been read.
    Opened,
    Items {
        indent: usize,
        starts: Vec<Mark>,
    },
    Tail {
        starts: Vec<Mark>,
        tail: Mark,
    },
    /// No such list.
    Other,
}

impl Block {
    /// Reads a line that is neither empty nor a comment.
    pub fn line(&mut self, line: &[u8], mark: Mark) {
        let indent = line.iter().take_while(|byte| **byte == b' ').count();
        let text = &line[indent..];
        let opens = indent == 0 && text.starts_with(b"items:");
        let item = text == b"-" || text.starts_with(b"- ");
        let tab = text.starts_with(b"\t");
        *self = match (std::mem::take(self), opens, item) {
            (Block::Head, true, _) if blank(&text[b"items:".len()..]) => Block::Opened,
            (Block::Head, false, _) => Block::Head,
            (Block::Opened, _, true) => Block::Items { indent, starts: vec![mark] },
            (Block::Items { indent: column, mut starts }, _, true) if indent == column => {
                starts.push(mark);
                Block::Items { indent, starts }
            }
            (Block::Items { indent: column, starts }, ..) if indent > column => {
                Block::Items { indent: column, starts }
            }
            (Block::Items { starts, .. }, false, _) if indent == 0 && !tab => {
                Block::Tail { starts, tail: mark }
            }
            (Block::Tail { starts, tail }, false, _) => Block::Tail { starts, tail },
            _ => Block::Other,
        };
    }

    /// The items, in a document that ends here.
    pub fn items(self, end: Mark) -> Option<Items> {
        let (starts, tail) = match self {
            Block::Items { starts, .. } => (starts, end),
            Block::Tail { starts, tail } => (starts, tail),
            Block::Head | Block::Opened | Block::Other => return None,
        };
        Some(Items { json: false, starts, tail })
    }
}

#[cfg(test)]
mod tests {
    use super::super::documents::scan;

    /// The line of each item, and of what follows.
    fn lines(text: &str) -> Option<(Vec<u32>, u32)> {
        let [document] = &scan(text.as_bytes(), 0).unwrap()[..] else { return None };
        let items = document.items.as_ref()?;
        let line = |mark: &super::Mark| mark.place.line;
        Some((items.starts.iter().map(line).collect(), line(&items.tail)))
    }

    #[test]
    fn items_begin_in_the_column_of_the_first() {
        let text = "kind: List\nitems: # c\n\n- a: |\n    - b\n  c:\n  - d\n# e\n-\n  f: 1\nmetadata: {}\n";
        assert_eq!(lines(text), Some((vec![4, 9], 11)));
        assert_eq!(lines("items:\n  - a: 1\n    b:\n    - c\n  - d\n"), Some((vec![2, 5], 6)));
    }

    #[test]
    fn what_is_not_such_a_list_is_left_whole() {
        for text in [
            "items: []\n",
            "items:\nkind: List\n",
            "items: &a\n- b\n",
            "items:\n- a\nitems:\n- b\n",
            "items:\n  - a\n - b\n",
            "items:\n- a\n\tb: 1\n",
            "a:\n  items:\n  - b\n",
            "--- {}\nitems:\n- a\n",
        ] {
            assert_eq!(lines(text), None, "{text}");
        }
    }
}
