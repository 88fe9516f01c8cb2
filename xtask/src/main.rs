//! Every command of this repository, one file per verb. CI calls the same verbs as a person does.

mod bench;
mod build;
mod build_ebpf;
mod ci;
mod cluster;
mod conformance;
mod demo;
mod deny;
mod fuzz;
mod image;
mod ldd;
mod lint;
mod matrix;
mod packages;
#[cfg(test)]
mod quotes;
mod reasons;
mod setup;
mod shell;
mod soak;
mod sources;
mod test;
mod toolchain;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Every command of this repository.
///
/// From a clean clone: `cargo xtask demo` shows what np-agent does, `cargo xtask test` proves it.
/// Both install what is missing first and say so; `cargo xtask setup` does only that.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Setup(setup::Args),
    BuildEbpf(build_ebpf::Args),
    Build(build::Args),
    Demo(demo::Args),
    Image(image::Args),
    Cluster(cluster::Args),
    Conformance(conformance::Args),
    Chart(cluster::chart::Args),
    Test(test::Args),
    Vm(vm::Args),
    Matrix(matrix::Args),
    Reasons(reasons::Args),
    Bench(bench::Args),
    Fuzz(fuzz::Args),
    Lint(lint::Args),
    Ci(ci::Args),
}

fn main() -> ExitCode {
    let done = match Args::parse().verb {
        Verb::Setup(args) => setup::run(&args),
        Verb::BuildEbpf(args) => build_ebpf::run(&args),
        Verb::Build(args) => build::run(&args),
        Verb::Demo(args) => demo::run(&args),
        Verb::Image(args) => image::run(&args),
        Verb::Cluster(args) => cluster::run(&args),
        Verb::Conformance(args) => conformance::run(&args),
        Verb::Chart(args) => cluster::chart::run(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Vm(args) => vm::run(&args),
        Verb::Matrix(args) => matrix::run(&args),
        Verb::Reasons(args) => reasons::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Fuzz(args) => fuzz::run(&args),
        Verb::Lint(args) => lint::run(&args),
        Verb::Ci(args) => ci::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Args::command().debug_assert();
    }
}
