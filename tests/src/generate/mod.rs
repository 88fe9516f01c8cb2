//! Random clusters, policies and connections for the properties that compare with the oracle.
//!
//! Objects are Kubernetes' own types and always what its API would accept. Vocabularies are small,
//! so that selectors, ports and blocks meet pods often. A case that fails shrinks by leaving out
//! parts of it, and prints as manifests and one connection.

mod agree;
mod coverage;
pub mod dice;
mod objects;
mod policies;
mod probes;
mod shrink;
mod to_model;

use std::fmt;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use proptest::strategy::{NewTree, Strategy};
use proptest::test_runner::TestRunner;
use serde::{Deserialize, Serialize};

pub use self::agree::{Answer, agree};
pub use self::coverage::Coverage;
use self::dice::Dice;
pub use self::objects::{NODES, node_addresses};
use self::shrink::Shrinking;
pub use self::to_model::{Unconvertible, changes};
use crate::oracle::{Conn, Oracle};

/// The objects of a cluster.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    pub namespaces: Vec<Namespace>,
    pub pods: Vec<Pod>,
    pub policies: Vec<NetworkPolicy>,
}

/// A cluster and the connections to try in it.
#[derive(Clone, PartialEq)]
pub struct Case {
    pub cluster: Cluster,
    pub probes: Vec<Conn>,
}

/// Generates cases. Proptest's own combinators would spend more time on making values than the
/// properties on checking them.
#[derive(Clone, Copy, Debug)]
pub struct Cases {
    /// How many connections to try in each cluster.
    pub probes: usize,
}

impl Cluster {
    pub fn oracle(&self) -> Oracle<'_> {
        Oracle::new(&self.pods, &self.namespaces, &self.policies)
    }
}

impl Strategy for Cases {
    type Tree = Shrinking;
    type Value = Case;

    fn new_tree(&self, runner: &mut TestRunner) -> NewTree<Self> {
        let mut dice = Dice::new(runner.rng());
        let (namespaces, pods) = objects::generate(&mut dice);
        let policies = policies::generate(&mut dice, &namespaces, &pods);
        let cluster = Cluster { namespaces, pods, policies };
        let probes = probes::generate(&mut dice, &cluster, self.probes);
        Ok(Shrinking::new(Case { cluster, probes }))
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cluster { namespaces, pods, policies } = self;
        let namespaces = namespaces.iter().map(serde_saphyr::to_string);
        let pods = pods.iter().map(serde_saphyr::to_string);
        let policies = policies.iter().map(serde_saphyr::to_string);
        for document in namespaces.chain(pods).chain(policies) {
            write!(f, "---\n{}", document.map_err(|_| fmt::Error)?)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{:?}", self.cluster)?;
        self.probes.iter().try_for_each(|probe| writeln!(f, "# {probe}"))
    }
}
