//! The kubectl-np command, which kubectl runs as `kubectl np`.

use std::process::ExitCode;

use clap::Parser as _;
use kubectl_np::args::Cli;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => {
            // Where nobody reads it, there is nobody to tell.
            told.print().ok();
            // kubectl's own exit code for a usage error is 1; clap's would be 2.
            return if told.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    kubectl_np::run(cli)
}
