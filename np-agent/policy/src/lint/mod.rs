//! Advice about policies that are valid but probably mistakes.
//!
//! ```text
//!  Index ──────┐                     blocks     ipBlocks that match nothing, or what moves
//!              ├─▶ World ─▶ checks ─ selectors  who is selected, and who is not
//!  Background ─┘                     ports      the Service's port for the pod's
//!  (Services, wording)               types      isolation by surprise, or none
//!                                    dns        names that cannot be looked up
//! ```
//!
//! Nothing here decides a verdict. Every check asks for evidence before it warns: a selector
//! matches nothing only among pods that are known, and what is merely unusual is information.

mod blocks;
mod code;
mod dns;
mod document;
mod finding;
mod items;
mod ports;
mod selectors;
mod types;
mod words;
mod world;

#[cfg(test)]
mod tests;

use crate::index::Index;
use crate::model::Background;

pub use code::{Code, Entry, Example};
pub use document::{document, section};
pub use finding::{Finding, News, Severity};

use finding::Report;
use world::World;

/// All findings about all policies, in the order of files and lines.
pub fn check(index: &Index, background: &Background) -> Vec<Finding> {
    let world = World::new(index, background);
    let mut findings = Vec::new();
    for policy in index.policies() {
        let written = background.policies.get(&policy.key);
        let mut report = Report::new(policy, written, &mut findings);
        blocks::check(&world, &mut report);
        selectors::check(&world, &mut report);
        items::check(&world, &mut report);
        ports::check(&world, &mut report);
        types::check(&mut report);
        dns::check(&world, &mut report);
    }
    findings.sort();
    findings
}
