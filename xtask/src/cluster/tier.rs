//! The tier cluster: the DaemonSet as shipped, our own scenarios, and Kubernetes' tests of policies.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use super::control_plane::kubectl;
use super::options::Options;
use super::places::Places;
use super::suite::{self, Suite};
use super::{compare, down, load, programs, take_down, up};
use crate::shell::{self, step};
use crate::test::{self, Report, Row, Tier, Told};
use crate::workspace;

/// What a user applies to a cluster of `cargo xtask cluster up`.
const OVERLAY: &str = "deploy/overlays/local";

/// Runs the tier in the cluster that there is, or in one of its own.
///
/// # Errors
/// If something fails.
pub fn run(filter: Option<&str>) -> Result<()> {
    if !shell::is_root() {
        bail!(
            "the tier cluster needs root: `sudo -E env \"PATH=$PATH\" cargo xtask test --tier cluster`"
        );
    }
    let places = Places::find()?;
    if !down::namespaces()?.is_empty() {
        println!("cluster: using the one that there is; it stays");
        load(&places)?;
        return in_cluster(&places, filter);
    }
    in_own_cluster(&Options::default(), &places, || in_cluster(&places, filter))
}

/// Runs one of Kubernetes' suites alone, in a cluster of its own of some kind.
///
/// # Errors
/// If there is a cluster already, or this one cannot be made. Specs that fail are told.
pub fn suite_alone(suite: Suite, options: &Options) -> Result<Told> {
    let places = Places::find()?;
    in_own_cluster(options, &places, || {
        let program = programs::build_suite(&places)?;
        match suite {
            Suite::NetworkPolicy => {
                deploy(&places)?;
                policies(&program, &places, None)
            }
            Suite::Conformance => compare::run(&program, &places, || deploy(&places), None),
        }
    })
}

fn policies(program: &Path, places: &Places, filter: Option<&str>) -> Result<Told> {
    let suite = suite::run(program, places, Suite::NetworkPolicy, "NetworkPolicy", filter);
    let mut told = suite.context("running Kubernetes' tests")?.told;
    if told.tally.failed > 0 {
        told.problems.push(format!("{} of Kubernetes' tests failed", told.tally.failed));
    }
    Ok(told)
}

/// Makes a cluster, and takes it down however the run in it ends.
fn in_own_cluster<T>(
    options: &Options,
    places: &Places,
    run: impl FnOnce() -> Result<T>,
) -> Result<T> {
    up(options, places)?;
    match (run(), take_down(places)) {
        (outcome, Ok(())) => outcome,
        (Ok(_), Err(left)) => Err(left),
        (Err(error), Err(left)) => Err(error.context(format!("and something is left: {left:#}"))),
    }
}

fn in_cluster(places: &Places, filter: Option<&str>) -> Result<()> {
    programs::build_helm(places)?;
    step("building kubectl np", || shell::run(test::cargo("build").args(["--bin", "kubectl-np"])))?;
    let program = programs::build_suite(places)?;
    deploy(places)?;
    let start = Instant::now();
    let mut told = Told::default();
    let ours = test::run_in_cluster(places.root(), |_| true, filter);
    told.add(ours.context("running our scenarios")?);
    told.add(policies(&program, places, filter)?);
    let row = Row { tier: Tier::Cluster, tally: told.tally, took: start.elapsed() };
    let Report { text, problems } = test::report(&[row], filter);
    print!("\n{text}");
    shell::flush();
    told.problems.extend(problems);
    told.verdict()
}

/// Applies what is shipped, and waits until every node has an agent that is ready.
fn deploy(places: &Places) -> Result<()> {
    rendered(places)?;
    step("deploying the agent", || {
        let overlay = workspace::root().join(OVERLAY);
        shell::capture(kubectl(places).args(["apply", "--kustomize"]).arg(overlay))?;
        let wait = "rollout status daemonset/np-agent --namespace kube-system --timeout=120s";
        shell::capture(kubectl(places).args(wait.split(' '))).with_context(|| said(places))?;
        Ok(())
    })
}

/// deploy/np-agent.yaml is what `kubectl kustomize` makes of the base.
fn rendered(places: &Places) -> Result<()> {
    let deploy = workspace::root().join("deploy");
    let want = shell::capture(
        Command::new(places.program("kubectl")).arg("kustomize").arg(deploy.join("base")),
    )?;
    let path = deploy.join("np-agent.yaml");
    let have =
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    if have != want {
        bail!(
            "deploy/np-agent.yaml is not what deploy/base makes: `kubectl kustomize deploy/base > deploy/np-agent.yaml`"
        );
    }
    Ok(())
}

/// The last words of the agents.
fn said(places: &Places) -> String {
    let logs = "logs --namespace kube-system --selector k8s-app=np-agent --prefix --tail=5";
    let logs = shell::capture(kubectl(places).args(logs.split(' ')));
    let logs = logs.unwrap_or_else(|error| format!("{error:#}"));
    format!("the agents are not ready; they say:\n{}", logs.trim())
}
