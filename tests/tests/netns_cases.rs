//! Every story with real traffic: one cluster with one agent per node, the policies of a case, and
//! each cell of its matrix probed in IPv4 and IPv6.
//!
//! One set-up serves all stories of a proxy mode; a failing story does not hide the others.

use np_tests::demo::terminal::Terminal;
use np_tests::proxy::Mode;
use np_tests::story::{self, Stage, edit, malformed};

const PLAIN: Terminal = Terminal { colour: false };

fn every_case_holds(mode: Mode) {
    let mut stage = Stage::set_up(mode).unwrap_or_else(|error| panic!("{error:#}"));
    let mut failures = String::new();
    let (mut stories, mut checks) = (0, 0);
    for story in story::all() {
        let played = stage.play(story).unwrap_or_else(|error| panic!("{error:#}"));
        stories += 1;
        checks += played.checks();
        if played.differing() > 0 {
            failures += &PLAIN.story(&played);
        }
    }
    println!("{mode}: {stories} stories, {checks} cells checked");
    assert!(failures.is_empty(), "{mode}:{failures}");
}

#[test]
fn every_case_holds_behind_iptables() {
    every_case_holds(Mode::Iptables);
}

#[test]
fn every_case_holds_behind_nftables() {
    every_case_holds(Mode::Nftables);
}

/// Established connections are judged again after an edit: what is allowed no longer stalls, what
/// still is goes on without loss.
#[test]
fn an_edit_takes_effect_on_new_and_established_connections() {
    let mut stage = Stage::set_up(Mode::Iptables).unwrap_or_else(|error| panic!("{error:#}"));
    let facts = edit::play(&mut stage).unwrap_or_else(|error| panic!("{error:#}"));
    assert!(!facts.is_empty());
    assert!(facts.iter().all(|fact| fact.agrees), "\n{}", PLAIN.facts(&facts));
}

/// Whatever is pasted, the message points to the fault, and enforcement stays as it was.
#[test]
fn malformed_manifests_are_explained_and_change_nothing() {
    let mut stage = Stage::set_up(Mode::Nftables).unwrap_or_else(|error| panic!("{error:#}"));
    let mut failures = String::new();
    let played = malformed::play(&mut stage, |played| {
        if played.differing() > 0 {
            failures += &PLAIN.mistake(played);
        }
    })
    .unwrap_or_else(|error| panic!("{error:#}"));
    println!("{} malformed files", played.len());
    assert!(failures.is_empty(), "{failures}");
}
