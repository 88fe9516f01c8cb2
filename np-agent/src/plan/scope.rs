//! Where the actual tables may differ from the desired ones, so that a small change needs no look
//! at all of them.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use np_common::rules::ClassId;

use super::{RulePrefix, Tables};

/// Keys of the two tables that grow with the cluster. The others are the node's own, and small.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Anything may differ: at the start, and after a write that failed.
    pub everything: bool,
    pub peers: BTreeSet<IpNet>,
    pub rules: BTreeSet<RulePrefix>,
}

impl Scope {
    pub fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    /// The part of tables that a change in scope can be planned on: the keys, and the entries
    /// that hold for these prefixes without their own.
    pub fn of(&self, tables: &Tables) -> Tables {
        let mut peers: BTreeMap<IpNet, ClassId> = BTreeMap::new();
        for prefix in &self.peers {
            peers.extend(tables.peers.get(prefix).map(|class| (*prefix, *class)));
            peers.extend(covering(tables, prefix));
        }
        Tables {
            ifaces: tables.ifaces.clone(),
            endpoints: tables.endpoints.clone(),
            local: tables.local.clone(),
            peers,
            rules: self.rules.intersection(&tables.rules).copied().collect(),
            config: tables.config,
        }
    }
}

/// The longest entry around a prefix.
fn covering(tables: &Tables, prefix: &IpNet) -> Option<(IpNet, ClassId)> {
    (0..prefix.prefix_len())
        .rev()
        .filter_map(|length| Some(IpNet::new(prefix.addr(), length).ok()?.trunc()))
        .find_map(|outer| Some((outer, *tables.peers.get(&outer)?)))
}
