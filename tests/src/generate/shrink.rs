//! Shrinking by leaving things out: probes, objects, then whatever part of an object can go.
//!
//! Objects are taken apart as JSON, so that no field has to be named here.

use proptest::strategy::ValueTree;
use serde_json::Value;

use super::{Case, Cluster, probes};
use crate::oracle::Conn;

/// A case, and while it shrinks the simpler ones still to try.
#[derive(Debug)]
pub struct Shrinking {
    failing: Case,
    current: Case,
    /// None until the case is known to fail.
    simpler: Option<std::vec::IntoIter<Case>>,
}

impl Shrinking {
    pub fn new(case: Case) -> Self {
        Self { failing: case.clone(), current: case, simpler: None }
    }

    fn next(&mut self) -> bool {
        let next = self.simpler.as_mut().and_then(Iterator::next);
        let found = next.is_some();
        self.current = next.unwrap_or_else(|| self.failing.clone());
        found
    }
}

impl ValueTree for Shrinking {
    type Value = Case;

    fn current(&self) -> Case {
        self.current.clone()
    }

    /// The current case fails: continues from it.
    fn simplify(&mut self) -> bool {
        if self.simpler.is_none() || self.failing != self.current {
            self.failing = self.current.clone();
            self.simpler = Some(simpler(&self.failing).into_iter());
        }
        self.next()
    }

    /// The current case does not fail: goes back and tries the next.
    fn complicate(&mut self) -> bool {
        self.next()
    }
}

/// Every case that has one thing less, big things first.
fn simpler(case: &Case) -> Vec<Case> {
    if case.probes.len() > 1 {
        let alone =
            |probe: &Conn| Case { cluster: case.cluster.clone(), probes: vec![probe.clone()] };
        return case.probes.iter().map(alone).collect();
    }
    let Ok(whole) = serde_json::to_value(&case.cluster) else { return Vec::new() };
    let mut paths = Vec::new();
    removable(&whole, &mut Vec::new(), &mut paths);
    paths.sort_by_key(Vec::len);
    paths
        .into_iter()
        .filter_map(|path| {
            let mut rest = whole.clone();
            remove(&mut rest, &path)?;
            let cluster: Cluster = serde_json::from_value(rest).ok()?;
            let possible = |probe| probes::possible(&cluster, probe);
            let simpler = cluster != case.cluster && case.probes.iter().all(possible);
            simpler.then(|| Case { cluster, probes: case.probes.clone() })
        })
        .collect()
}

#[derive(Clone, Debug)]
enum Step {
    Key(String),
    Element(usize),
}

fn removable(value: &Value, at: &mut Vec<Step>, paths: &mut Vec<Vec<Step>>) {
    let children: Vec<(Step, &Value)> = match value {
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| (Step::Key(key.clone()), value)).collect()
        }
        Value::Array(elements) => {
            elements.iter().enumerate().map(|(i, value)| (Step::Element(i), value)).collect()
        }
        _ => return,
    };
    for (step, child) in children {
        // Without these an object is another one, or none.
        let identity = matches!(&step, Step::Key(key)
            if ["apiVersion", "kind", "name", "namespace", "uid", "metadata"].contains(&key.as_str()));
        at.push(step);
        // The three lists of objects stay; what is in them may go.
        if at.len() > 1 && !identity {
            paths.push(at.clone());
        }
        removable(child, at, paths);
        at.pop();
    }
}

fn remove(value: &mut Value, path: &[Step]) -> Option<()> {
    let (last, way) = path.split_last()?;
    let mut value = value;
    for step in way {
        value = match step {
            Step::Key(key) => value.get_mut(key)?,
            Step::Element(i) => value.get_mut(i)?,
        };
    }
    match (last, value) {
        (Step::Key(key), Value::Object(fields)) => fields.remove(key).map(|_| ()),
        (Step::Element(i), Value::Array(elements)) => {
            elements.remove(*i);
            Some(())
        }
        _ => None,
    }
}
