//! The paths that a file names, written out from the crate's root: in `use` trees and inline.

use super::source::Token;

/// A path and the line it is on; `crate::…` and `super::…` begin with `crate` here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    pub segments: Vec<String>,
    pub line: usize,
}

/// Every path of two or more segments. `module` is where the file is in its crate.
pub fn paths(tokens: &[Token], module: &[String]) -> Vec<Path> {
    let mut out = Vec::new();
    // Inline modules, with the depth of braces inside which each lies.
    let mut inline: Vec<(String, usize)> = Vec::new();
    let mut depth = 0usize;
    let mut at = 0;
    while at < tokens.len() {
        let text = tokens[at].text.as_str();
        match text {
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                if inline.last().is_some_and(|(_, opened)| *opened == depth) {
                    inline.pop();
                }
            }
            "mod" if is(tokens, at + 2, "{") => {
                inline.push((tokens[at + 1].text.clone(), depth));
            }
            _ => {}
        }
        let after_path = at > 0 && is(tokens, at - 1, "::");
        // `::x` at the start of a path names a crate, as `x` does.
        let global = after_path && !(at > 1 && is_name(&tokens[at - 2].text));
        if is_name(text) && is(tokens, at + 1, "::") && (!after_path || global) {
            let here: Vec<String> =
                module.iter().cloned().chain(inline.iter().map(|(name, _)| name.clone())).collect();
            at = tree(tokens, at, &[], &here, &mut out);
        } else {
            at += 1;
        }
    }
    out
}

/// Reads one path or group at `at`, adds its leaves, and returns where it ends.
fn tree(
    tokens: &[Token],
    mut at: usize,
    prefix: &[String],
    here: &[String],
    out: &mut Vec<Path>,
) -> usize {
    let mut segments = prefix.to_vec();
    let line = tokens.get(at).map_or(0, |token| token.line);
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "{" => {
                at += 1;
                while at < tokens.len() && !is(tokens, at, "}") {
                    let end = tree(tokens, at, &segments, here, out);
                    at = skip_to_comma(tokens, end.max(at));
                }
                return at + 1;
            }
            "self" if !segments.is_empty() => at += 1,
            "self" => {
                segments = absolute(here, 0);
                at += 1;
            }
            "super" if segments.is_empty() => {
                let ups = tokens[at..].iter().step_by(2).take_while(|t| t.text == "super").count();
                segments = absolute(here, ups);
                at += 2 * ups - 1;
            }
            "*" => {
                segments.push("*".to_owned());
                at += 1;
            }
            name if is_name(name) => {
                segments.push(name.to_owned());
                at += 1;
            }
            // A turbofish or the end of an expression.
            _ => break,
        }
        if !is(tokens, at, "::") {
            break;
        }
        at += 1;
    }
    if segments.len() > 1 {
        out.push(Path { segments, line });
    }
    at
}

/// Skips `as name` and the comma up to the next member of a group, or stops at its end.
fn skip_to_comma(tokens: &[Token], mut at: usize) -> usize {
    while at < tokens.len() && !is(tokens, at, "}") {
        at += 1;
        if is(tokens, at - 1, ",") {
            break;
        }
    }
    at
}

fn absolute(here: &[String], ups: usize) -> Vec<String> {
    let kept = here.len().saturating_sub(ups);
    std::iter::once("crate".to_owned()).chain(here[..kept].iter().cloned()).collect()
}

fn is(tokens: &[Token], at: usize, text: &str) -> bool {
    tokens.get(at).is_some_and(|token| token.text == text)
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::super::source;
    use super::*;

    fn found(source: &str) -> Vec<String> {
        let module = ["plan".to_owned(), "diff".to_owned()];
        let paths = paths(&source::tokens(source), &module);
        paths.into_iter().map(|path| path.segments.join("::")).collect()
    }

    #[test]
    fn use_trees_are_written_out() {
        assert_eq!(
            found("use crate::{index::{Index, self}, model as m, compile::*};"),
            ["crate::index::Index", "crate::index", "crate::model", "crate::compile::*"]
        );
        assert_eq!(found("use std::{fs, net::IpAddr};"), ["std::fs", "std::net::IpAddr"]);
        assert_eq!(found("pub(crate) use crate::a;"), ["crate::a"]);
    }

    #[test]
    fn inline_paths_count_too() {
        assert_eq!(found("let a = crate::index::Index::new();"), ["crate::index::Index::new"]);
        assert_eq!(found("a.map(::tokio::spawn::<T>)"), ["tokio::spawn"]);
        assert_eq!(found("Vec::<crate::a::B>::new()"), ["crate::a::B"]);
    }

    #[test]
    fn super_is_resolved_from_the_file_and_its_inline_modules() {
        assert_eq!(found("use super::lower;"), ["crate::plan::lower"]);
        assert_eq!(found("use super::super::source;"), ["crate::source"]);
        assert_eq!(
            found("mod x { use super::y; } use super::z;"),
            ["crate::plan::diff::y", "crate::plan::z"]
        );
        assert_eq!(found("self::a();"), ["crate::plan::diff::a"]);
    }
}
