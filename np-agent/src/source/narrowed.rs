//! What a user learns about an object of the API server that is not fully understood.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One part of one object that counts for less than it may mean. It never allows more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Narrowed {
    /// "NetworkPolicy default/web".
    pub object: String,
    pub resource_version: String,
    /// "spec.ingress[0].from[1].ipBlock.cidr".
    pub field: String,
    /// As it came, shortened.
    pub value: String,
    pub problem: String,
    /// What counts instead.
    pub counts: String,
    pub remedy: String,
}

impl fmt::Display for Narrowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, resource_version, field, value, problem, counts, remedy } = self;
        write!(f, "{object}")?;
        if !resource_version.is_empty() {
            write!(f, " (resourceVersion {resource_version})")?;
        }
        if !field.is_empty() {
            write!(f, ": {field}")?;
        }
        if !value.is_empty() {
            write!(f, ": {value:?}")?;
        }
        write!(f, ": {problem}; {counts}; {remedy}")
    }
}
