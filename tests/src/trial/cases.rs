//! Every story with real traffic: one cluster with one agent per node, the policies of a case, and
//! each cell of its matrix probed in IPv4 and IPv6.
//!
//! One set-up serves all stories of a proxy mode; a failing story does not hide the others.

use anyhow::{Result, ensure};

use crate::demo::terminal::Terminal;
use crate::matrix;
use crate::proxy::Mode;
use crate::story::{self, Stage};

/// Plays them all and reports the row of the proxy's mode.
pub fn every_case_holds(mode: Mode) -> Result<()> {
    let row = matrix::row("kube-proxy", format!("{mode}: every case of the demo"));
    let mut stage = Stage::set_up(mode)?;
    let mut failures = String::new();
    let (mut stories, mut checks) = (0, 0);
    for story in story::all() {
        let played = stage.play(story)?;
        stories += 1;
        checks += played.checks();
        if played.differing() > 0 {
            failures += &Terminal { colour: false }.story(&played);
        }
    }
    println!("{mode}: {stories} stories, {checks} cells checked");
    ensure!(failures.is_empty(), "{mode}:{failures}");
    row.holds();
    Ok(())
}
