//! One file's bytes, cut into documents before any parser sees them: a broken document hides
//! no other one.
//!
//! A line that begins with `---` ends a document wherever it stands: YAML lets no scalar, quoted
//! or not, contain one.

/// One document of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Document<'a> {
    pub bytes: &'a [u8],
    /// Lines of the file before it.
    pub lines_before: u32,
}

/// All documents that hold anything but comments.
pub(super) fn split(bytes: &[u8]) -> Vec<Document<'_>> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut documents = Vec::new();
    let (mut start, mut start_line, mut content, mut directives) = (0, 0, false, false);
    let (mut offset, mut line) = (0, 0);
    for text in bytes.split_inclusive(|byte| *byte == b'\n') {
        let end = offset + text.len();
        if let Some(rest) = marker(text, b"---") {
            // Directives (`%YAML 1.2`) belong to the document that the marker opens.
            if content || !directives {
                push(&mut documents, &bytes[start..offset], start_line, content);
                (start, start_line) = (offset, line);
            }
            content = !blank(rest);
            directives = false;
        } else if marker(text, b"...").is_some() {
            push(&mut documents, &bytes[start..end], start_line, content);
            (start, start_line, content, directives) = (end, line + 1, false, false);
        } else if text.starts_with(b"%") && !content {
            directives = true;
        } else {
            content |= !blank(text);
        }
        offset = end;
        line += 1;
    }
    push(&mut documents, &bytes[start..], start_line, content);
    documents
}

fn push<'a>(documents: &mut Vec<Document<'a>>, bytes: &'a [u8], lines_before: u32, content: bool) {
    if content {
        documents.push(Document { bytes, lines_before });
    }
}

/// What follows the marker on its line.
fn marker<'a>(line: &'a [u8], marker: &[u8]) -> Option<&'a [u8]> {
    let rest = line.strip_prefix(marker)?;
    rest.first().is_none_or(u8::is_ascii_whitespace).then_some(rest)
}

/// Nothing but white space or a comment. A tab is content: the parser has to judge it.
fn blank(text: &[u8]) -> bool {
    let rest = text.trim_ascii();
    rest.is_empty() || rest.starts_with(b"#")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<(u32, &str)> {
        split(text.as_bytes())
            .iter()
            .map(|document| (document.lines_before, std::str::from_utf8(document.bytes).unwrap()))
            .collect()
    }

    #[test]
    fn documents_end_at_markers_and_know_their_lines() {
        assert_eq!(
            texts("a: 1\n---\nb: 2\n--- # c\nc: 3"),
            [(0, "a: 1\n"), (1, "---\nb: 2\n"), (3, "--- # c\nc: 3")]
        );
        assert_eq!(texts("a: 1\n...\nb: 2\n"), [(0, "a: 1\n...\n"), (2, "b: 2\n")]);
        assert_eq!(texts("--- {a: 1}\n--- {b: 1}\n"), [(0, "--- {a: 1}\n"), (1, "--- {b: 1}\n")]);
    }

    #[test]
    fn empty_documents_are_no_documents() {
        assert_eq!(texts(""), []);
        assert_eq!(texts("\u{feff}\n# nothing\n---\n\n---\n"), []);
    }

    #[test]
    fn directives_stay_with_their_document() {
        assert_eq!(texts("%YAML 1.2\n---\na: 1\n"), [(0, "%YAML 1.2\n---\na: 1\n")]);
    }

    #[test]
    fn longer_dashes_are_no_marker() {
        assert_eq!(texts("a: |\n  ---\n----\n").len(), 1);
    }
}
