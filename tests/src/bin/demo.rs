//! np-demo: flags, and the exit code.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use np_tests::demo::terminal::Terminal;
use np_tests::demo::{self, Config, interrupt};
use np_tests::proxy::Mode;

/// Plays np-agent's stories on this machine: real policies, real traffic, no cluster.
///
/// Nodes, pods and hosts outside are network namespaces, Services are rules as kube-proxy writes
/// them, and one np-agent runs per node. Needs root. Leaves nothing behind.
///
/// Exit code: 0 when every cell is as expected, 1 when one differs, 2 when the demo could not run.
#[derive(Debug, Parser)]
#[command(name = "np-demo", version)]
struct Args {
    /// The mode kube-proxy's rules are written for: iptables or nftables
    #[arg(long, default_value_t = Mode::Iptables)]
    proxy: Mode,

    /// Where to write the page that shows everything
    #[arg(long, value_name = "FILE", default_value = "target/demo.html")]
    html: PathBuf,

    /// Play only these stories: A1 … A13, B1 … B8, edit, malformed
    #[arg(long, value_delimiter = ',', value_name = "STORY,…")]
    only: Vec<String>,

    /// Print without colours (they are off anyway when the output is no terminal)
    #[arg(long, env = "NO_COLOR", value_parser = clap::builder::FalseyValueParser::new())]
    no_color: bool,

    /// Print with colours even if the output is no terminal
    #[arg(long, conflicts_with = "no_color")]
    color: bool,
}

fn main() -> ExitCode {
    let Args { proxy, html, only, no_color, color } = Args::parse();
    let colour = color || !no_color && std::io::stdout().is_terminal();
    let config = Config { proxy, html, only, terminal: Terminal { colour } };
    match interrupt::take_over().and_then(|()| demo::run(&config)) {
        Ok(show) if show.differing() == 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
