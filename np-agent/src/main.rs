//! The np-agent command.

use std::process::ExitCode;

use clap::Parser;
use np_agent::args::{Cli, Command};
use np_agent::{app, cli, telemetry};

fn main() -> ExitCode {
    let Cli { command, run } = Cli::parse();
    let result = match command {
        Some(Command::Check(place)) => block_on(async { cli::check::run(&place) }),
        Some(Command::Status(show)) => cli::status::run(&show),
        Some(Command::Endpoints(show)) => cli::endpoints::run(&show),
        Some(Command::Explain(explain)) => cli::explain::run(&explain),
        Some(Command::Lint(args)) => cli::lint::run(args),
        Some(Command::Monitor(args)) => cli::monitor::run(&args),
        Some(Command::Mount(args)) => cli::mount::run(&args),
        Some(Command::Cleanup(place)) => cli::cleanup::run(&place),
        None => telemetry::init(&run.log, run.log_format).and_then(|()| {
            block_on(app::run(run))?;
            Ok(ExitCode::SUCCESS)
        }),
    };
    result.unwrap_or_else(|error| {
        eprintln!("np-agent: {error:#}");
        ExitCode::FAILURE
    })
}

fn block_on<T>(task: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(task)
}
