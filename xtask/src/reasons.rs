//! `docs/REASONS.md`: every outcome of a packet, for those who read counters. Generated from the
//! rows of `np_common::verdict`, never written by hand.

use anyhow::Result;
use np_common::verdict::{Action, Reason, posture};

use crate::shell;
use crate::workspace;

const FILE: &str = "docs/REASONS.md";

/// Write docs/REASONS.md from the Reasons in np-common/src/verdict.rs
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(Args {}: &Args) -> Result<()> {
    shell::write(&workspace::root().join(FILE), &page())
}

const HEAD: &str = "# Reasons

Written by `cargo xtask reasons` from `np-common/src/verdict.rs`; not edited by hand.

Every packet that a program of np-agent sees ends with one reason, and each reason either passes or drops the packet.
`np-agent status` counts the packets of each reason at each hook.
A packet is counted once at every hook that it meets, so a packet between two pods of a node is counted twice.
How to get from a dropped packet to the policy behind it is described in [OPERATING.md](OPERATING.md#a-connection-that-does-not-pass).

| hook | device | packets |
|---|---|---|
| `from_pod` | host end of a pod's veth | leaving the pod |
| `to_pod` | host end of a pod's veth | on their way into the pod |
| `from_uplink` | every other device by which packets enter the node | entering |
| `to_uplink` | the same devices | leaving |

The number is the index of the reason in the map COUNTERS, within the 64 slots of its hook. It never changes meaning.
";

const DROPS: &str = "
## Drops

A reply to a flow that policy has since revoked drops where it enters the node, which is why `egress-denied` and
`ingress-denied` also occur at `from_pod` and `from_uplink`.
";

const PASSES: &str = "
## Passes
";

fn page() -> String {
    let of = |action| Reason::ALL.iter().copied().filter(move |reason| posture(*reason) == action);
    let mut page = HEAD.to_owned();
    page += DROPS;
    page += "\n| number | reason | hooks | what happened | what to do |\n|---|---|---|---|---|\n";
    for reason in of(Action::Drop) {
        page += &format!("{} {} |\n", start(reason), reason.remedy());
    }
    page += PASSES;
    page += "\n| number | reason | hooks | what happened |\n|---|---|---|---|\n";
    for reason in of(Action::Pass) {
        page += &format!("{}\n", start(reason).trim_end());
    }
    page
}

/// The columns that both tables have, to the beginning of the next.
fn start(reason: Reason) -> String {
    let hooks: Vec<String> =
        reason.hooks().iter().map(|hook| format!("`{}`", hook.name())).collect();
    let (number, name, hooks) = (reason as u8, reason.name(), hooks.join(", "));
    format!("| {number} | `{name}` | {hooks} | {} |", reason.what().trim())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_page_is_what_the_code_says() {
        let there = fs::read_to_string(workspace::root().join(FILE)).unwrap_or_default();
        assert!(there == page(), "{FILE} is stale: `cargo xtask reasons` writes it");
    }

    #[test]
    fn every_drop_says_what_to_do_and_every_cell_is_one_line() {
        for reason in Reason::ALL {
            let drops = posture(*reason) == Action::Drop;
            assert!(!drops || !reason.remedy().is_empty(), "{reason:?} has no remedy");
            for text in [reason.what(), reason.remedy()] {
                assert!(!text.contains(['|', '\n']), "{reason:?}: {text}");
            }
        }
    }
}
