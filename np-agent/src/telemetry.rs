//! Logging to standard error.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;

pub fn init(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let named = filter.contains("kube_client");
    let filter = EnvFilter::try_new(filter)
        .with_context(|| format!("--log {filter:?} is not a filter such as \"np_agent=debug\""))?;
    // It has a line for each try while the API server is away. Ours is one for each outage.
    let filter = if named { filter } else { filter.add_directive("kube_client=off".parse()?) };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
