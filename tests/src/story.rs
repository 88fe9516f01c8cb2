//! Stories: what a user asked for, the policies for it, and the reachability that must follow.
//!
//! The expected matrices are written by hand from the cases ([`a`], [`b`]); nothing here asks the
//! agent what it would do. Policies are YAML files of their own: they are shown to readers as they
//! are applied.

pub mod a;
pub mod b;
pub mod cluster;
pub mod edit;
pub mod malformed;
pub mod matrix;
mod play;

use anyhow::{Context, Result};

use crate::manifests::Unlabel;
pub use play::{Played, PlayedStep, Stage};

use matrix::Table;

/// One case, in one or more steps.
#[derive(Clone, Copy, Debug)]
pub struct Story {
    /// "A1" … "B8".
    pub id: &'static str,
    pub title: &'static str,
    pub steps: &'static [Step],
}

/// One set of policies and what it must do.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// One line: what there is to see.
    pub says: &'static str,
    /// The policies in force, as the user writes them; empty for none.
    pub policy: &'static str,
    /// Labels the step takes off Namespaces.
    pub unlabel: &'static [Unlabel],
    /// The expected matrix, see [`matrix`].
    pub table: &'static str,
    /// The pod's side that says no, where exactly one does.
    pub side: Option<Side>,
}

/// Which side of a connection refuses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Ingress,
    Egress,
}

impl Side {
    pub fn name(self) -> &'static str {
        match self {
            Side::Ingress => "ingress",
            Side::Egress => "egress",
        }
    }
}

impl Step {
    /// A step without specialities, to be completed by struct update.
    const PLAIN: Step = Step { says: "", policy: "", unlabel: &[], table: "", side: None };

    pub fn table(&self) -> Result<Table> {
        Table::parse(self.table).with_context(|| format!("the table of {:?}", self.says))
    }

    /// True when the policy names addresses, which are of one family only.
    pub fn names_addresses(&self) -> bool {
        self.policy.contains("cidr:")
    }
}

/// All stories, in order.
pub fn all() -> impl Iterator<Item = &'static Story> {
    a::STORIES.iter().chain(b::STORIES)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name misspelt in a table would otherwise surface only in a run as root.
    #[test]
    fn every_table_fits_the_cluster() {
        let spec = cluster::spec();
        for story in all() {
            for step in story.steps {
                step.table().unwrap().check(&spec).unwrap_or_else(|e| panic!("{}: {e}", story.id));
            }
        }
    }

    #[test]
    fn every_case_has_its_story() {
        let ids: Vec<_> = all().map(|story| story.id).collect();
        let a = (1..=13).map(|n| format!("A{n}"));
        assert_eq!(ids, a.chain((1..=8).map(|n| format!("B{n}"))).collect::<Vec<_>>());
    }
}
