//! What changes cost the agent.

use anyhow::{Result, bail};

use super::chart::{self, Chart, Point};
use crate::shell;
use crate::workspace;

pub fn run(filter: Option<&str>) -> Result<()> {
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
    let chart = Chart {
        title: "Median time of a change, up to a finished plan",
        sizes: "pods of the cluster",
        label: chart::seconds,
    };
    let picture = workspace::root().join("docs/reconcile.svg");
    shell::write(&picture, &chart.draw(&medians))
}

/// Reads divan's table: a line for each benchmark, and under it one for each size.
fn medians(output: &str) -> Vec<(String, Point)> {
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
            medians.push((name.to_owned(), Point { x: pods, y: seconds }));
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
            read.iter().map(|(name, at)| (name.as_str(), at.x, (at.y * 1e7).round())).collect();
        let want = [
            ("index", 1000.0, 13480.0),
            ("index", 50000.0, 2_394_000.0),
            ("relabel", 1000.0, 1072.0),
        ];
        assert_eq!(shown, want);
    }
}
