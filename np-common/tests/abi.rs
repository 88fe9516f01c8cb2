//! Maps outlive the agent, so what is in them must not change within one version of the ABI. Each version
//! has a file in `abi/`, against which the code is held.
//!
//! After a change that needs a new version, raise `ABI_VERSION` and run this with `NP_UPDATE=1`, which
//! writes the new version's file. It never changes a line of a file that there is: it adds new Reasons at
//! most, which need no new version.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use np_common::ABI_VERSION;
use np_common::addr::Addr;
use np_common::config::Config;
use np_common::direction::Hook;
use np_common::endpoint::{Endpoint, EndpointId, Iface, PolicyWord, Role};
use np_common::flow::{Denied, Flow, FlowKey, State, Time};
use np_common::fragment::{FragmentKey, PortPair};
use np_common::maps::{self, MapSpec, REASONS};
use np_common::rules::{CidrKey, RuleKey, RuleSetId};
use np_common::source::SourceKey;
use np_common::tag::Tag;
use np_common::tunnel::Encapsulation;
use np_common::verdict::{Reason, posture};

/// Maps, their types, examples of every word with a layout of its own, and the posture table.
fn abi() -> String {
    let mut text = String::new();
    let mut line = |line: String| writeln!(text, "{line}").expect("a string takes all");
    for MapSpec { name, kind, key, value, max_entries, flags } in maps::ALL {
        line(format!(
            "map {name} {kind:?} key {key} value {value} entries {max_entries} flags {flags}"
        ));
    }
    for layout in [
        Addr::LAYOUT,
        CidrKey::LAYOUT,
        Config::LAYOUT,
        Denied::LAYOUT,
        Endpoint::LAYOUT,
        Flow::LAYOUT,
        FlowKey::LAYOUT,
        FragmentKey::LAYOUT,
        Iface::LAYOUT,
        PolicyWord::LAYOUT,
        PortPair::LAYOUT,
        RuleKey::LAYOUT,
        SourceKey::LAYOUT,
    ] {
        line(format!("type {layout}"));
    }
    let id = EndpointId::new(0x123);
    for role in [Role::Pending, Role::Pod, Role::Foreign, Role::Uplink, Role::Tunnel, Role::Stacked]
    {
        line(format!("word Iface {role:?} {:#018x}", Iface::new(7, role, id).bits()));
    }
    let layer3 = Iface::new(7, Role::Uplink, id).with_layer3();
    line(format!("word Iface layer 3 {:#018x}", layer3.bits()));
    let rules = |id| Some(RuleSetId::new(id));
    for (name, word) in [
        ("open", PolicyWord::new(None, None)),
        ("ingress", PolicyWord::new(rules(0xabc), None)),
        ("egress", PolicyWord::new(None, rules(0xdef))),
    ] {
        line(format!("word PolicyWord {name} {:#018x}", word.bits()));
    }
    line(format!("word Config {:#018x}", Config::new(9, true).bits()));
    for (name, tag) in [
        ("entered", Tag::ENTERED),
        ("sent", Tag::of(id)),
        ("judged", Tag::judged(id)),
        ("reply to a pod from outside", Tag::reply(id, EndpointId::NONE)),
        ("reply from a pod", Tag::reply(EndpointId::NONE, id)),
    ] {
        line(format!("word Tag {name} {:#06x}", tag.bits()));
    }
    for state in [
        State::Datagram,
        State::Opening,
        State::Established,
        State::Closing,
        State::Reset,
        State::Answered,
    ] {
        let flow = Flow::new(1, Time::new(1000, 1000), id, EndpointId::NONE, state);
        line(format!("word Flow {:?}", flow.with_doubt()));
    }
    for port in [0, 4789] {
        for protocol in [4, 17, 41, 47] {
            if let Some(one) = Encapsulation::of(protocol, port) {
                line(format!("word Tunnel {protocol} {port} {} {:#018x}", one.word(), one.bit()));
            }
        }
    }
    line(format!("counter {} hooks of {REASONS} Reasons", Hook::ALL.len()));
    for reason in Reason::ALL {
        line(format!("reason {} {reason:?} {:?}", *reason as u32, posture(*reason)));
    }
    text
}

#[test]
fn what_is_in_maps_has_not_changed_within_its_version() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("abi/{ABI_VERSION}.txt"));
    let now = abi();
    let before = fs::read_to_string(&path).unwrap_or_default();
    if before == now {
        return;
    }
    let lost: Vec<&str> =
        before.lines().filter(|line| !now.lines().any(|other| other == *line)).collect();
    assert!(
        lost.is_empty(),
        "ABI_VERSION is {ABI_VERSION} as before, but the code no longer has\n  {}\nof {}: raise the \
         version, see RELEASING.md",
        lost.join("\n  "),
        path.display()
    );
    let added: Vec<&str> =
        now.lines().filter(|line| !before.lines().any(|other| other == *line)).collect();
    let reasons = added.iter().all(|line| line.starts_with("reason "));
    assert!(
        before.is_empty() || reasons,
        "this is new in ABI version {ABI_VERSION}, which has a file already:\n  {}\nraise the version",
        added.join("\n  ")
    );
    assert!(
        std::env::var_os("NP_UPDATE").is_some(),
        "{} lacks\n  {}\nrun this test again with NP_UPDATE=1",
        path.display(),
        added.join("\n  ")
    );
    fs::write(&path, now).expect("the file can be written");
}
