//! Worlds of the arrival oracle, one after the other, for hours.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::setup::{self, Needs};
use crate::shell::{self, step};
use crate::workspace::Workspace;
use crate::{build_ebpf, test};

const FILE: &str = "netns_arrival";
const TEST: &str = "every_arrival_at_a_pod_is_explained";
/// How long one world lives: each has nodes of other shapes.
const WORLD: Duration = Duration::from_secs(600);

/// Runs worlds, each with the next seed, until the time is up or something arrives that nothing
/// explains.
pub fn run(hours: f64, seed: u64) -> Result<()> {
    if !shell::is_root() {
        bail!("worlds of network namespaces need root: run it again with sudo");
    }
    let length = Duration::try_from_secs_f64(hours * 3600.0)?;
    let toolchain = setup::ensure(Needs::Run)?;
    build_ebpf::build(&build_ebpf::Args::default(), &toolchain)?;
    test::build()?;
    let agent = Workspace::read(false)?.target_dir.join("debug/np-agent");
    let start = Instant::now();
    for seed in seed.. {
        let left = length.saturating_sub(start.elapsed()).min(WORLD);
        if left < Duration::from_secs(10) {
            println!("\nsoak: worlds from seed {} for {hours} h", seed.saturating_sub(1));
            break;
        }
        step(&format!("a world of {} s, seed {seed}", left.as_secs()), || {
            let mut command = test::cargo("test");
            command
                .args(["--test", FILE, "--", "--exact", "--nocapture", TEST])
                .env("NP_AGENT", &agent)
                .env("NP_TEST_SEED", seed.to_string())
                .env("NP_ARRIVAL_SECONDS", left.as_secs().to_string())
                .stdin(Stdio::null());
            let output = command.output()?;
            let text = String::from_utf8_lossy(&output.stdout);
            // A name that no test has would pass.
            if !output.status.success() || !text.contains("test result: ok. 1 passed") {
                println!("{text}{}", String::from_utf8_lossy(&output.stderr));
                bail!("something arrived that nothing explains, or the world broke: seed {seed}");
            }
            text.lines()
                .filter(|line| line.starts_with("arrival"))
                .for_each(|line| println!("    {line}"));
            Ok(())
        })?;
    }
    Ok(())
}
