//! `docs/MATRIX.md`: what real packets were tried on, by which test, on which kernel. Made of what
//! the tests say of themselves, never written by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Result, bail};

use crate::shell;
use crate::test::{self, Tier};
use crate::vm::{self, Kernel};
use crate::workspace;

/// Run the tests that send packets and write what they say of themselves into docs/MATRIX.md
///
/// A run replaces the columns of its kernels and keeps the others. Nothing is written of a run with a
/// failure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run them in virtual machines with these kernels [default: on this machine]
    #[arg(value_enum)]
    kernels: Vec<Kernel>,
}

/// One line that a test says of itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    section: String,
    row: String,
    test: String,
    kernel: String,
    outcome: String,
}

impl Cell {
    /// Reads `matrix SECTION ROW TEST KERNEL holds|fails|FIGURES`, with tabs between.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("matrix\t")?.split('\t').map(str::to_owned);
        let (section, row) = (words.next()?, words.next()?);
        let (test, kernel) = (words.next()?, words.next()?);
        Some(Self { section, row, test, kernel, outcome: words.next()? })
    }
}

pub fn run(Args { kernels }: &Args) -> Result<()> {
    let told = if kernels.is_empty() {
        test::run_tiers(&[Tier::Prog, Tier::Netns], None)?
    } else {
        vm::run_on(kernels, &vm::Order::default())?
    };
    let failed = told.cells.iter().find(|cell| cell.outcome == "fails");
    if let Some(Cell { section, row, test, kernel, .. }) = failed {
        bail!("{section}: {row}: {test} fails on {kernel}");
    }
    let file = workspace::root().join("docs/MATRIX.md");
    let before = read(&fs::read_to_string(&file).unwrap_or_default());
    shell::write(&file, &page(&joined(before, told.cells)))
}

/// The cells of a page.
fn read(page: &str) -> Vec<Cell> {
    let (mut section, mut kernels) = ("", Vec::new());
    let mut cells = Vec::new();
    for line in page.lines() {
        if let Some(name) = line.strip_prefix("## ") {
            section = name;
        }
        let words = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |"));
        let Some(words) = words else { continue };
        let mut words = words.split(" | ");
        let (Some(row), Some(test)) = (words.next(), words.next()) else { continue };
        if test == "test" {
            kernels = words.collect();
            continue;
        }
        let known = kernels.iter().zip(words).filter(|(_, outcome)| *outcome != NOT_CLAIMED);
        cells.extend(known.map(|(kernel, outcome)| Cell {
            section: section.to_owned(),
            row: row.to_owned(),
            test: test.trim_matches('`').to_owned(),
            kernel: (*kernel).to_owned(),
            outcome: outcome.to_owned(),
        }));
    }
    cells
}

/// Cells of an earlier run and of a new one. Of a kernel's line there is one column: its last run's.
fn joined(before: Vec<Cell>, now: Vec<Cell>) -> Vec<Cell> {
    let ran: BTreeSet<_> = now.iter().map(|cell| Release::of(&cell.kernel).line()).collect();
    let kept = before.into_iter().filter(|cell| !ran.contains(&Release::of(&cell.kernel).line()));
    kept.chain(now).collect()
}

const NOT_CLAIMED: &str = "·";

const HEAD: &str = "# What holds, where\n
Written by `cargo xtask matrix`, a column from one run of the tests; not edited by hand. Each row is a test with real
packets between network namespaces, in IPv4 and IPv6 where the original has both. A dot: the row is not
claimed for that kernel. The newest kernel ran on the machine itself, the others in emulated ones.\n";

/// By row and test, what came out on each kernel.
type Rows<'a> = BTreeMap<(&'a str, &'a str), BTreeMap<Release, &'a str>>;

fn page(cells: &[Cell]) -> String {
    let kernels: BTreeSet<Release> = cells.iter().map(|cell| Release::of(&cell.kernel)).collect();
    let mut sections: BTreeMap<&str, Rows<'_>> = BTreeMap::new();
    for cell in cells {
        let rows = sections.entry(&cell.section).or_default();
        let row = rows.entry((&cell.row, &cell.test)).or_default();
        row.insert(Release::of(&cell.kernel), cell.outcome.as_str());
    }
    let mut page = HEAD.to_owned();
    for (section, rows) in sections {
        page += &format!("\n## {section}\n\n|  | test |");
        for kernel in &kernels {
            page += &format!(" {} |", kernel.name);
        }
        page += &format!("\n|---|---|{}\n", "---|".repeat(kernels.len()));
        for ((row, test), on) in rows {
            page += &format!("| {row} | `{test}` |");
            for kernel in &kernels {
                page += &format!(" {} |", on.get(kernel).unwrap_or(&NOT_CLAIMED));
            }
            page += "\n";
        }
    }
    page
}

/// A kernel's release, in the order of its numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Release {
    numbers: Vec<u32>,
    name: String,
}

impl Release {
    /// 6.12 of 6.12.117.
    fn line(&self) -> Vec<u32> {
        self.numbers.iter().take(2).copied().collect()
    }

    fn of(name: &str) -> Self {
        // What follows the version is the builder's own.
        let end = name.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(name.len());
        let name = name[..end].to_owned();
        let numbers = name.split('.').map_while(|number| number.parse().ok()).collect();
        Self { numbers, name }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_by_section_and_kernels_in_their_order() {
        let line =
            |row: &str, kernel: &str| format!("matrix\tTopologies\t{row}\ta_test\t{kernel}\tholds");
        let lines = [
            line("bridge", "6.12.1-cloud"),
            line("bridge", "6.1.192-cloud"),
            line("IPIP", "6.12.1-cloud"),
        ];
        let cells: Vec<Cell> = lines.iter().filter_map(|line| Cell::parse(line)).collect();
        let page = page(&cells);
        let table = page.split_once("## Topologies\n\n").unwrap().1;
        assert_eq!(
            table,
            "|  | test | 6.1.192 | 6.12.1 |\n|---|---|---|---|\n\
             | IPIP | `a_test` | · | holds |\n| bridge | `a_test` | holds | holds |\n"
        );
        assert_eq!(Cell::parse("test result: ok. 1 passed"), None);
    }

    #[test]
    fn a_run_replaces_the_columns_of_its_kernels() {
        let cell = |row: &str, kernel: &str, outcome: &str| {
            Cell::parse(&format!("matrix\tTraffic\t{row}\ta_test\t{kernel}\t{outcome}")).unwrap()
        };
        let before = vec![
            cell("one", "6.1.1", "holds"),
            cell("two", "6.1.1", "9"),
            cell("two", "6.18", "8"),
        ];
        assert_eq!(read(&page(&before)), before);
        let now = vec![cell("one", "6.1.2-cloud", "holds")];
        let after = joined(read(&page(&before)), now);
        let told: Vec<_> =
            read(&page(&after)).into_iter().map(|cell| (cell.row, cell.kernel)).collect();
        assert_eq!(told, [("one", "6.1.2"), ("two", "6.18")].map(|(a, b)| (a.into(), b.into())));
    }
}
