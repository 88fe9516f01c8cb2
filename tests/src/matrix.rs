//! Rows of `docs/MATRIX.md`, as the tests report them: one line of tab-separated words on standard
//! output, which `cargo xtask matrix` collects.
//!
//! ```text
//! matrix  SECTION  ROW  TEST  KERNEL  holds|fails|what was measured
//! ```

use std::path::Path;
use std::{fs, thread};

/// A row that a test answers for. A test that ends in any way but by [`Row::holds`] or
/// [`Row::measured`] says that it fails.
#[derive(Debug)]
#[must_use = "a row that is dropped at once fails"]
pub struct Row {
    section: &'static str,
    name: String,
    outcome: String,
}

/// Starts a row of a section.
pub fn row(section: &'static str, name: impl Into<String>) -> Row {
    Row { section, name: name.into(), outcome: "fails".into() }
}

impl Row {
    /// Says that all of the test was done and was right.
    pub fn holds(self) {
        self.measured("holds");
    }

    /// Says what came out, in place of a verdict.
    pub fn measured(mut self, figures: impl Into<String>) {
        self.outcome = figures.into();
    }

    fn line(&self, kernel: &str) -> String {
        let thread = thread::current();
        let test = thread.name().unwrap_or("a thread without a name");
        let Self { section, name, outcome } = self;
        format!("matrix\t{section}\t{name}\t{test}\t{kernel}\t{outcome}")
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        let fact = |name| fs::read_to_string(Path::new("/proc/sys/kernel").join(name));
        let [release, build] = ["osrelease", "version"].map(|name| fact(name).unwrap_or_default());
        println!("{}", self.line(kernel(&release, &build)));
    }
}

/// Debian names a release by its interface, and tells the version elsewhere.
fn kernel<'a>(release: &'a str, build: &'a str) -> &'a str {
    let version = build.split_once("Debian ").and_then(|(_, rest)| rest.split([' ', '-']).next());
    version.unwrap_or(release.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_fails_until_it_holds() {
        let mut open = row("Topologies", "a shape");
        let test = "matrix::tests::a_row_fails_until_it_holds";
        assert_eq!(open.line("6.1"), format!("matrix\tTopologies\ta shape\t{test}\t6.1\tfails"));
        open.outcome = "holds".into();
        assert_eq!(open.line("6.1"), format!("matrix\tTopologies\ta shape\t{test}\t6.1\tholds"));
        // It is no row of the real matrix.
        std::mem::forget(open);
    }

    #[test]
    fn a_kernel_is_named_by_its_version() {
        let build = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-1 (2026-11-01)\n";
        assert_eq!(kernel("6.1.0-56-cloud-amd64\n", build), "6.1.192");
        assert_eq!(kernel("6.18.44\n", "#1 SMP\n"), "6.18.44");
    }
}
