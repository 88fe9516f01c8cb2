//! A piece of a file into objects and complaints. A bad document, or a bad item of a list, hides no
//! other.

use std::borrow::Cow;
use std::path::Path;

use super::brackets;
use super::documents::{self, Mark};
use super::fields::{At, Fields, Problem, Problems, Refused};
use super::guess;
use super::identity::Identity;
use super::kinds::{self, Extra, Item, Sort, Unreadable};
use super::pieces::Origin;
use super::tree::{self, Node, Place, Syntax, Value};
use super::{background, metadata, objects, policy, written};
use crate::source::invalid::{Invalid, shortened};
use crate::source::kind::Kind;
use np_policy::model::{Background, Object, ObjectKey};

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    /// In the order of the file.
    pub claims: Vec<Claim>,
    pub invalid: Vec<Invalid>,
    /// Some document does not tell which object it is.
    pub unidentified: bool,
    /// Documents of kinds that the agent does not enforce.
    pub ignored: usize,
    /// Documents of all kinds, whether they are good or not.
    pub documents: usize,
    pub background: Background,
    /// Problems beyond those in `invalid`.
    more: usize,
}

/// A document that names an object.
#[derive(Debug)]
pub(super) struct Claim {
    pub key: ObjectKey,
    pub line: u32,
    pub column: u32,
    /// None when the document is refused.
    pub object: Option<Object>,
}

/// More than a user reads about one file.
const MOST_INVALID: usize = 100;

impl Parsed {
    /// Says how many problems are left out.
    pub fn finish(&mut self, path: &Path) {
        if self.more > 0 {
            let problem = format!("{} more problems in this file", self.more);
            let remedy = "correct the first ones, then look again";
            self.invalid.push(Invalid::file(path, problem, remedy));
        }
    }
}

/// Reads one piece of a file.
pub(super) struct Reader<'a, 'p> {
    pub path: &'p Path,
    pub bytes: &'a [u8],
    /// By their places in the text.
    pub origins: Vec<Origin>,
    pub parsed: &'p mut Parsed,
}

impl<'a> Reader<'a, '_> {
    /// Reads whole documents.
    pub fn read(&mut self) {
        let Some(text) = self.checked() else { return };
        let objects = brackets::split(&text);
        if objects.is_empty() {
            return self.one(&text);
        }
        let mut here = Mark { offset: 0, place: Place { line: 1, column: 1 } };
        let mut rest = 0;
        for (start, end) in objects {
            here = here.behind(text[rest..start].as_bytes());
            let (line, column) = self.position(here.place);
            let file = Place { line, column };
            let start_of = Mark { offset: 0, place: file };
            Reader {
                path: self.path,
                bytes: &[],
                origins: vec![Origin::whole(start_of)],
                parsed: self.parsed,
            }
            .one(&text[start..end]);
            here = here.behind(text[start..end].as_bytes());
            rest = end;
        }
    }

    fn one(&mut self, text: &str) {
        match tree::parse(text) {
            Ok(node) => self.document(&node, text),
            Err(syntax) => self.broken(&syntax, text, None),
        }
    }

    /// Reads a list that lacks its items; none if that is all that is to be read of it.
    pub fn frame(&mut self) -> Option<Option<Item>> {
        let text = self.checked()?;
        let node = match tree::parse(&text) {
            Ok(node) => node,
            Err(syntax) => {
                self.broken(&syntax, &text, None);
                return None;
            }
        };
        let Value::Map(entries) = &node.value else {
            self.document(&node, &text);
            return None;
        };
        let list = Fields { at: At { node: &node, path: String::new() }, entries };
        let mut problems = Problems::new(&text);
        match sort(&list, &mut problems) {
            Ok(Sort::List(item)) => self.unique(&list, problems).ok().map(|()| item),
            Ok(Sort::One(Item::Object(_))) => {
                let at = list.get("kind").unwrap_or_else(|| list.at.clone());
                let remedy = "write \"kind: List\" if it is a list";
                at.refuse(&mut problems, "no such object has \"items\"", remedy);
                self.refuse(&Identity::of(&list), None, node.place, problems);
                None
            }
            Ok(Sort::Ignored | Sort::One(Item::Background(_))) => {
                self.parsed.ignored += 1;
                None
            }
            Err(meant) => {
                self.refuse(&Identity::of(&list), meant, node.place, problems);
                None
            }
        }
    }

    /// Reads one item of a list that was cut into pieces.
    pub fn item(&mut self, index: usize, json: bool, item: Option<Item>) {
        let Some(text) = self.checked() else { return };
        let node = match tree::parse(&text) {
            Ok(node) => node,
            Err(syntax) => return self.broken(&syntax, &text, Some(index)),
        };
        let node = match node.value {
            Value::List(mut items) if !json && items.len() == 1 => items.swap_remove(0),
            value => Node { value, ..node },
        };
        let at = At { node: &node, path: format!("items[{index}]") };
        self.member(at, item, &text);
    }

    /// The document as text; none when it is refused because it is none.
    fn checked(&mut self) -> Option<Cow<'a, str>> {
        match self.text() {
            Ok(text) if text.contains('\u{feff}') => Some(documents::without_marks(text).into()),
            Ok(text) => Some(text.into()),
            Err((place, problem)) => {
                let remedy = "save it as UTF-8 text, or move it out of the directory";
                self.unidentified(place, "", problem, remedy);
                None
            }
        }
    }

    /// The document as text, or where and why it is none.
    fn text(&self) -> Result<&'a str, (Place, &'static str)> {
        let bytes = self.bytes;
        let (valid, end) = match std::str::from_utf8(bytes) {
            Ok(text) => (text, None),
            Err(error) => {
                let (valid, _) = bytes.split_at(error.valid_up_to());
                (std::str::from_utf8(valid).unwrap_or_default(), Some("not UTF-8 text"))
            }
        };
        let (valid, end) = match valid.split_once('\0') {
            Some((before, _)) => (before, Some("not text: it contains a zero byte")),
            None => (valid, end),
        };
        let Some(problem) = end else { return Ok(valid) };
        let start = Mark { offset: 0, place: Place { line: 1, column: 1 } };
        Err((start.behind(valid.as_bytes()).place, problem))
    }

    fn document(&mut self, node: &Node, text: &str) {
        let at = At { node, path: String::new() };
        match &node.value {
            Value::Null => {}
            Value::Map(entries) => self.object(&Fields { at, entries }, None, text),
            _ => {
                let value = shown_line(text, node.place.line);
                let problem =
                    "a Kubernetes object is needed here, with apiVersion, kind and metadata";
                let remedy = "remove this text, or begin each of its lines with #";
                self.unidentified(node.place, value, problem, remedy);
            }
        }
    }

    /// Reads an object or a list of them; `item` is what one of a typed list may leave out.
    fn object<'n>(&mut self, object: &Fields<'n>, item: Option<Item>, text: &'n str) {
        let mut problems = Problems::new(text);
        let identity = Identity::of(object);
        let sort = match (item, object.get("apiVersion"), object.get("kind")) {
            (Some(item), None, None) => Ok(Sort::One(item)),
            _ => sort(object, &mut problems),
        };
        match sort {
            Ok(Sort::Ignored) => self.parsed.ignored += 1,
            Ok(Sort::One(Item::Background(extra))) => {
                self.parsed.ignored += 1;
                self.background(object, extra, problems);
            }
            Ok(Sort::List(item)) => self.list(object, item, problems, text),
            Ok(Sort::One(Item::Object(kind))) => {
                let unique = object.no_duplicates(&mut problems);
                let read = read(object, kind, &mut problems);
                match unique.and(read) {
                    Ok((read, place)) => {
                        self.remember(object, &read, place);
                        self.claim(read.key(), place, Some(read));
                    }
                    Err(_) => {
                        self.refuse(&identity, Some(kind), object.at.node.place, problems);
                    }
                }
            }
            Err(meant) => self.refuse(&identity, meant, object.at.node.place, problems),
        }
    }

    /// Keeps what a good object says beyond what is enforced.
    fn remember(&mut self, object: &Fields<'_>, read: &Object, place: Place) {
        match read {
            Object::Policy(policy) => {
                let mut written = written::read(object, |place| self.position(place));
                written.file = self.path.to_owned();
                written.place = self.position(place);
                self.parsed.background.policies.entry(policy.key.clone()).or_insert(written);
            }
            Object::Pod(pod) => {
                let mut ports = background::pod_ports(object);
                ports.retain(|port| port.name.is_none());
                if !ports.is_empty() {
                    self.parsed.background.unnamed_ports.entry(pod.key.clone()).or_insert(ports);
                }
            }
            Object::Namespace(_) | Object::Node(_) => {}
        }
    }

    /// Reads what is not enforced. Its faults are reported like others, but they put no object in
    /// doubt.
    fn background<'n>(&mut self, object: &Fields<'n>, extra: Extra, mut problems: Problems<'n>) {
        let into = &mut self.parsed.background;
        // What is refused has left its message.
        match extra {
            Extra::Service => {
                into.services.extend(background::service(object, &mut problems));
            }
            Extra::ServiceCidr => {
                let ranges = background::service_ranges(object, &mut problems);
                into.service_ranges.extend(ranges.unwrap_or_default());
            }
            Extra::Workload => into.workloads.extend(background::workload(object)),
            Extra::Endpoints => into.endpoints.extend(background::endpoints(object)),
        }
        let identity = Identity::of(object);
        let label = identity.label((extra == Extra::ServiceCidr).then_some(Kind::Node));
        self.complain(label.as_deref(), problems);
    }

    fn list<'n>(
        &mut self,
        list: &Fields<'n>,
        item: Option<Item>,
        problems: Problems<'n>,
        text: &'n str,
    ) {
        if self.unique(list, problems).is_err() {
            return;
        }
        // A list without items is what `kubectl get` prints when it finds nothing.
        let Some(at) = list.get("items") else { return };
        let Value::List(items) = &at.node.value else {
            let mut problems = Problems::new(text);
            at.refuse(
                &mut problems,
                "a list is needed here",
                "write each object as an item: \"- …\"",
            );
            return self.refuse(&Identity::of(list), None, list.at.node.place, problems);
        };
        for (index, node) in items.iter().enumerate() {
            self.member(At { node, path: format!("{}[{index}]", at.path) }, item, text);
        }
    }

    fn member<'n>(&mut self, at: At<'n>, item: Option<Item>, text: &'n str) {
        let mut problems = Problems::new(text);
        match at.fields(&mut problems) {
            Ok(object) => self.object(&object, item, text),
            Err(_) => self.refuse(&Identity::default(), None, at.node.place, problems),
        }
    }

    /// Refuses a list that has a field twice.
    fn unique<'n>(&mut self, list: &Fields<'n>, mut problems: Problems<'n>) -> Result<(), ()> {
        let mut twice = false;
        for (index, entry) in list.entries.iter().enumerate() {
            if list.entries[..index].iter().any(|earlier| earlier.key == entry.key) {
                let remedy = "remove one of them, or join them";
                list.refuse_key(entry, &mut problems, "appears twice here", remedy);
                twice = true;
            }
        }
        if twice {
            self.refuse(&Identity::of(list), None, list.at.node.place, problems);
            return Err(());
        }
        Ok(())
    }

    /// A text that the parser does not take; `item` is its number in a list.
    fn broken(&mut self, syntax: &Syntax, text: &str, item: Option<usize>) {
        let guess = guess::identity(text);
        let kind = guess.kind.and_then(Kind::named);
        let identity = Identity {
            kind: guess.kind,
            namespace: guess.namespace,
            name: guess.name,
            ambiguous: guess.ambiguous,
        };
        let place = syntax.place.unwrap_or(Place { line: 1, column: 1 });
        let line = text.lines().nth((place.line as usize).saturating_sub(1)).unwrap_or_default();
        let indent = &line[..line.len() - line.trim_start().len()];
        let tab = indent.find('\t').and_then(|before| u32::try_from(before + 1).ok());
        let mut spot = guess::spot(text, place.line);
        if let Some(index) = item {
            let path = spot.path.strip_prefix("[0]").unwrap_or(&spot.path);
            spot.path = format!("items[{index}]{path}");
        }
        let parser = format!("not YAML: {}", syntax.problem);
        let (column, problem, remedy) = match (tab, spot.beside) {
            _ if syntax.remedy.is_some() => {
                (place.column, syntax.problem.clone(), syntax.remedy.unwrap_or_default().to_owned())
            }
            (Some(column), _) => (
                column,
                "a tab in the indentation; YAML is indented with spaces only".to_owned(),
                "replace the tab by spaces".to_owned(),
            ),
            (None, Some((field, column))) => {
                let remedy = format!("let it begin in column {column}, like \"{field}\" above");
                (place.column, parser, remedy)
            }
            (None, None) if spot.path.is_empty() && !line.trim().is_empty() => (
                place.column,
                "not YAML: neither a field nor a list item nor a comment".to_owned(),
                "remove this text, or begin each of its lines with #".to_owned(),
            ),
            (None, None) => (
                place.column,
                parser,
                "look at the indentation, quotes and brackets of this line and the ones above"
                    .to_owned(),
            ),
        };
        let problem = Problem {
            place: Place { line: place.line, column },
            field: spot.path,
            value: shortened(line.trim()),
            problem,
            remedy,
        };
        let mut problems = Problems::new(text);
        problems.add(problem);
        self.refuse(&identity, kind, Place { line: 1, column: 1 }, problems);
    }

    /// Reports a refused document, and what it claims to be if it says so.
    fn refuse(
        &mut self,
        identity: &Identity<'_>,
        kind: Option<Kind>,
        place: Place,
        problems: Problems<'_>,
    ) {
        self.complain(identity.label(kind).as_deref(), problems);
        match kind.and_then(|kind| identity.key(kind)) {
            Some(key) => self.claim(key, place, None),
            None => self.parsed.unidentified = true,
        }
    }

    fn complain(&mut self, object: Option<&str>, problems: Problems<'_>) {
        for Problem { place, field, value, problem, remedy } in problems.found {
            let (line, column) = self.position(place);
            self.invalid(Invalid {
                file: self.path.to_owned(),
                line,
                column,
                object: object.map(str::to_owned),
                field,
                value,
                problem,
                remedy,
            });
        }
    }

    /// Reports a document that says nothing about an object.
    pub fn unidentified(&mut self, place: Place, value: &str, problem: &str, remedy: &str) {
        let (line, column) = self.position(place);
        self.parsed.unidentified = true;
        self.invalid(Invalid {
            file: self.path.to_owned(),
            line,
            column,
            object: None,
            field: String::new(),
            value: shortened(value),
            problem: problem.to_owned(),
            remedy: remedy.to_owned(),
        });
    }

    fn invalid(&mut self, invalid: Invalid) {
        if self.parsed.invalid.len() < MOST_INVALID {
            self.parsed.invalid.push(invalid);
        } else {
            self.parsed.more += 1;
        }
    }

    fn claim(&mut self, key: ObjectKey, place: Place, object: Option<Object>) {
        let (line, column) = self.position(place);
        self.parsed.claims.push(Claim { key, line, column, object });
    }

    fn position(&self, place: Place) -> (u32, u32) {
        let behind =
            |origin: &&Origin| (origin.text.line, origin.text.column) <= (place.line, place.column);
        match self.origins.iter().rev().find(behind) {
            Some(origin) => origin.map(place),
            None => (place.line, place.column),
        }
    }
}

/// The document's sort; in error, the kind it probably is.
fn sort<'n>(object: &Fields<'n>, problems: &mut Problems<'n>) -> Result<Sort, Option<Kind>> {
    let text = |key: &str, problems: &mut Problems<'n>| {
        match object.get(key) {
        Some(at) => at.text(problems).map(|text| (at, text)),
        None => Err(object.missing(key, problems, match key {
            "kind" => "say what it is, such as \"kind: NetworkPolicy\"",
            _ => "write \"apiVersion: networking.k8s.io/v1\" for a NetworkPolicy, \"apiVersion: v1\" \
                  for Pods, Namespaces and Nodes",
        })),
    }
    };
    let version = text("apiVersion", problems);
    let kind = text("kind", problems);
    let (Ok((version_at, version)), Ok((kind_at, kind))) = (&version, &kind) else {
        return Err(kind.ok().and_then(|(_, kind)| Kind::named(kind)));
    };
    kinds::sort(version, kind).map_err(|Unreadable { field, problem, remedy, meant }| {
        let at = if field == "kind" { kind_at } else { version_at };
        at.refuse(problems, problem, remedy);
        meant
    })
}

fn read<'n>(
    object: &Fields<'n>,
    kind: Kind,
    problems: &mut Problems<'n>,
) -> Result<(Object, Place), Refused> {
    // A broken name must not hide what else is wrong.
    let (metadata, broken) = match metadata::read(object, kind, problems) {
        Ok(metadata) => (metadata, None),
        Err(refused) => (metadata::Metadata::default(), Some(refused)),
    };
    let place = metadata.place;
    let object = match kind {
        Kind::Policy => policy::read(object, metadata, problems).map(Object::Policy),
        Kind::Pod => objects::pod(object, metadata, problems).map(Object::Pod),
        Kind::Node => objects::node(object, metadata, problems).map(Object::Node),
        Kind::Namespace => Ok(Object::Namespace(objects::namespace(metadata))),
    };
    match broken {
        Some(refused) => Err(refused),
        None => object.map(|object| (object, place)),
    }
}

fn shown_line(text: &str, line: u32) -> &str {
    text.lines().nth((line as usize).saturating_sub(1)).unwrap_or_default().trim()
}
