//! `kubectl np`: np-agent's commands, run by `kubectl exec` in the agents' pods.
//!
//! A package of its own, without np-agent: this runs where kubectl runs, which need not be Linux, and
//! knows of an agent what its JSON says. `tests/tests/kubectl_np.rs` holds both to each other.

pub mod agents;
pub mod args;
pub mod ask;
pub mod check;
pub mod endpoints;
pub mod ends;
mod error;
pub mod explain;
pub mod flags;
pub mod kubectl;
mod print;
pub mod status;

pub use error::{Error, Silence};

use std::process::ExitCode;

use args::{Cli, Command};
use kubectl::Kubectl;

/// Runs a command; says why if it has no answer.
pub fn run(Cli { common, command }: Cli) -> ExitCode {
    let kubectl = Kubectl::new(common);
    // As np-agent explain: 1 is a verdict that is not the expected one.
    let unanswered = if matches!(command, Command::Explain(_)) { 2 } else { 1 };
    let code = match command {
        Command::Status(args) => status::run(&kubectl, &args),
        Command::Endpoints(args) => endpoints::run(&kubectl, &args),
        Command::Explain(args) => explain::run(&kubectl, &args),
        Command::Check(args) => check::run(&kubectl, &args),
    };
    ExitCode::from(code.unwrap_or_else(|error| {
        print::complain(&format!("kubectl np: {error}\n"));
        unanswered
    }))
}
