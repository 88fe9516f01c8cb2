//! The objects to judge by: from a directory, or those that an agent of this node has in force.

use anyhow::{Context, bail};

use super::hints::Hints;
use crate::admin;
use crate::args::ExplainArgs;
use crate::source::{Batch, MEMORY, Manifests, remembered};
use np_policy::index::{Index, Touched};
use np_policy::model::{Background, Change};

/// What a refused manifest costs a run of the agent is its last good version; here there is none,
/// and a verdict without the policy would be wrong.
pub fn read(args: &ExplainArgs) -> anyhow::Result<(Index, Hints)> {
    let (changes, background) = match &args.manifests {
        Some(dir) => {
            let Batch { changes, invalid, background, .. } = Manifests::open(dir)?.load();
            for problem in &invalid {
                eprintln!("{problem}");
            }
            if !invalid.is_empty() {
                bail!(
                    "{} problems in {}: nothing is judged while a manifest is refused",
                    invalid.len(),
                    dir.display()
                );
            }
            (changes, background)
        }
        None => {
            // Where no agent answers, an agent over manifests has left its objects.
            let objects = match admin::ask_objects(&args.run_dir) {
                Some(objects) => objects,
                None => remembered(&args.run_dir.join(MEMORY))?,
            };
            (objects.into_iter().map(Change::Apply).collect(), Background::default())
        }
    };
    let mut index = Index::default();
    let mut touched = Touched::default();
    for change in changes {
        index.apply(change, &mut touched);
    }
    if index.pods().len() == 0 {
        let place = args.manifests.as_ref().unwrap_or(&args.run_dir);
        return Err(anyhow::anyhow!("no Pod"))
            .with_context(|| format!("{}: nobody to ask about", place.display()));
    }
    let Background { services, endpoints, .. } = background;
    Ok((index, Hints::new(services, endpoints)))
}
