//! A reachability matrix: written down by hand as a small table, then probed.
//!
//! ```text
//!           svc-b:443      pod-b-1:8443  pod-b-1:443
//! pod-a     yes@pod-a      yes           no
//! other     no             no            .
//! ```
//!
//! Rows are sources, columns `destination:port` (`:53/udp`, `:icmp`). `yes`: answered. `yes@NAME`:
//! answered, and the server saw NAME's address. `no`: a time-out, nothing else. `.`: not probed.
//! A destination that is spread over endpoints is probed several times, and all must agree.

use std::num::NonZero;
use std::thread;

use anyhow::{Context, Result, bail, ensure};

use crate::address::Family;
use crate::probe::{IMPATIENCE, Kind, Outcome, PATIENCE, Reply, probe};
use crate::proxy::{Service, ServicePort};
use crate::topology::{Cluster, Spec};

/// How often a destination with several endpoints is probed.
const SPREAD: usize = 6;

/// How many cells are probed at once for each processor: more would wait for each other.
const PROBES: usize = 32;

/// Where a column's probes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub name: String,
    pub kind: Kind,
    /// As written: `svc-b:443`.
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Answered; the server saw the address of the one named, if one is.
    Yes(Option<String>),
    /// A time-out.
    No,
}

/// What is expected: `None` where nothing is probed.
#[derive(Clone, Debug)]
pub struct Table {
    pub targets: Vec<Target>,
    pub rows: Vec<(String, Vec<Option<Expected>>)>,
}

/// What one cell gave in one family.
#[derive(Clone, Debug)]
pub struct Observed {
    pub family: Family,
    pub outcomes: Vec<Outcome>,
    /// The source address that was expected, if one was.
    pub source: Option<std::net::IpAddr>,
    pub agrees: bool,
}

/// A probed cell. `observed` has one entry per family.
#[derive(Clone, Debug)]
pub struct Cell {
    pub expected: Expected,
    pub observed: Vec<Observed>,
}

impl Cell {
    pub fn agrees(&self) -> bool {
        self.observed.iter().all(|observed| observed.agrees)
    }
}

/// A table's outcome, in its shape.
#[derive(Clone, Debug)]
pub struct Matrix {
    pub targets: Vec<Target>,
    pub rows: Vec<(String, Vec<Option<Cell>>)>,
}

impl Matrix {
    pub fn cells(&self) -> impl Iterator<Item = (&str, &Target, &Cell)> {
        self.rows.iter().flat_map(move |(from, cells)| {
            self.targets
                .iter()
                .zip(cells)
                .filter_map(move |(to, cell)| Some((from.as_str(), to, cell.as_ref()?)))
        })
    }

    /// Probed cells, one per family.
    pub fn probed(&self) -> usize {
        self.cells().map(|(_, _, cell)| cell.observed.len()).sum()
    }

    pub fn differing(&self) -> usize {
        let observed = self.cells().flat_map(|(_, _, cell)| &cell.observed);
        observed.filter(|observed| !observed.agrees).count()
    }

    /// Joins the outcome of the same table in another family.
    pub fn join(&mut self, other: Matrix) {
        for ((_, ours), (_, theirs)) in self.rows.iter_mut().zip(other.rows) {
            for (ours, theirs) in ours.iter_mut().zip(theirs) {
                if let (Some(ours), Some(theirs)) = (ours, theirs) {
                    ours.observed.extend(theirs.observed);
                }
            }
        }
    }
}

impl Table {
    pub fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let header = lines.next().context("a table starts with its targets")?;
        let targets: Vec<Target> =
            header.split_whitespace().map(Target::parse).collect::<Result<_>>()?;
        let mut rows = Vec::new();
        for line in lines {
            let mut words = line.split_whitespace();
            let from = words.next().context("a row starts with its source")?.to_string();
            let cells: Vec<_> = words.map(expected).collect::<Result<_>>()?;
            ensure!(cells.len() == targets.len(), "row {line:?} does not fit {header:?}");
            rows.push((from, cells));
        }
        Ok(Self { targets, rows })
    }

    /// Fails unless everything the table names exists in the cluster.
    pub fn check(&self, spec: &Spec) -> Result<()> {
        let known = |name: &str| {
            spec.address(name).map(drop).with_context(|| format!("nothing is named {name}"))
        };
        self.targets.iter().try_for_each(|target| known(&target.name))?;
        for (from, cells) in &self.rows {
            known(from)?;
            for expected in cells.iter().flatten() {
                if let Expected::Yes(Some(source)) = expected {
                    known(source)?;
                }
            }
        }
        Ok(())
    }

    /// Probes every cell in every family, as many at once as the machine takes.
    pub fn play(&self, cluster: &Cluster, families: &[Family]) -> Result<Matrix> {
        let cells = self.rows.iter().flat_map(|(from, cells)| {
            let probed = self.targets.iter().zip(cells);
            probed.filter_map(move |(to, expected)| Some((from, to, expected.as_ref()?)))
        });
        let probes: Vec<_> =
            cells.flat_map(|cell| families.iter().map(move |&family| (cell, family))).collect();
        let at_once = PROBES * thread::available_parallelism().map_or(1, NonZero::get);
        let mut observed = Vec::new();
        for probes in probes.chunks(at_once) {
            let ended = thread::scope(|scope| {
                let started: Vec<_> = probes
                    .iter()
                    .map(|&((from, to, expected), family)| {
                        scope.spawn(move || observe(cluster, from, to, expected, family))
                    })
                    .collect();
                let joined = started.into_iter().map(|probe| {
                    probe.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                });
                joined.collect::<Result<Vec<_>>>()
            });
            observed.extend(ended?);
        }
        let mut observed = observed.into_iter();
        let mut cell = |expected: &Expected| Cell {
            expected: expected.clone(),
            observed: observed.by_ref().take(families.len()).collect(),
        };
        let rows = self.rows.iter().map(|(from, cells)| {
            (from.clone(), cells.iter().map(|expected| expected.as_ref().map(&mut cell)).collect())
        });
        Ok(Matrix { targets: self.targets.clone(), rows: rows.collect() })
    }
}

impl Target {
    fn parse(text: &str) -> Result<Self> {
        let (name, port) = text.rsplit_once(':').with_context(|| format!("{text}: no port"))?;
        let kind = match port {
            "icmp" => Kind::Echo,
            "53" => Kind::Dns { tcp: true },
            "53/udp" => Kind::Dns { tcp: false },
            _ => match port.strip_suffix("/udp") {
                Some(udp) => Kind::Udp(udp.parse().with_context(|| format!("port of {text}"))?),
                None => Kind::Tcp(port.parse().with_context(|| format!("port of {text}"))?),
            },
        };
        Ok(Self { name: name.to_string(), kind, text: text.to_string() })
    }
}

fn expected(word: &str) -> Result<Option<Expected>> {
    Ok(match word {
        "." => None,
        "no" => Some(Expected::No),
        "yes" => Some(Expected::Yes(None)),
        _ => match word.strip_prefix("yes@") {
            Some(source) => Some(Expected::Yes(Some(source.to_string()))),
            None => bail!("a cell says yes, yes@SOURCE, no or a dot, not {word}"),
        },
    })
}

fn observe(
    cluster: &Cluster,
    from: &str,
    to: &Target,
    expected: &Expected,
    family: Family,
) -> Result<Observed> {
    let inside = cluster.namespace(from)?;
    let address = cluster.address(&to.name, family)?;
    let patience = match expected {
        Expected::Yes(_) => PATIENCE,
        Expected::No => IMPATIENCE,
    };
    let times = if spreads(&cluster.spec, to) { SPREAD } else { 1 };
    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let probes: Vec<_> =
            (0..times).map(|_| scope.spawn(|| probe(inside, address, to.kind, patience))).collect();
        probes
            .into_iter()
            .map(|probe| probe.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let source = match expected {
        Expected::Yes(Some(name)) => Some(cluster.address(name, family)?),
        _ => None,
    };
    let agrees = outcomes.iter().all(|outcome| match (expected, outcome) {
        (Expected::Yes(_), Outcome::Reply(reply)) => {
            as_expected(&cluster.spec, to, reply)
                && (source.is_none() || reply.source.is_none() || reply.source == source)
        }
        (Expected::No, Outcome::Timeout) => true,
        _ => false,
    });
    Ok(Observed { family, outcomes, source, agrees })
}

/// A reply through a Service or a node's port is of one who is behind it, at that one's port; any
/// other reply is of the destination itself.
fn as_expected(spec: &Spec, to: &Target, reply: &Reply) -> bool {
    let Some(server) = reply.server.as_deref() else { return true };
    match behind(spec, to) {
        Some((hosts, port)) => hosts.contains(&server) && reply.port == Some(port),
        None => server == host(spec, &to.name),
    }
}

fn spreads(spec: &Spec, to: &Target) -> bool {
    behind(spec, to).is_some_and(|(hosts, _)| hosts.len() > 1)
}

/// Whose server answers for a name: the node's for a pod with the host's network.
fn host<'a>(spec: &Spec, name: &'a str) -> &'a str {
    match spec.pod(name) {
        Some(pod) if pod.address.is_none() => pod.node,
        _ => name,
    }
}

/// Who is behind a Service, or behind a port of a node: a Service's NodePort or a pod's host port.
fn behind<'a>(spec: &'a Spec, to: &Target) -> Option<(Vec<&'a str>, u16)> {
    let number = match to.kind {
        Kind::Tcp(port) | Kind::Udp(port) => port,
        Kind::Dns { .. } => 53,
        Kind::Echo => 0,
    };
    let endpoints = |service: &'a Service, port: &ServicePort| {
        let hosts = service.endpoints.iter().map(|name| host(spec, name)).collect();
        (hosts, port.target_port)
    };
    let name = to.name.strip_suffix("/external").unwrap_or(&to.name);
    if let Some(service) = spec.service(name) {
        let port = service.ports.iter().find(|port| port.port == number);
        // A port that the Service has not: nobody can be behind it.
        return Some(port.map_or((Vec::new(), 0), |port| endpoints(service, port)));
    }
    spec.node(name)?;
    let of_service = spec.services.iter().find_map(|service| {
        let port = service.ports.iter().find(|port| port.node_port == Some(number))?;
        Some(endpoints(service, port))
    });
    of_service.or_else(|| {
        spec.pods.iter().find_map(|pod| {
            let (_, port) = pod.host_ports.iter().find(|(host, _)| *host == number)?;
            Some((vec![pod.name], *port))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_reads_as_written() {
        let table = Table::parse("\n  a:80 b:53/udp c:icmp\n x yes@a no .\n").unwrap();
        assert_eq!(table.targets[1].kind, Kind::Dns { tcp: false });
        assert_eq!(table.targets[2].kind, Kind::Echo);
        let (from, cells) = &table.rows[0];
        assert_eq!(from, "x");
        assert_eq!(cells, &[Some(Expected::Yes(Some("a".into()))), Some(Expected::No), None]);
        assert!(Table::parse("a:80\nx yes no").is_err());
        assert!(Table::parse("a:80\nx maybe").is_err());
    }
}
