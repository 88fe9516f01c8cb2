//! What a text that is no YAML probably meant: its object and the field of a line, read off the
//! indentation. Only messages and the choice of what to keep in force use it.

/// What the lines at the top of the document say the object is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Identity<'a> {
    pub kind: Option<&'a str>,
    pub namespace: Option<&'a str>,
    pub name: Option<&'a str>,
    /// Something is said twice: two documents may have run into one.
    pub ambiguous: bool,
}

pub(super) fn identity(text: &str) -> Identity<'_> {
    let mut found = Identity::default();
    let mut inside = false;
    let mut child = None;
    let mut metadata = 0;
    for line in text.lines().filter_map(Line::read) {
        let Some((key, value)) = line.field else { continue };
        if line.dashes.is_empty() && line.indent == 0 {
            inside = key == "metadata";
            metadata += usize::from(inside);
            if key == "kind" {
                found.ambiguous |= found.kind.replace(value).is_some();
            }
            continue;
        }
        if !inside || !line.dashes.is_empty() || *child.get_or_insert(line.indent) != line.indent {
            continue;
        }
        match key {
            "name" => found.ambiguous |= found.name.replace(value).is_some(),
            "namespace" => found.ambiguous |= found.namespace.replace(value).is_some(),
            _ => {}
        }
    }
    found.ambiguous |= metadata > 1;
    found
}

/// Where a line stands.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Spot<'a> {
    /// "spec.ingress[0].from"
    pub path: String,
    /// The field above with which it ought to begin in one column, and that column from 1.
    pub beside: Option<(&'a str, usize)>,
}

/// The place of the line of that number, counted from 1. Nothing for a line that is no field and
/// no item; below a tab only the field's own name can be known.
pub(super) fn spot(text: &str, line: u32) -> Spot<'_> {
    let mut steps: Vec<Step<'_>> = Vec::new();
    let mut beside = None;
    let number = usize::try_from(line).unwrap_or(usize::MAX);
    let own = text.lines().nth(number.saturating_sub(1)).and_then(Line::read);
    match own {
        Some(own) if own.tab => {
            let path = own.field.map_or(String::new(), |(key, _)| key.to_owned());
            return Spot { path, beside: None };
        }
        Some(own) if own.field.is_some() || !own.dashes.is_empty() => {}
        _ => return Spot::default(),
    }
    for line in text.lines().take(number).filter_map(Line::read) {
        beside = None;
        for dash in line.dashes {
            // A dash may stand right below the key whose list it opens.
            while steps.pop_if(|step| step.indent > dash).is_some() {}
            match steps.last_mut() {
                Some(Step { indent, segment: Segment::Item(index) }) if *indent == dash => {
                    *index += 1;
                }
                _ => steps.push(Step { indent: dash, segment: Segment::Item(0) }),
            }
        }
        if let Some((key, value)) = line.field {
            while steps.pop_if(|step| step.indent >= line.indent).is_some() {}
            // Nothing can stand below a field that has its value on its own line.
            if let Some(Step { indent, segment: Segment::Key(above, true) }) = steps.last() {
                beside = Some((*above, *indent + 1));
                steps.pop();
            }
            let complete = !value.is_empty() && !value.starts_with(['|', '>', '&', '*', '!']);
            steps.push(Step { indent: line.indent, segment: Segment::Key(key, complete) });
        }
    }
    let mut path = String::new();
    for step in steps {
        match step.segment {
            Segment::Key(key, _) if path.is_empty() => path.push_str(key),
            Segment::Key(key, _) => path.extend([".", key]),
            Segment::Item(index) => path.push_str(&format!("[{index}]")),
        }
    }
    Spot { path, beside }
}

struct Step<'a> {
    indent: usize,
    segment: Segment<'a>,
}

enum Segment<'a> {
    /// With whether its value stands on its own line.
    Key(&'a str, bool),
    Item(usize),
}

struct Line<'a> {
    /// Columns of the dashes that begin it.
    dashes: Vec<usize>,
    /// Column of what follows them.
    indent: usize,
    field: Option<(&'a str, &'a str)>,
    /// A tab is part of its indentation.
    tab: bool,
}

impl<'a> Line<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let mut rest = line.trim_start_matches([' ', '\t']);
        if rest.is_empty() || rest.starts_with(['#', '%']) || rest.starts_with("---") {
            return None;
        }
        let mut dashes = Vec::new();
        while let Some(after) = rest.strip_prefix("- ") {
            dashes.push(line.len() - rest.len());
            rest = after.trim_start_matches(' ');
        }
        if rest == "-" {
            dashes.push(line.len() - rest.len());
            rest = "";
        }
        let indent = line.len() - rest.len();
        let field = rest.split_once(':').and_then(|(key, value)| {
            let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
            let key = key.trim_matches(['"', '\'']);
            let value = value.split(" #").next().unwrap_or(value);
            let separated = value.is_empty() || value.starts_with([' ', '\t']);
            let value = value.trim().trim_matches(['"', '\'']);
            (separated && !key.is_empty() && key.chars().all(word)).then_some((key, value))
        });
        let tab = line[..line.len() - line.trim_start().len()].contains('\t');
        Some(Self { dashes, indent, field, tab })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy   # comment
metadata:
  labels:
    name: other
  name: \"web\"
  namespace: shop
spec:
  ingress:
  - from:
    - podSelector: {}
    - ipBlock:
        cidr: 10.0.0.0/8
    ports:
      - port: 80
  - from: []
  egress:
";

    #[test]
    fn the_top_lines_name_the_object() {
        let expected = Identity {
            kind: Some("NetworkPolicy"),
            namespace: Some("shop"),
            name: Some("web"),
            ambiguous: false,
        };
        // The label `name` stands deeper; the first child's indentation is the fields'.
        assert_eq!(identity(TEXT), expected);
        assert!(identity(&format!("{TEXT}kind: Pod\n")).ambiguous);
    }

    #[test]
    fn indentation_tells_the_path() {
        for (line, expected) in [
            (2, "kind"),
            (5, "metadata.labels.name"),
            (10, "spec.ingress[0].from"),
            (11, "spec.ingress[0].from[0].podSelector"),
            (13, "spec.ingress[0].from[1].ipBlock.cidr"),
            (14, "spec.ingress[0].ports"),
            (15, "spec.ingress[0].ports[0].port"),
            (16, "spec.ingress[1].from"),
            (17, "spec.egress"),
        ] {
            assert_eq!(spot(TEXT, line).path, expected, "line {line}");
        }
    }

    #[test]
    fn a_field_below_a_complete_one_belongs_next_to_it() {
        let text = "spec:\n  ipBlock:\n    cidr: 10.0.0.0/8\n     except: []\n";
        let expected = Spot { path: "spec.ipBlock.except".to_owned(), beside: Some(("cidr", 5)) };
        assert_eq!(spot(text, 4), expected);
        assert_eq!(spot("a: 1\nSome prose.\n", 2), Spot::default());
        assert_eq!(spot("a:\n\tb: 1\n", 2).path, "b");
    }
}
