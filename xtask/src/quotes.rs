//! docs/OPERATING.md quotes what the agent and kubectl np print: a quote that is not in the code any more is
//! found here.

use std::fs;

use crate::sources::rust_files;
use crate::workspace;

/// The first column of the tables whose header is one of these holds quotes.
const QUOTED: [&str; 2] = ["the line says", "WHY"];

/// The quotes of a page.
fn quotes(page: &str) -> Vec<&str> {
    let mut quoted = false;
    let mut found = Vec::new();
    for line in page.lines() {
        let Some(cell) = line.strip_prefix("| ").and_then(|line| line.split(" | ").next()) else {
            quoted &= line.starts_with('|');
            continue;
        };
        if QUOTED.contains(&cell) {
            quoted = true;
        } else if quoted {
            found.extend(cell.strip_prefix('`').and_then(|cell| cell.strip_suffix('`')));
        }
    }
    found
}

/// The pieces of a quote between what differs from time to time: an ellipsis, a number, a word in
/// capitals. Punctuation ends a piece too, since the code may join a message from several strings.
fn pieces(quote: &str) -> impl Iterator<Item = &str> {
    let ends = |c: char| c.is_ascii_digit() || c.is_ascii_uppercase() || "….,:;{}".contains(c);
    quote.split(ends).map(str::trim).filter(|piece| piece.len() > 3)
}

#[test]
fn what_operating_quotes_is_in_the_code() {
    let root = workspace::root();
    let mut code = String::new();
    let sources = ["np-agent/src", "np-agent/policy/src", "np-agent/kubectl/src"]
        .map(|source| rust_files(&root.join(source)).expect("the sources can be listed"));
    for file in sources.concat() {
        let text = fs::read_to_string(file).expect("the sources can be read");
        // A string that continues in the next line has a blank before its backslash.
        let lines = text.lines().map(|line| line.trim().trim_end_matches('\\'));
        code.extend(lines);
    }
    let page = fs::read_to_string(root.join("docs/OPERATING.md")).expect("it is there");
    let quotes = quotes(&page);
    assert!(quotes.len() > 20, "only {} quotes", quotes.len());
    for quote in quotes {
        for piece in pieces(quote) {
            assert!(code.contains(piece), "no message has {piece:?}, as {quote:?} does");
        }
    }
}
