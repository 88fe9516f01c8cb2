//! A judgement as JSON, for one connection and for a line of many alike.

use std::fmt;

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use super::{Judgement, Miss, PeerList, PortList, RuleRef, Side, Wrong};
use crate::model::{Policy, PolicyKey};

impl Judgement<'_> {
    pub fn verdict(&self) -> &'static str {
        if self.allowed { "allow" } else { "deny" }
    }

    /// The policies that the verdict rests on: of a denied connection those that isolate the side
    /// that denies, else those with a rule that allows.
    pub fn policies(&self) -> Vec<&PolicyKey> {
        let mut policies: Vec<&PolicyKey> = Vec::new();
        for side in [&self.egress, &self.ingress] {
            if self.allowed {
                policies.extend(side.allowed_by.iter().map(|rule| &rule.policy.key));
            } else if !side.standing.allows() {
                policies.extend(side.isolated_by.iter().map(|policy| &policy.key));
            }
        }
        policies.sort_unstable();
        policies.dedup();
        policies
    }
}

impl Serialize for Judgement<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("verdict", self.verdict())?;
        map.serialize_entry("egress", &self.egress)?;
        map.serialize_entry("ingress", &self.ingress)?;
        map.serialize_entry("reason", &self.reason.map(|reason| reason.name()))?;
        map.serialize_entry("policies", &Shown(self.policies()))?;
        map.end()
    }
}

impl Serialize for Side<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { standing, isolated_by, allowed_by, near } = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("verdict", if standing.allows() { "allow" } else { "deny" })?;
        map.serialize_entry("why", standing.name())?;
        map.serialize_entry("isolated_by", &Keys(isolated_by))?;
        map.serialize_entry("allowed_by", allowed_by)?;
        if !near.is_empty() {
            map.serialize_entry("near", near)?;
        }
        map.end()
    }
}

impl Serialize for RuleRef<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("policy", &Text(&self.policy.key))?;
        map.serialize_entry("rule", &Text(self))?;
        map.end()
    }
}

impl Serialize for Miss<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { rule, wrong } = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("policy", &Text(&rule.policy.key))?;
        map.serialize_entry("rule", &Text(rule))?;
        match wrong {
            Wrong::Port => {
                map.serialize_entry("wrong", "port")?;
                map.serialize_entry("wants", &Text(PortList(*rule)))?;
            }
            Wrong::Peer => {
                map.serialize_entry("wrong", "peer")?;
                map.serialize_entry("wants", &Text(PeerList(*rule)))?;
            }
        }
        map.end()
    }
}

struct Text<T>(T);

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

struct Shown<'e>(Vec<&'e PolicyKey>);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for key in &self.0 {
            list.serialize_element(&Text(key))?;
        }
        list.end()
    }
}

struct Keys<'e>(&'e [&'e Policy]);

impl Serialize for Keys<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for policy in self.0 {
            list.serialize_element(&Text(&policy.key))?;
        }
        list.end()
    }
}
