//! A Rust source file reduced to what the layers are about: its tokens without comments, strings and
//! test modules. Not a parser; it knows just enough not to be fooled by what a formatted file holds.

/// A token and the line it is on, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    pub line: usize,
}

/// Tokens of a file: identifiers, `::`, and single punctuation characters.
pub fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let mut out = Vec::new();
    let mut line = 1;
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let next = chars.get(at + 1).copied();
        let end = match c {
            '/' if next == Some('/') => line_comment(&chars, at),
            '/' if next == Some('*') => block_comment(&chars, at),
            '"' => string(&chars, at),
            '\'' => quote(&chars, at),
            c if is_word(c) => match raw_string(&chars, at) {
                Some(end) => end,
                None => {
                    let end = word(&chars, at);
                    out.push(Token { text: chars[at..end].iter().collect(), line });
                    end
                }
            },
            ':' if next == Some(':') => {
                out.push(Token { text: "::".to_owned(), line });
                at + 2
            }
            c => {
                if !c.is_whitespace() {
                    out.push(Token { text: c.to_string(), line });
                }
                at + 1
            }
        };
        line += chars[at..end].iter().filter(|c| **c == '\n').count();
        at = end;
    }
    out
}

/// Drops `#[cfg(test)] mod … { … }`: tests may use what the code may not.
pub fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    let mut out = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        let rest = &tokens[at..];
        if starts_with(rest, &["#", "[", "cfg", "(", "test", ")", "]", "mod"]) {
            at += test_module(rest);
        } else {
            out.push(tokens[at].clone());
            at += 1;
        }
    }
    out
}

/// Lines that hold a token, tests not counted.
pub fn code_lines(text: &str) -> usize {
    let mut lines: Vec<usize> =
        without_tests(tokens(text)).into_iter().map(|token| token.line).collect();
    lines.dedup();
    lines.len()
}

fn starts_with(tokens: &[Token], texts: &[&str]) -> bool {
    tokens.len() >= texts.len() && tokens.iter().zip(texts).all(|(token, text)| token.text == *text)
}

/// The length of a test module from its attribute to its closing brace or semicolon.
fn test_module(tokens: &[Token]) -> usize {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(7) {
        match token.text.as_str() {
            ";" if depth == 0 => return at + 1,
            "{" => depth += 1,
            "}" if depth <= 1 => return at + 1,
            "}" => depth -= 1,
            _ => {}
        }
    }
    tokens.len()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn word(chars: &[char], start: usize) -> usize {
    find(chars, start, |c| !is_word(c))
}

fn line_comment(chars: &[char], start: usize) -> usize {
    find(chars, start, |c| c == '\n')
}

fn find(chars: &[char], start: usize, wanted: impl Fn(char) -> bool) -> usize {
    chars[start..].iter().position(|c| wanted(*c)).map_or(chars.len(), |at| start + at)
}

fn block_comment(chars: &[char], start: usize) -> usize {
    let mut depth = 0usize;
    let mut at = start;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) if depth == 1 => return at + 2,
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    chars.len()
}

fn string(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(c) = chars.get(at) {
        match c {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// `r"…"`, `br#"…"#`, `b"…"` and `c"…"`; none if the word is just a word.
fn raw_string(chars: &[char], start: usize) -> Option<usize> {
    let end = word(chars, start);
    let prefix: String = chars[start..end].iter().collect();
    match prefix.as_str() {
        "b" | "c" if chars.get(end) == Some(&'"') => Some(string(chars, end)),
        "r" | "br" | "cr" => {
            let hashes = chars[end..].iter().take_while(|c| **c == '#').count();
            if chars.get(end + hashes) != Some(&'"') {
                return None;
            }
            let mut at = end + hashes + 1;
            while at < chars.len() {
                if chars[at] == '"' && chars[at + 1..].iter().take(hashes).all(|c| *c == '#') {
                    return Some((at + 1 + hashes).min(chars.len()));
                }
                at += 1;
            }
            Some(chars.len())
        }
        _ => None,
    }
}

/// A character such as `'"'` or `'\''`; a lifetime leaves its name to be a word.
fn quote(chars: &[char], start: usize) -> usize {
    match (chars.get(start + 1), chars.get(start + 2)) {
        (Some('\\'), _) => find(chars, start + 3, |c| c == '\'') + 1,
        (Some(_), Some('\'')) => start + 3,
        _ => start + 1,
    }
    .min(chars.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<String> {
        without_tests(tokens(source)).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_strings_and_characters_hold_no_tokens() {
        assert_eq!(texts("a // crate::x\n/* b /* c */ d */ e"), ["a", "e"]);
        assert_eq!(texts(r##"a "crate::\"x" r#"b"c"# b"d" '"' '\'' e"##), ["a", "e"]);
    }

    #[test]
    fn a_lifetime_does_not_open_a_string() {
        assert_eq!(texts("&'a str"), ["&", "a", "str"]);
        assert_eq!(texts("<'a>('b')"), ["<", "a", ">", "(", ")"]);
    }

    #[test]
    fn test_modules_are_left_out() {
        assert_eq!(texts("a #[cfg(test)] mod tests { fn b() { c } } d"), ["a", "d"]);
        assert_eq!(texts("a #[cfg(test)] mod tests; d"), ["a", "d"]);
    }

    #[test]
    fn only_lines_of_code_count() {
        assert_eq!(code_lines("//! doc\n\nfn a() {\n    // why\n    b(\"x\n y\");\n}\n"), 3 + 1);
        assert_eq!(tokens("\"x\ny\" a")[0].line, 2);
    }
}
