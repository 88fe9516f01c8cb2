//! The np-agent command.

use std::process::ExitCode;

use clap::Parser;
use np_agent::args::{Cli, Command};
use np_agent::{app, cli, telemetry};

fn main() -> ExitCode {
    let Cli { command, run } = Cli::parse();
    let result = match command {
        Some(Command::Check(place)) => cli::check::run(&place),
        Some(Command::Status(show)) => cli::status::run(&show),
        Some(Command::Endpoints(show)) => cli::endpoints::run(&show),
        Some(Command::Cleanup(place)) => cli::cleanup::run(&place),
        None => telemetry::init(&run.log, run.log_format).and_then(|()| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(app::run(run))?;
            Ok(ExitCode::SUCCESS)
        }),
    };
    result.unwrap_or_else(|error| {
        eprintln!("np-agent: {error:#}");
        ExitCode::FAILURE
    })
}
