//! The demo on a terminal: policies, matrices in colour, messages.

use std::fmt::Write;

use super::Show;
use crate::agent::InvalidObject;
use crate::story::edit::Fact;
use crate::story::malformed::PlayedMistake;
use crate::story::matrix::{Cell, Expected, Matrix, Observed};
use crate::story::{Played, PlayedStep};

/// How to print: with or without colours.
#[derive(Clone, Copy, Debug)]
pub struct Terminal {
    pub colour: bool,
}

const GREEN: &str = "32";
const RED_ON_DARK: &str = "1;97;41";
const YELLOW: &str = "33";
const BOLD: &str = "1";
const DIM: &str = "2";

impl Terminal {
    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    pub fn heading(self, text: &str) -> String {
        format!("\n{}\n", self.paint(BOLD, text))
    }

    pub fn story(self, played: &Played) -> String {
        let mut out = self.heading(&format!("{}  {}", played.story.id, played.story.title));
        for step in &played.steps {
            out += &self.step(step);
        }
        out
    }

    fn step(self, played: &PlayedStep) -> String {
        let step = played.step;
        let mut out = String::new();
        if step.policy.is_empty() {
            out += &format!("{}\n", self.paint(DIM, "    (no policy)"));
        }
        for line in step.policy.lines() {
            out += &format!("{}\n", self.paint(DIM, &format!("    {line}")));
        }
        if step.names_addresses() {
            out += &format!(
                "{}\n",
                self.paint(DIM, "    # IPv6: the same with the blocks' IPv6 twins")
            );
        }
        for (namespace, label) in step.unlabel {
            out += &format!("    (Namespace {namespace} without its label {label})\n");
        }
        out += &self.matrix(&played.matrix);
        if let Some(side) = &played.side {
            let text = format!(
                "refused by the {} side (packets dropped: ingress {}, egress {})",
                side.expected.name(),
                side.ingress,
                side.egress
            );
            let code = if side.agrees() { GREEN } else { RED_ON_DARK };
            out += &format!("  {}\n", self.paint(code, &text));
        }
        out + &format!("  {}\n", step.says)
    }

    /// The matrix with ✓ and ✗ as observed; a cell that differs says both, in red.
    pub fn matrix(self, matrix: &Matrix) -> String {
        let source = matrix.rows.iter().map(|(from, _)| from.len()).max().unwrap_or(0);
        let mut out = format!("  {:source$}", "");
        for target in &matrix.targets {
            let width = target.text.len().max(CELL);
            out += &format!("  {:width$}", target.text);
        }
        out.push('\n');
        for (from, cells) in &matrix.rows {
            out += &format!("  {from:source$}");
            for (target, cell) in matrix.targets.iter().zip(cells) {
                let width = target.text.len().max(CELL);
                let (text, code) = match cell {
                    Some(cell) if cell.agrees() => {
                        (agreed(cell), if cell.expected == Expected::No { YELLOW } else { GREEN })
                    }
                    Some(_) => ("DIFFERS".to_string(), RED_ON_DARK),
                    None => ("·".to_string(), DIM),
                };
                let padding = width - text.chars().count();
                out += &format!("  {}{:padding$}", self.paint(code, &text), "");
            }
            out.push('\n');
        }
        for (from, to, cell) in matrix.cells() {
            for observed in cell.observed.iter().filter(|observed| !observed.agrees) {
                let text = format!("{from} → {}: {}", to.text, difference(cell, observed));
                writeln!(out, "  {}", self.paint(RED_ON_DARK, &text))
                    .expect("a string takes every write");
            }
        }
        out
    }

    pub fn facts(self, facts: &[Fact]) -> String {
        let mut out = String::new();
        for Fact { says, observed, agrees } in facts {
            let (mark, code) = if *agrees { ("✓", GREEN) } else { ("✗", RED_ON_DARK) };
            out += &format!("  {} {says}: {observed}\n", self.paint(code, mark));
        }
        out
    }

    pub fn summary(self, show: &Show) -> String {
        let code = if show.differing() == 0 { GREEN } else { RED_ON_DARK };
        self.paint(code, &show.summary())
    }

    pub fn mistake(self, played: &PlayedMistake) -> String {
        let mut out = self.heading(played.mistake.title);
        for (number, line) in (1..).zip(played.mistake.text.lines()) {
            out += &format!("{}\n", self.paint(DIM, &format!("    {number:2}  {line}")));
        }
        for message in &played.messages {
            out += &format!("  {}\n", self.paint(YELLOW, &said(message)));
        }
        if !played.explained {
            let text = format!(
                "DIFFERS: expected a message for line {}–{} that names {:?}, with a remedy",
                played.mistake.lines.0, played.mistake.lines.1, played.mistake.names
            );
            out += &format!("  {}\n", self.paint(RED_ON_DARK, &text));
        }
        if played.matrix.differing() == 0 {
            out += &format!("  {} enforcement did not change\n", self.paint(GREEN, "✓"));
        } else {
            out += &self.matrix(&played.matrix);
        }
        out
    }
}

/// The narrowest a column gets: room for both families and for "DIFFERS".
const CELL: usize = 7;

/// A cell that agrees, one mark a family. A family that was not probed has none.
pub fn agreed(cell: &Cell) -> String {
    let mark = if cell.expected == Expected::No { "✗" } else { "✓" };
    vec![mark; cell.observed.len()].join(" ")
}

/// What was expected and what came instead.
pub fn difference(cell: &Cell, observed: &Observed) -> String {
    let expected = match (&cell.expected, observed.source) {
        (Expected::No, _) => "a time-out".to_string(),
        (Expected::Yes(_), None) => "a reply".to_string(),
        (Expected::Yes(_), Some(source)) => format!("a reply that saw {source}"),
    };
    let mut seen: Vec<String> = observed.outcomes.iter().map(ToString::to_string).collect();
    seen.sort();
    seen.dedup();
    format!("{} expected {expected}, observed {}", observed.family.name(), seen.join("; "))
}

/// A message as one line: file:line:column, object, field, value, problem, remedy.
pub fn said(message: &InvalidObject) -> String {
    let InvalidObject { file, line, column, object, field, value, problem, remedy } = message;
    let mut out = file.rsplit('/').next().unwrap_or(file).to_string();
    if *line > 0 {
        out += &format!(":{line}:{column}");
    }
    for part in [object.as_deref().unwrap_or_default(), field] {
        if !part.is_empty() {
            out += &format!(": {part}");
        }
    }
    if !value.is_empty() {
        out += &format!(": {value:?}");
    }
    format!("{out}: {problem}; {remedy}")
}
