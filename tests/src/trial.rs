//! The trial of a CNI's shape: one small cluster, one set of policies, and two tables of what must
//! be reachable, the same for every shape.
//!
//! The open table is played without agents first, where it proves that the shape itself works,
//! then with agents and no policy, where nothing may change. Then come the policies.

pub mod cases;
mod cluster;
pub mod services;
pub mod world;

use anyhow::{Context, Result, ensure};

use crate::address::Family;
use crate::agent::{Agents, POLICIES};
use crate::demo::terminal::Terminal;
use crate::matrix;
use crate::proxy::Mode;
use crate::story::matrix::Table;
use crate::topology::{Cluster, Shape};

/// A cluster in a shape, with agents and without policies.
#[derive(Debug)]
pub struct Trial {
    // Dropped in this order: agents clean up while their nodes exist.
    pub agents: Agents,
    pub cluster: Cluster,
}

/// Plays everything and reports the shape's row: what a test of a shape does.
pub fn judges_every_cell(shape: Shape, proxy: Mode, roles: &[(&str, &str)]) -> Result<()> {
    let row = matrix::row("Topologies", format!("{}, {proxy}", shape.name));
    let mut trial = Trial::set_up(shape, proxy)?;
    trial.check_roles(roles)?;
    let checked = trial.check_open("agents, no policy").and_then(|()| trial.check_policies());
    checked.with_context(|| trial.agents.drops())?;
    row.holds();
    Ok(())
}

impl Trial {
    /// Builds the cluster, shows that all is reachable without agents, and starts them.
    pub fn set_up(shape: Shape, proxy: Mode) -> Result<Self> {
        let cluster = Cluster::build(cluster::spec(shape), proxy).context("build the cluster")?;
        check_open(&cluster, "no agents")?;
        let agents = Agents::start(&cluster).context("start the agents")?;
        Ok(Self { agents, cluster })
    }

    /// Checks what the agents take devices for; "none" for those without programs.
    pub fn check_roles(&mut self, roles: &[(&str, &str)]) -> Result<()> {
        for node in self.cluster.spec.nodes.clone() {
            let status = self.agents.on(node.name)?.status()?;
            for (name, expected) in roles.iter().chain(&[("eth0", "uplink")]) {
                let device = status.devices.iter().find(|device| device.name == *name);
                let role = device.map_or("unknown to it", |device| device.role.as_str());
                ensure!(role == *expected, "{name} of {} is {role}, not {expected}", node.name);
            }
        }
        Ok(())
    }

    /// Checks that all is reachable.
    pub fn check_open(&self, when: &str) -> Result<()> {
        check_open(&self.cluster, when)
    }

    /// Puts the policies in force, in each family with its own blocks, and checks every cell.
    pub fn check_policies(&mut self) -> Result<()> {
        for &family in self.cluster.spec.shape.families {
            self.agents.apply(POLICIES, Some(&family.manifest(cluster::POLICIES)))?;
            let when = format!("policies with {} blocks", family.name());
            check(&self.cluster, &when, cluster::POLICED, &[family])?;
        }
        Ok(())
    }
}

/// Plays the open table, and the other with every denied cell reachable: what policies then deny
/// was denied by them.
fn check_open(cluster: &Cluster, when: &str) -> Result<()> {
    check(cluster, when, cluster::OPEN, cluster.spec.shape.families)?;
    check(cluster, when, &allowed(), cluster.spec.shape.families)
}

fn allowed() -> String {
    let open = cluster::POLICED.replace("not-service", "via-service");
    open.replace(" no ", " yes ").replace(" no\n", " yes\n")
}

/// Plays a table; a cell that differs is an error that shows all of it.
///
/// `via-service` and `not-service` stand for what a connection to the own node's pod by its Service
/// comes to where the shape lets it through.
pub fn check(cluster: &Cluster, when: &str, table: &str, families: &[Family]) -> Result<()> {
    let same_node_service = if cluster.spec.shape.switches_past_netfilter() { "." } else { "yes" };
    let table = table.replace("via-service", same_node_service).replace("not-service", "no");
    let table = Table::parse(&table)?;
    table.check(&cluster.spec)?;
    let matrix = table.play(cluster, families)?;
    let shape = cluster.spec.shape.name;
    println!("{shape}, {}: {when}: {} cells", cluster.proxy, matrix.probed());
    let shown = Terminal { colour: false }.matrix(&matrix);
    ensure!(matrix.differing() == 0, "{shape}, {}: {when}:\n{shown}", cluster.proxy);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A denied cell that is left over would be a time-out that nobody made.
    #[test]
    fn without_policies_no_cell_is_denied() {
        assert!(!allowed().split_whitespace().any(|word| word == "no"));
    }

    /// A name misspelt in a table would otherwise surface only in a run as root.
    #[test]
    fn every_table_fits_the_cluster() {
        for table in [cluster::OPEN, cluster::POLICED] {
            let table = table.replace("via-service", "yes").replace("not-service", "no");
            let table = Table::parse(&table).unwrap();
            table.check(&cluster::spec(Shape::PTP)).unwrap();
        }
    }
}
