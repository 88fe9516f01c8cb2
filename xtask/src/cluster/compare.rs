//! Kubernetes' conformance tests of the network, without the agent and with it: what passes without must
//! pass with it, also where every pod is isolated and a rule allows everything.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::allow_all::AllowAll;
use super::places::Places;
use super::suite::{self, Outcome, Suite};
use crate::test::Told;

/// By the name of a spec, whether it passed.
type Specs = BTreeMap<String, bool>;

/// Runs them three times; `deploy` brings the agent.
///
/// # Errors
/// If a run cannot be made. What fails only with the agent is a problem told.
pub fn run(
    program: &Path,
    places: &Places,
    deploy: impl FnOnce() -> Result<()>,
    filter: Option<&str>,
) -> Result<Told> {
    let run = |variant: &str| -> Result<Outcome> {
        println!("==> {variant}");
        suite::run(program, places, Suite::Conformance, variant, filter)
    };
    let mut told = Told::default();
    let without = run("Conformance without np-agent")?;
    told.add(without.told);
    deploy()?;
    for (variant, allow_all) in
        [("Conformance", false), ("Conformance with all allowed by policy", true)]
    {
        let writer = allow_all.then(|| AllowAll::start(places)).transpose()?;
        let with = run(variant)?;
        if let Some(writer) = writer {
            let written = writer.end().context("writing a policy into every namespace")?;
            println!("    the policy was written into {written} namespaces");
        }
        let worse = worse(&without.specs, &with.specs);
        told.problems.extend(worse.iter().map(|spec| format!("{variant}: {spec}")));
        told.add(with.told);
    }
    Ok(told)
}

/// What passed before and does not now, also because it did not run.
fn worse(before: &Specs, now: &Specs) -> Vec<String> {
    let worse = before.iter().filter(|(name, passed)| **passed && now.get(*name) != Some(&true));
    worse.map(|(name, _)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs(specs: &[(&str, bool)]) -> Specs {
        specs.iter().map(|(name, passed)| ((*name).to_owned(), *passed)).collect()
    }

    #[test]
    fn only_what_passed_can_get_worse() {
        let before = specs(&[("kept", true), ("lost", true), ("gone", true), ("bad", false)]);
        let now = specs(&[("kept", true), ("lost", false), ("bad", false), ("new", false)]);
        assert_eq!(worse(&before, &now), ["gone", "lost"]);
    }
}
