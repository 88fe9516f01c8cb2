//! Rows of `docs/MATRIX.md`, as the tests report them: one line of tab-separated words on standard
//! output, which `cargo xtask matrix` collects.
//!
//! ```text
//! matrix  SECTION  ROW  TEST  KERNEL  holds|fails
//! ```

use std::{fs, thread};

/// A row that a test answers for. A test that ends in any way but by [`Row::holds`] says that it
/// fails.
#[derive(Debug)]
#[must_use = "a row that is dropped at once fails"]
pub struct Row {
    section: &'static str,
    name: String,
    held: bool,
}

/// Starts a row of a section.
pub fn row(section: &'static str, name: impl Into<String>) -> Row {
    Row { section, name: name.into(), held: false }
}

impl Row {
    /// Says that all of the test was done and was right.
    pub fn holds(mut self) {
        self.held = true;
    }

    fn line(&self, kernel: &str) -> String {
        let thread = thread::current();
        let test = thread.name().unwrap_or("a thread without a name");
        let outcome = if self.held { "holds" } else { "fails" };
        format!("matrix\t{}\t{}\t{test}\t{kernel}\t{outcome}", self.section, self.name)
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease");
        println!("{}", self.line(kernel.as_deref().map_or("unknown", str::trim)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_fails_until_it_holds() {
        let mut open = row("Topologies", "a shape");
        let test = "matrix::tests::a_row_fails_until_it_holds";
        assert_eq!(open.line("6.1"), format!("matrix\tTopologies\ta shape\t{test}\t6.1\tfails"));
        open.held = true;
        assert_eq!(open.line("6.1"), format!("matrix\tTopologies\ta shape\t{test}\t6.1\tholds"));
    }
}
