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
    holds: bool,
}

impl Cell {
    /// Reads `matrix SECTION ROW TEST KERNEL holds|fails`, with tabs between.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("matrix\t")?.split('\t').map(str::to_owned);
        let (section, row) = (words.next()?, words.next()?);
        let (test, kernel) = (words.next()?, words.next()?);
        let holds = words.next()? == "holds";
        Some(Self { section, row, test, kernel, holds })
    }
}

pub fn run(Args { kernels }: &Args) -> Result<()> {
    let mut cells = test::run_tiers(&[Tier::Netns], None)?.cells;
    if !kernels.is_empty() {
        cells.extend(vm::run_on(kernels, &vm::Order::default())?.cells);
    }
    if let Some(Cell { section, row, test, kernel, .. }) = cells.iter().find(|cell| !cell.holds) {
        bail!("{section}: {row}: {test} fails on {kernel}");
    }
    shell::write(&workspace::root().join("docs/MATRIX.md"), &page(&cells))
}

const HEAD: &str = "# What holds, where\n
Written by `cargo xtask matrix` from one run of the tests; not edited by hand. Each row is a test with real
packets between network namespaces, in IPv4 and IPv6 where the original has both. A dot: the row is not
claimed for that kernel.\n";

fn page(cells: &[Cell]) -> String {
    let kernels: BTreeSet<Release> = cells.iter().map(|cell| Release::of(&cell.kernel)).collect();
    let mut sections: BTreeMap<&str, BTreeMap<(&str, &str), BTreeSet<Release>>> = BTreeMap::new();
    for cell in cells {
        let rows = sections.entry(&cell.section).or_default();
        let row = rows.entry((&cell.row, &cell.test)).or_default();
        row.insert(Release::of(&cell.kernel));
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
                page += if on.contains(kernel) { " holds |" } else { " · |" };
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
