//! Every story with real traffic, behind the modes of kube-proxy that every kernel has; edits and
//! mistakes on the same stage.

use anyhow::Result;
use np_tests::demo::terminal::Terminal;
use np_tests::matrix;
use np_tests::proxy::Mode;
use np_tests::story::{Stage, edit, malformed};
use np_tests::trial::cases::every_case_holds;

const PLAIN: Terminal = Terminal { colour: false };

#[test]
fn every_case_holds_behind_iptables() -> Result<()> {
    every_case_holds(Mode::Iptables)
}

#[test]
fn every_case_holds_behind_nftables() -> Result<()> {
    every_case_holds(Mode::Nftables)
}

/// Established connections are judged again after an edit: what is allowed no longer stalls, what
/// still is continues without loss.
#[test]
fn an_edit_takes_effect_on_new_and_established_connections() -> Result<()> {
    let row = matrix::row("Traffic", "live flows are judged again after a policy change");
    let mut stage = Stage::set_up(Mode::Iptables)?;
    let facts = edit::play(&mut stage)?;
    assert!(!facts.is_empty());
    assert!(facts.iter().all(|fact| fact.agrees), "\n{}", PLAIN.facts(&facts));
    row.holds();
    Ok(())
}

/// Whatever is pasted, the message points to the fault, and enforcement stays as it was.
#[test]
fn malformed_manifests_are_explained_and_change_nothing() -> Result<()> {
    let mut stage = Stage::set_up(Mode::Nftables)?;
    let mut failures = String::new();
    let played = malformed::play(&mut stage, |played| {
        if played.differing() > 0 {
            failures += &PLAIN.mistake(played);
        }
    })?;
    println!("{} malformed files", played.len());
    assert!(failures.is_empty(), "{failures}");
    Ok(())
}
