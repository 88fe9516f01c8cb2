//! `docs/MATRIX.md`: what real packets were tried on, by which test, on which kernel. Made of what
//! the tests say of themselves, never written by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::shell;
use crate::test::{self, Tier, Told};
use crate::vm::{self, Kernel};
use crate::workspace;

/// Run the tests that send packets and write what they say of themselves into docs/MATRIX.md
///
/// A whole run replaces the columns of its kernels, one with a filter the rows of its tests; the rest
/// stays. A row that fails is written as such, and the command fails.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run them in virtual machines with these kernels [default: on this machine]
    #[arg(value_enum)]
    kernels: Vec<Kernel>,

    /// Run nothing: take the rows from what `cargo xtask vm` or `test` printed
    #[arg(long, value_name = "FILE", conflicts_with = "kernels")]
    log: Option<PathBuf>,

    /// Run, or take from the file, only tests whose name contains this
    #[arg(last = true)]
    filter: Option<String>,
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

pub fn run(Args { kernels, log, filter }: &Args) -> Result<()> {
    let mut told = match log {
        Some(log) => Told { cells: heard(&fs::read_to_string(log)?), ..Told::default() },
        None if kernels.is_empty() => {
            test::run_tiers(&[Tier::Prog, Tier::Netns], filter.as_deref())?
        }
        None => vm::run_on(kernels, &vm::Order::of(filter.clone()))?,
    };
    let asked = |cell: &Cell| filter.as_ref().is_none_or(|filter| cell.test.contains(filter));
    told.cells.retain(asked);
    let failed = told.cells.iter().filter(|cell| cell.outcome == FAILS).count();
    let verdict = told.verdict();
    let file = workspace::root().join("docs/MATRIX.md");
    let before = read(&fs::read_to_string(&file).unwrap_or_default());
    shell::write(&file, &page(&joined(before, told.cells, filter.is_none())))?;
    ensure!(failed == 0, "{failed} rows fail");
    verdict
}

/// The cells in what a run printed, each line behind the name of its machine if it has one.
fn heard(text: &str) -> Vec<Cell> {
    text.lines().filter_map(|line| Cell::parse(&line[line.find("matrix\t")?..])).collect()
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
fn joined(before: Vec<Cell>, now: Vec<Cell>, whole: bool) -> Vec<Cell> {
    let line = |cell: &Cell| Release::of(&cell.kernel).line();
    let place =
        |cell: &Cell| (cell.section.clone(), cell.row.clone(), cell.test.clone(), line(cell));
    let columns: BTreeSet<_> = now.iter().map(line).collect();
    let places: BTreeSet<_> = now.iter().map(place).collect();
    let replaced = |cell: &Cell| {
        if whole { columns.contains(&line(cell)) } else { places.contains(&place(cell)) }
    };
    before.into_iter().filter(|cell| !replaced(cell)).chain(now).collect()
}

const FAILS: &str = "fails";
const NOT_CLAIMED: &str = "·";

const HEAD: &str = "# What holds, where\n
Written by `cargo xtask matrix` from what the tests say on each kernel; not edited by hand. Each row is a test with real
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
        let after = joined(read(&page(&before)), now, true);
        let told: Vec<_> =
            read(&page(&after)).into_iter().map(|cell| (cell.row, cell.kernel)).collect();
        assert_eq!(told, [("one", "6.1.2"), ("two", "6.18")].map(|(a, b)| (a.into(), b.into())));
        let now = vec![cell("one", "6.1.1", "fails")];
        let after = joined(before.clone(), now.clone(), false);
        assert_eq!(after, [&before[1..], &now].concat());
    }

    #[test]
    fn rows_are_read_from_what_a_run_printed() {
        let text =
            "6.1: matrix\tTraffic\ta row\ta_test\t6.1.1\tholds\n6.1: ok\nmatrix\ta\tb\tc\td\te\n";
        assert_eq!(heard(text).len(), 2);
    }
}
