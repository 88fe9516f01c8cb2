//! Plays a story on a cluster with agents: policies into the manifests, probes, comparison.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::matrix::Matrix;
use super::{Side, Step, Story, cluster};
use crate::address::{Family, twin_manifest};
use crate::agent::{Agents, POLICIES};
use crate::manifests::{NAMESPACES, namespaces};
use crate::proxy::Mode;
use crate::topology::Cluster;

/// A cluster with an agent on every node, between two stories: no policy is in force.
#[derive(Debug)]
pub struct Stage {
    // Dropped in this order: agents clean up while their nodes exist.
    pub agents: Agents,
    pub cluster: Cluster,
}

#[derive(Debug)]
pub struct Played {
    pub story: &'static Story,
    pub steps: Vec<PlayedStep>,
}

#[derive(Debug)]
pub struct PlayedStep {
    pub step: &'static Step,
    pub matrix: Matrix,
    /// What the agents' counters say about the side that refused, when the step expects one.
    pub side: Option<SideCount>,
    /// How long the agents took to put the step's policies in force.
    pub applied: Duration,
}

/// Packets dropped for either side while a step was probed.
#[derive(Clone, Copy, Debug)]
pub struct SideCount {
    pub expected: Side,
    pub ingress: u64,
    pub egress: u64,
}

impl SideCount {
    pub fn agrees(&self) -> bool {
        match self.expected {
            Side::Ingress => self.ingress > 0 && self.egress == 0,
            Side::Egress => self.egress > 0 && self.ingress == 0,
        }
    }
}

impl Played {
    /// Checks made: cells of the matrices, and refusing sides.
    pub fn checks(&self) -> usize {
        self.steps.iter().map(|s| s.matrix.probed() + usize::from(s.side.is_some())).sum()
    }

    pub fn differing(&self) -> usize {
        self.steps.iter().map(PlayedStep::differing).sum()
    }
}

impl PlayedStep {
    pub fn differing(&self) -> usize {
        let side = self.side.is_some_and(|side| !side.agrees());
        self.matrix.differing() + usize::from(side)
    }
}

impl Stage {
    /// Builds the cluster of the stories and starts the agents.
    pub fn set_up(proxy: Mode) -> Result<Self> {
        let cluster = Cluster::build(cluster::spec(), proxy).context("build the cluster")?;
        let agents = Agents::start(&cluster).context("start the agents")?;
        Ok(Self { agents, cluster })
    }

    /// Plays one story and takes its policies away again. A step whose policy names addresses is
    /// played once per family, each with addresses of that family; any other in both at once.
    pub fn play(&mut self, story: &'static Story) -> Result<Played> {
        let mut steps = Vec::new();
        for step in story.steps {
            steps.push(self.step(step).with_context(|| format!("story {}", story.id))?);
        }
        Ok(Played { story, steps })
    }

    /// Puts policies in force instead of those there are.
    pub fn policies(&mut self, yaml: &str) -> Result<Duration> {
        self.agents.apply(POLICIES, Some(yaml).filter(|yaml| !yaml.is_empty()))
    }

    fn step(&mut self, step: &'static Step) -> Result<PlayedStep> {
        let table = step.table()?;
        ensure!(!table.rows.is_empty(), "the step {:?} probes nothing", step.says);
        let spec = self.cluster.spec.clone();
        let labels = |without| namespaces(&spec.namespaces, without);
        self.agents.apply(NAMESPACES, Some(&labels(step.unlabel)))?;
        let applied = self.policies(step.policy)?;
        let before = self.denied()?;
        let matrix = if step.names_addresses() {
            let mut matrix = table.play(&self.cluster, &[Family::V4])?;
            self.policies(&twin_manifest(step.policy))?;
            matrix.join(table.play(&self.cluster, &[Family::V6])?);
            matrix
        } else {
            table.play(&self.cluster, &Family::BOTH)?
        };
        let after = self.denied()?;
        let side = step.side.map(|expected| SideCount {
            expected,
            ingress: after.0 - before.0,
            egress: after.1 - before.1,
        });
        self.policies("")?;
        self.agents.apply(NAMESPACES, Some(&labels(&[])))?;
        Ok(PlayedStep { step, matrix, side, applied })
    }

    /// Packets dropped so far for ingress and for egress.
    fn denied(&mut self) -> Result<(u64, u64)> {
        Ok((self.agents.counted("ingress-denied")?, self.agents.counted("egress-denied")?))
    }
}
