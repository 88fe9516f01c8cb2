//! `docs/CONFORMANCE.md`: Kubernetes' own tests on every kind of cluster that we make. Made of what the
//! runs say of themselves, never written by hand.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum as _;

use crate::cluster::options::{Cni, Family, Options, Proxy};
use crate::cluster::suite::Suite;
use crate::cluster::tier;
use crate::shell;
use crate::test::Told;
use crate::workspace;

/// Run Kubernetes' own tests on each kind of cluster and write the results into docs/CONFORMANCE.md
///
/// Each kind is a cluster of its own, made and taken down. The tests of policies take ten minutes for
/// each kind. Those of conformance run on one kind unless you name another: without np-agent, with it,
/// and with it and a policy that allows everything in every namespace, which takes an hour. Kinds that
/// do not run keep their rows. Needs root.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this suite
    #[arg(long, value_enum)]
    suite: Option<Suite>,

    /// Only clusters with this CNI plugin
    #[arg(long, value_enum)]
    cni: Option<Cni>,

    /// Only clusters with this mode of kube-proxy
    #[arg(long, value_enum)]
    proxy: Option<Proxy>,

    /// Only clusters with these addresses
    #[arg(long, value_enum)]
    family: Option<Family>,

    /// Run nothing: take the results from what `cargo xtask test --tier cluster` printed
    #[arg(long, value_name = "FILE", conflicts_with_all = ["suite", "cni", "proxy", "family"])]
    log: Option<PathBuf>,
}

/// One suite on one kind of cluster, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub suite: String,
    /// Kubernetes' version.
    pub version: String,
    /// The CNI plugin, kube-proxy's mode and the addresses.
    pub kind: [String; 3],
    pub passed: u64,
    pub failed: u64,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { suite, version, kind: [cni, proxy, family], passed, failed } = self;
        write!(f, "conformance\t{suite}\t{version}\t{cni}\t{proxy}\t{family}\t{passed}\t{failed}")
    }
}

impl Run {
    /// Reads the line that a run prints of itself.
    pub fn parse(line: &str) -> Option<Self> {
        Self::of(line.strip_prefix("conformance\t")?.split('\t'))
    }

    fn of<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut next = || words.next().map(str::to_owned);
        let (suite, version) = (next()?, next()?);
        let kind = [next()?, next()?, next()?];
        Some(Self {
            suite,
            version,
            kind,
            passed: next()?.parse().ok()?,
            failed: next()?.parse().ok()?,
        })
    }
}

/// The kinds of clusters: every mode of kube-proxy with every plugin, and the other addresses once.
fn kinds() -> Vec<Options> {
    let mut kinds = Vec::new();
    for family in [Family::V4, Family::V6, Family::Dual] {
        for cni in [Cni::Ptp, Cni::Bridge] {
            for proxy in Proxy::value_variants() {
                kinds.push(Options { cni, proxy: *proxy, family, ..Options::default() });
            }
        }
    }
    kinds.retain(|kind| {
        kind.family == Family::V4 || (kind.cni == Cni::Ptp && kind.proxy == Proxy::Iptables)
    });
    kinds.push(Options { cni: Cni::Flannel, ..Options::default() });
    kinds
}

pub fn run(Args { suite, cni, proxy, family, log }: &Args) -> Result<()> {
    if let Some(log) = log {
        let text = fs::read_to_string(log).with_context(|| format!("reading {}", log.display()))?;
        let runs: Vec<Run> = text.lines().filter_map(Run::parse).collect();
        ensure!(!runs.is_empty(), "{} tells of no suite", log.display());
        return write(runs);
    }
    let named = cni.is_some() || proxy.is_some() || family.is_some();
    let wanted = |kind: &Options| {
        cni.is_none_or(|cni| cni == kind.cni)
            && proxy.is_none_or(|proxy| proxy == kind.proxy)
            && family.is_none_or(|family| family == kind.family)
    };
    let kinds: Vec<Options> = kinds().into_iter().filter(wanted).collect();
    ensure!(!kinds.is_empty(), "no such kind of cluster is run");
    let mut problems = Vec::new();
    let suites =
        Suite::value_variants().iter().filter(|one| suite.is_none_or(|suite| suite == **one));
    let default = |kind: &Options| *kind == Options::default();
    let runs = suites.flat_map(|suite| {
        let kinds = kinds.iter();
        kinds
            .filter(move |kind| *suite == Suite::NetworkPolicy || named || default(kind))
            .map(move |kind| (*suite, *kind))
    });
    for (suite, kind) in runs {
        println!("==> {kind}");
        let Told { conformance, problems: these, .. } = tier::suite_alone(suite, &kind)?;
        problems.extend(these.into_iter().map(|problem| format!("{kind}: {problem}")));
        // After each, so that a long run that is ended keeps what it has.
        write(conformance)?;
    }
    ensure!(problems.is_empty(), "{}", problems.join("; "));
    Ok(())
}

fn write(now: Vec<Run>) -> Result<()> {
    let file = workspace::root().join("docs/CONFORMANCE.md");
    let before = read(&fs::read_to_string(&file).unwrap_or_default());
    shell::write(&file, &page(before.into_iter().chain(now)))
}

const HEAD: &str = "# Conformance\n
Kubernetes' own tests, unmodified, against the DaemonSet as shipped, on clusters of two nodes that `cargo xtask cluster up` makes.
`cargo xtask conformance` writes this page from what the runs say.\n
- *NetworkPolicy* is every spec about policies, except those that open SCTP sockets: the kernel of the machine has no SCTP.
  The tests in virtual machines cover SCTP ([MATRIX](MATRIX.md)).
- *Conformance* is every spec with which Kubernetes tests the network of any cluster.
  It runs without np-agent, with it, and once more with a policy in every namespace that allows everything.
  A spec that passes without np-agent must pass with it.\n
| suite | Kubernetes | CNI | kube-proxy | addresses | passed | failed |
|---|---|---|---|---|---|---|
";

/// The runs of a page.
fn read(page: &str) -> Vec<Run> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.filter_map(|row| Run::of(row.split(" | "))).collect()
}

/// Of a suite on a kind of cluster, the last run counts.
fn page(runs: impl Iterator<Item = Run>) -> String {
    let rows: BTreeMap<_, _> =
        runs.map(|run| ((run.suite.clone(), run.kind.clone()), run)).collect();
    let mut page = HEAD.to_owned();
    for Run { suite, version, kind, passed, failed } in rows.values() {
        page += &format!("| {suite} | {version} | {} | {passed} | {failed} |\n", kind.join(" | "));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(proxy: &str, passed: u64) -> Run {
        Run {
            suite: "NetworkPolicy".to_owned(),
            version: "v1.2.3".to_owned(),
            kind: ["ptp".to_owned(), proxy.to_owned(), "v4".to_owned()],
            passed,
            failed: 0,
        }
    }

    #[test]
    fn a_run_is_read_as_it_is_printed_and_as_it_is_on_the_page() {
        assert_eq!(Run::parse(&run("iptables", 45).to_string()), Some(run("iptables", 45)));
        let before = page([run("iptables", 44), run("nftables", 45)].into_iter());
        let after = page(read(&before).into_iter().chain([run("iptables", 45)]));
        assert_eq!(read(&after), [run("iptables", 45), run("nftables", 45)]);
    }

    #[test]
    fn every_proxy_meets_every_plugin_and_every_family_is_met() {
        let kinds = kinds();
        assert_eq!(kinds.len(), 7);
        assert!(kinds.iter().any(|kind| kind.family == Family::Dual));
    }
}
