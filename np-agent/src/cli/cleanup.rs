//! `np-agent cleanup`.

use std::fs;
use std::io;
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::out;
use crate::admin;
use crate::args::PlaceArgs;
use crate::dataplane::{self, CleanupReport};
use crate::source::MEMORY;

pub fn run(place: &PlaceArgs) -> anyhow::Result<ExitCode> {
    if admin::ask(&place.run_dir).is_some() {
        bail!("an agent runs with run directory {}; stop it first", place.run_dir.display());
    }
    let report = dataplane::cleanup(&place.pin_dir)?;
    for file in ["agent.sock", "agent.objects.sock", "agent.events.sock", "agent.lock", MEMORY] {
        remove(fs::remove_file(place.run_dir.join(file)))
            .with_context(|| format!("cannot remove {file} in {}", place.run_dir.display()))?;
    }
    // Someone else's files may lie there: then it stays.
    fs::remove_dir(&place.run_dir).ok();
    let CleanupReport { links, maps } = report;
    out::line(format_args!(
        "removed {links} links and {maps} maps; no policy is enforced any more"
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn remove(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
