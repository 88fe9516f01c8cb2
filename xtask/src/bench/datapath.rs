//! What packets cost, next to other ways to enforce the same policy.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::chart::{Chart, Point};
use crate::build;
use crate::workspace::{self, Workspace};
use crate::{shell, test};

pub fn run(filter: Option<&str>) -> Result<()> {
    build::run(&build::Args {})?;
    let agent = Workspace::read(false)?.target_dir.join("release/np-agent");
    let mut command = shell::cargo();
    command
        .args(["bench", "--package", "np-tests", "--bench", "datapath", "--"])
        .args(filter)
        .env("NP_AGENT", agent)
        .current_dir(workspace::root());
    println!("==> benchmarks of the datapath (some minutes)");
    let figures = told(&mut command)?;
    if filter.is_some() {
        return Ok(());
    }
    let docs = workspace::root().join("docs");
    shell::write(&docs.join("datapath.json"), &(serde_json::to_string_pretty(&figures)? + "\n"))?;
    shell::write(&docs.join("datapath.svg"), &draw(&figures)?)
}

/// Runs the part that takes seconds, unoptimised: its figures mean nothing, but every packet must come to
/// what is measured.
pub fn check() -> Result<()> {
    told(test::cargo("test").args(["--bench", "datapath", "--", "programs"])).map(drop)
}

fn draw(figures: &[Value]) -> Result<String> {
    let chart = Chart {
        title: "A datagram on its way: times as long as without policy, median",
        sizes: "peers that the policy allows",
        label: |ratio| format!("× {ratio}"),
    };
    let ratio = |figure: &Value| {
        let of = |field: &str| figure.get(field)?.as_str();
        let wanted = of("measure")? == "one-way UDP, per packet" && of("unit")? == "ratio";
        let point = Point { x: figure.get("rules")?.as_f64()?, y: figure.get("value")?.as_f64()? };
        wanted.then_some((of("variant")?.to_owned(), point))
    };
    let points: Vec<_> = figures.iter().filter_map(ratio).collect();
    if points.is_empty() {
        bail!("the benchmark told no ratio");
    }
    Ok(chart.draw(&points))
}

/// Shows what the benchmark prints for people as it comes, and returns what it tells us.
fn told(command: &mut std::process::Command) -> Result<Vec<Value>> {
    let line = shell::line(command);
    println!("    $ {line}");
    shell::flush();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{line}`"))?;
    let output = child.stdout.take().context("its output is piped")?;
    let mut figures = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        match line.strip_prefix("json\t") {
            Some(figure) => figures.push(serde_json::from_str(figure)?),
            None => println!("{line}"),
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_in_the_docs_can_be_drawn() {
        let path = workspace::root().join("docs/datapath.json");
        let figures: Vec<Value> =
            serde_json::from_str(&std::fs::read_to_string(path).expect("it is there"))
                .expect("JSON");
        let picture = draw(&figures).expect("ratios");
        assert_eq!(picture.matches("<polyline").count(), 6);
    }
}
