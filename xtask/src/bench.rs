//! The benchmarks: run, shown, and drawn.

mod chart;

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::shell;
use crate::workspace;

/// Measure what changes cost the agent by the size of the cluster
///
/// Prints medians and live memory, and draws the medians against the number of pods into
/// docs/reconcile.svg. Run it on a machine that does nothing else.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run only benchmarks whose name contains this, and draw nothing
    filter: Option<String>,
}

/// One line of the results.
#[derive(Clone, Debug, PartialEq)]
struct Median {
    name: String,
    pods: f64,
    seconds: f64,
}

pub fn run(Args { filter }: &Args) -> Result<()> {
    let mut command = shell::cargo();
    command
        .args(["bench", "--package", "np-tests", "--bench", "reconcile", "--"])
        .args(filter)
        .current_dir(workspace::root());
    if filter.is_some() {
        return shell::run(&mut command);
    }
    println!("    $ {} (some minutes)", shell::line(&command));
    shell::flush();
    let output = shell::capture(&mut command)?;
    println!("{output}");
    let medians = medians(&output);
    if medians.is_empty() {
        bail!("the benchmarks printed no median");
    }
    let picture = workspace::root().join("docs/reconcile.svg");
    fs::write(&picture, chart::draw(&medians))
        .with_context(|| format!("cannot write {}", picture.display()))?;
    println!("wrote {}", picture.display());
    Ok(())
}

/// Reads divan's table: a line for each benchmark, and under it one for each size.
fn medians(output: &str) -> Vec<Median> {
    let mut name = "";
    let mut medians = Vec::new();
    for line in output.lines() {
        let plain = line.trim_start_matches(['│', '├', '╰', '─', ' ']);
        if line.starts_with(['├', '╰']) {
            name = plain.split(' ').next().unwrap_or_default();
            continue;
        }
        let columns: Vec<&str> = plain.split('│').map(str::trim).collect();
        let size = columns.first().and_then(|first| first.split_once(" pods"));
        let pods = size.and_then(|(size, _)| size.rsplit(' ').next()?.parse().ok());
        if let (Some(pods), Some(seconds)) = (pods, columns.get(2).and_then(|text| seconds(text))) {
            medians.push(Median { name: name.to_owned(), pods, seconds });
        }
    }
    medians
}

fn seconds(text: &str) -> Option<f64> {
    let (number, unit) = text.split_once(' ')?;
    let scale = match unit {
        "ns" => 1e-9,
        "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
reconcile                         fastest       │ slowest       │ median        │ mean
├─ index                                        │               │               │
│  ├─ 100 policies, 1000 pods     1.331 ms      │ 1.572 ms      │ 1.348 ms      │ 1.4 ms
│  ╰─ 10000 policies, 50000 pods  227.4 ms      │ 240.3 ms      │ 239.4 ms      │ 237.1 ms
╰─ relabel                                      │               │               │
   ╰─ 100 policies, 1000 pods     104.2 µs      │ 4.326 ms      │ 107.2 µs      │ 154.8 µs
";

    #[test]
    fn every_median_is_read_with_its_benchmark_and_size() {
        let read = medians(OUTPUT);
        let shown: Vec<_> =
            read.iter().map(|m| (m.name.as_str(), m.pods, (m.seconds * 1e7).round())).collect();
        let want = [
            ("index", 1000.0, 13480.0),
            ("index", 50000.0, 2_394_000.0),
            ("relabel", 1000.0, 1072.0),
        ];
        assert_eq!(shown, want);
    }

    #[test]
    fn the_picture_has_a_line_for_each_benchmark() {
        let picture = chart::draw(&medians(OUTPUT));
        assert_eq!(picture.matches("<polyline").count(), 2);
        assert!(picture.contains(">relabel<") && picture.ends_with("</svg>\n"));
    }
}
