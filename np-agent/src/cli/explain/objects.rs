//! The objects to judge by: from a directory, or those that an agent of this node has in force.

use anyhow::{Context, bail};

use crate::args::ExplainArgs;
use crate::index::{Index, Touched};
use crate::model::{Change, Service};
use crate::source::{Batch, Manifests, remembered};

/// What a refused manifest costs a run of the agent is its last good version; here there is none,
/// and a verdict without the policy would be wrong.
pub fn read(args: &ExplainArgs) -> anyhow::Result<(Index, Vec<Service>)> {
    let (changes, services) = match &args.manifests {
        Some(dir) => {
            let Batch { changes, invalid, ignored: _, background } = Manifests::open(dir)?.load();
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
            (changes, background.services)
        }
        None => {
            let file = args.run_dir.join("manifests.json");
            (remembered(&file)?.into_iter().map(Change::Apply).collect(), Vec::new())
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
    Ok((index, services))
}
