//! `docs/MATRIX.md`: what real packets were tried on, by which test, on which kernel. Made of what
//! the tests say of themselves, never written by hand.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

use crate::shell;
use crate::test::{self, Tier};
use crate::vm::{self, Kernel};
use crate::workspace;

/// Run the tests that send packets and write docs/MATRIX.md from what they say of themselves
///
/// The file is written only from a whole run without a failure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also run them in virtual machines with these kernels
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
    let mut cells = test::run_tiers(&[Tier::Prog, Tier::Netns], None)?.cells;
    if !kernels.is_empty() {
        cells.extend(vm::run_on(kernels, &vm::Order::default())?.cells);
    }
    let failed = cells.iter().find(|cell| cell.outcome == "fails");
    if let Some(Cell { section, row, test, kernel, .. }) = failed {
        bail!("{section}: {row}: {test} fails on {kernel}");
    }
    shell::write(&workspace::root().join("docs/MATRIX.md"), &page(&cells))
}

const HEAD: &str = "# What holds, where\n
Written by `cargo xtask matrix` from one run of the tests; not edited by hand. Each row is a test with real
packets between network namespaces, in IPv4 and IPv6 where the original has both. A dot: the row is not
claimed for that kernel. The newest kernel ran on the machine itself, the others in emulated ones.\n";

fn page(cells: &[Cell]) -> String {
    let kernels: BTreeSet<Release> = cells.iter().map(|cell| Release::of(&cell.kernel)).collect();
    let mut sections: BTreeMap<&str, BTreeMap<(&str, &str), BTreeMap<Release, &str>>> =
        BTreeMap::new();
    for cell in cells {
        let rows = sections.entry(&cell.section).or_default();
        let row = rows.entry((&cell.row, &cell.test)).or_default();
        row.insert(Release::of(&cell.kernel), cell.outcome.as_str());
    }
    let mut page = HEAD.to_owned();
    for (section, rows) in sections {
        page += &format!("\n## {section}\n\n| | test |");
        for kernel in &kernels {
            page += &format!(" {} |", kernel.name);
        }
        page += &format!("\n|---|---|{}\n", "---|".repeat(kernels.len()));
        for ((row, test), on) in rows {
            page += &format!("| {row} | `{test}` |");
            for kernel in &kernels {
                page += &format!(" {} |", on.get(kernel).unwrap_or(&"·"));
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
            "| | test | 6.1.192 | 6.12.1 |\n|---|---|---|---|\n\
             | IPIP | `a_test` | · | holds |\n| bridge | `a_test` | holds | holds |\n"
        );
        assert_eq!(Cell::parse("test result: ok. 1 passed"), None);
    }
}
