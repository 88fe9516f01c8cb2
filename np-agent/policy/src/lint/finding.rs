//! What a check has to say, and what is new in it.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::code::Code;
use crate::model::{Direction, Peer, Policy, Rule, Written};

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Valid and plausible, and still worth a look.
    Info,
    /// Probably not what was meant.
    Warning,
    /// Not taken at all.
    Error,
}

/// One remark about one object. Findings sort by their place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// As given or found; none when the object does not come from a file.
    #[serde(serialize_with = "lossy")]
    pub file: Option<PathBuf>,
    /// Counted from 1; 0 when the finding is about a whole file, or the place is not known.
    pub line: u32,
    /// Counted from 1, in characters; 0 like the line.
    pub column: u32,
    #[serde(flatten)]
    pub code: Code,
    pub severity: Severity,
    /// "NetworkPolicy default/web"; none when the document does not say.
    pub object: Option<String>,
    /// "spec.ingress[0].from[1].ipBlock.cidr"; empty when no field is concerned.
    pub field: String,
    pub message: String,
    pub remedy: String,
}

/// Which findings were reported already.
#[derive(Clone, Debug, Default)]
pub struct News {
    told: BTreeSet<Finding>,
}

impl News {
    /// The findings that were not among the last ones. What goes away and comes back is new.
    pub fn among(&mut self, findings: Vec<Finding>) -> Vec<Finding> {
        let now: BTreeSet<Finding> = findings.into_iter().collect();
        let new = now.difference(&self.told).cloned().collect();
        self.told = now;
        new
    }
}

/// Collects the findings about one policy.
pub(super) struct Report<'a, 'f> {
    pub policy: &'a Policy,
    pub written: Option<&'a Written>,
    findings: &'f mut Vec<Finding>,
}

impl<'a, 'f> Report<'a, 'f> {
    pub fn new(
        policy: &'a Policy,
        written: Option<&'a Written>,
        findings: &'f mut Vec<Finding>,
    ) -> Self {
        Self { policy, written, findings }
    }

    pub fn add(
        &mut self,
        (code, severity): (Code, Severity),
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let field = field.into();
        let (line, column) = self.written.map_or((0, 0), |written| written.place(&field));
        self.findings.push(Finding {
            file: self.written.map(|written| written.file.clone()),
            line,
            column,
            code,
            severity,
            object: Some(format!("NetworkPolicy {}", self.policy.key)),
            field,
            message: message.into(),
            remedy: remedy.into(),
        });
    }

    pub fn warn(
        &mut self,
        code: Code,
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add((code, Severity::Warning), field, message, remedy);
    }

    pub fn info(
        &mut self,
        code: Code,
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add((code, Severity::Info), field, message, remedy);
    }
}

/// A rule of a policy that has an effect.
#[derive(Clone, Debug)]
pub(super) struct RuleAt<'a> {
    pub direction: Direction,
    /// "spec.egress[0]".
    pub field: String,
    pub rule: &'a Rule,
}

/// The rules of both directions, with their fields.
pub(super) fn rules(policy: &Policy) -> impl Iterator<Item = RuleAt<'_>> {
    [Direction::Ingress, Direction::Egress].into_iter().flat_map(move |direction| {
        let rules = policy.rules(direction).unwrap_or_default().iter().enumerate();
        rules.map(move |(number, rule)| RuleAt {
            direction,
            field: format!("spec.{}[{number}]", list(direction)),
            rule,
        })
    })
}

impl<'a> RuleAt<'a> {
    /// "spec.egress[0].to[1]" and the peer there.
    pub fn peers(&self) -> impl Iterator<Item = (String, &'a Peer)> + use<'a> {
        let field = format!("{}.{}", self.field, peers(self.direction));
        let peers = self.rule.peers.as_deref().unwrap_or_default();
        peers.iter().enumerate().map(move |(number, peer)| (format!("{field}[{number}]"), peer))
    }
}

/// What the rules of a direction are called.
pub(super) fn list(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

/// What the peers of a direction are called.
pub(super) fn peers(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// One line, as the agent logs it.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, code, severity: _, object, field, message, remedy } = self;
        write!(f, "{code}")?;
        if let Some(file) = file {
            write!(f, ": {}", file.display())?;
            if *line > 0 {
                write!(f, ":{line}:{column}")?;
            }
        }
        if let Some(object) = object {
            write!(f, ": {object}")?;
        }
        if !field.is_empty() {
            write!(f, ": {field}")?;
        }
        write!(f, ": {message}; {remedy}")
    }
}

/// A file's name need not be UTF-8; JSON has to be.
fn lossy<S: serde::Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => serializer.collect_str(&path.display()),
        None => serializer.serialize_none(),
    }
}
