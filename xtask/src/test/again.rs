//! A second run for tests of real traffic and of a real API client that failed.
//!
//! They wait for kernels, processes and timers, next to all the others. A test that passes alone has
//! shown a fault of its timing more likely than one of the product, but it is still a fault: its name
//! and all that it printed are in the output.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::{Tally, Told, alone, stream};

/// More failures than this are not chance.
const MAX_FAILURES: usize = 6;

/// Whether a test file waits for others. What random packets have shown once is shown.
fn waits(target: &str) -> bool {
    target == "api" || target.starts_with("netns_") && target != "netns_arrival"
}

/// Runs what failed again, one test after another.
pub fn run(told: &mut Told, agent: &Path) -> Result<()> {
    let all_wait = told.failures.iter().all(|failure| waits(&failure.target));
    if told.tally.broken || !all_wait || told.failures.len() > MAX_FAILURES {
        return Ok(());
    }
    for failure in std::mem::take(&mut told.failures) {
        println!("==> {} {} again, alone", failure.target, failure.name);
        let second = stream(alone(&failure), agent, None)
            .with_context(|| format!("running {} again", failure.name))?;
        told.cells.extend(second.cells);
        if matches!(second.tally, Tally { passed: 1.., failed: 0, broken: false, .. }) {
            told.tally.failed -= 1;
            told.tally.passed += 1;
            told.unsteady.push(failure);
        } else {
            told.failures.push(failure);
        }
    }
    Ok(())
}

/// The file of a line `Running tests/netns_life.rs (target/debug/deps/netns_life-0123abcd)`.
pub fn target(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("Running")?;
    let (_, program) = rest.split_once("deps/")?;
    Some(program.rsplit_once('-')?.0.to_owned())
}

/// The name in a line `test connections::survive ... FAILED`, coloured or not.
pub fn failed(line: &str) -> Option<String> {
    let (name, result) = line.strip_prefix("test ")?.split_once(" ... ")?;
    result.contains("FAILED").then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::Failure;

    #[test]
    fn what_failed_is_heard_with_its_file() {
        let mut told = Told::default();
        for line in [
            "     Running tests/netns_life/main.rs (target/debug/deps/netns_life-5cb78a1bbb7f)",
            "test connections::survive ... ok",
            "test kills::close ... FAILED",
            "\u{1b}[1m     Running\u{1b}[m tests/x.rs (target/debug/deps/netns_x-01)",
            "test last ... \u{1b}[31mFAILED\u{1b}[m",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured",
        ] {
            told.hear(line);
        }
        let failure =
            |target: &str, name: &str| Failure { target: target.to_owned(), name: name.to_owned() };
        assert_eq!(
            told.failures,
            [failure("netns_life", "kills::close"), failure("netns_x", "last")]
        );
    }
}
