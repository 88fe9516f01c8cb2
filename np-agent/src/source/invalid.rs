//! What a user learns about a manifest that is refused.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};

/// One thing wrong with one manifest. The object it speaks of keeps its last good version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Invalid {
    #[serde(serialize_with = "lossy")]
    pub file: PathBuf,
    /// Counted from 1; 0 when it is about the whole file.
    pub line: u32,
    /// Counted from 1, in characters; 0 when it is about the whole file.
    pub column: u32,
    /// "NetworkPolicy default/web"; none when the document does not say.
    pub object: Option<String>,
    /// "spec.ingress[0].from[1].ipBlock.cidr"; empty when no field is concerned.
    pub field: String,
    /// As written, shortened.
    pub value: String,
    pub problem: String,
    pub remedy: String,
}

impl Invalid {
    /// About a file or directory as a whole.
    pub(super) fn file(file: &Path, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: 0,
            column: 0,
            object: None,
            field: String::new(),
            value: String::new(),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, object, field, value, problem, remedy } = self;
        write!(f, "{}", file.display())?;
        if *line > 0 {
            write!(f, ":{line}:{column}")?;
        }
        if let Some(object) = object {
            write!(f, ": {object}")?;
        }
        if !field.is_empty() {
            write!(f, ": {field}")?;
        }
        if !value.is_empty() {
            write!(f, ": {value:?}")?;
        }
        write!(f, ": {problem}; {remedy}")
    }
}

/// A file's name need not be UTF-8; a status document has to be.
fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// A value as a message shows it: on one line, not longer than a line.
pub(super) fn shortened(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut short: String = text.chars().take(LONGEST).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
