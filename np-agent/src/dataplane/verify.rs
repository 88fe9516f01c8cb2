//! Whether our programs stand where they should, and what stands around them.
//!
//! In front of ours, whatever may end the chain hides packets from policy. Behind ours on an
//! ingress hook, a filter that ends with OK makes the kernel write over the tag. Behind ours on an
//! egress hook the verdict has fallen already. What a foreign program answers cannot be known: a
//! filter counts as one that answers OK unless its actions visibly do not, and so does a program
//! in front. A TCX program behind ours does not: after TCX_PASS the kernel restores the tag from
//! `tc_classid`, where ours has left it.

use np_common::direction::Hook;

use super::attach::{Attacher, Mechanism, Side, filters, tc_side};
use super::error::AttachError;
use super::filter::{Ending, Filter};
use super::sys::{self, TcSide};
use super::{clsact, tcx};
use np_policy::model::IfIndex;

/// What was found at a device that has our programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// What was not as it should be and is now.
    pub repaired: Vec<String>,
    pub findings: Vec<Finding>,
}

/// A neighbour that matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Policy may not hold at this device, or our tags not reach the other devices.
    pub blocking: bool,
    pub text: String,
}

/// One side of a device, as it is.
struct Standing {
    side: TcSide,
    state: State,
    front: Vec<Neighbour>,
    behind: Vec<Neighbour>,
}

enum State {
    Ours { program: u32 },
    Missing,
    Other { program: u32 },
}

#[derive(Clone, Debug)]
enum Neighbour {
    Program(u32),
    Filter(Filter),
}

impl Attacher {
    /// Brings our programs back to where they should be, and says what is around them.
    pub fn check(&mut self, ifindex: IfIndex, side: Side) -> Result<Checked, AttachError> {
        let mut checked = Checked::default();
        for hook in side.hooks() {
            let mut standing = self.standing(ifindex, hook)?;
            if let Some(repaired) = self.repair(ifindex, hook, &standing)? {
                checked.repaired.push(repaired);
                standing = self.standing(ifindex, hook)?;
                if !matches!(standing.state, State::Ours { .. }) {
                    return Err(AttachError::Lost { ifindex, side: tc_side(hook).name() });
                }
            }
            checked.findings.extend(standing.findings(self.mechanism()));
        }
        Ok(checked)
    }

    fn repair(
        &mut self,
        ifindex: IfIndex,
        hook: Hook,
        standing: &Standing,
    ) -> Result<Option<String>, AttachError> {
        let side = standing.side.name();
        let repaired = match standing.state {
            State::Missing => {
                self.attach_hook(ifindex, hook)?;
                format!("{side}: {} was not there any more", hook.name())
            }
            State::Other { program } => {
                self.attach_hook(ifindex, hook)?;
                format!("{side}: program {program} was in the place of {}", hook.name())
            }
            State::Ours { program } => {
                let hidden = standing.front.iter().any(Neighbour::may_hide);
                if self.mechanism() == Mechanism::Clsact || !hidden {
                    return Ok(None);
                }
                let pins = self.places.own.clone();
                let double = self.double(hook, program).map_err(AttachError::load)?;
                tcx::move_in_front(&pins, double, ifindex, standing.side)?;
                let front = names(&standing.front);
                format!("{side}: {front} had got in front of {}", hook.name())
            }
        };
        Ok(Some(repaired))
    }

    fn standing(&self, ifindex: IfIndex, hook: Hook) -> Result<Standing, AttachError> {
        let side = tc_side(hook);
        let links = tcx::attached(ifindex, side)?;
        let mut filters = filters(ifindex, side)?;
        let mut chain: Vec<Neighbour> =
            links.iter().map(|link| Neighbour::Program(link.program)).collect();
        let (at, program) = match self.mechanism() {
            Mechanism::Tcx => {
                let pinned = tcx::pinned(&self.places.own, ifindex, side)?;
                let at = links.iter().position(|link| Some(link.link) == pinned);
                (at, at.and_then(|at| links.get(at)).map(|link| link.program))
            }
            Mechanism::Clsact => {
                // A filter of an ingress qdisc may be the other side's.
                if clsact::qdisc(ifindex.0).map_err(AttachError::query(ifindex))?.as_deref()
                    != Some("clsact")
                {
                    filters.clear();
                }
                let at = filters.iter().position(|filter| filter.ours);
                let program = at.and_then(|at| filters.get(at)?.program);
                (at.map(|at| links.len() + at), program)
            }
        };
        chain.extend(filters.into_iter().map(Neighbour::Filter));
        let state = match program {
            None => State::Missing,
            Some(program) if self.is_loaded(hook, program) => State::Ours { program },
            Some(program) => State::Other { program },
        };
        let behind = at.map(|at| chain.split_off(at).split_off(1)).unwrap_or_default();
        let front = if at.is_some() { chain } else { Vec::new() };
        Ok(Standing { side, state, front, behind })
    }
}

impl Standing {
    fn findings(&self, mechanism: Mechanism) -> Vec<Finding> {
        let side = self.side.name();
        let in_front = self.front.iter().filter(|neighbour| neighbour.may_hide()).map(|other| {
            let remedy = match mechanism {
                Mechanism::Tcx => "attach it behind (BPF_F_AFTER)",
                Mechanism::Clsact => "give it a higher pref than 1",
            };
            let text = format!(
                "{side}: {other} runs in front of np-agent's and may answer OK, which hides \
                 packets from policy: {remedy}, or remove it"
            );
            Finding { blocking: true, text }
        });
        let behind = self.behind.iter().filter_map(|other| self.behind_ours(other));
        in_front.chain(behind).collect()
    }

    fn behind_ours(&self, other: &Neighbour) -> Option<Finding> {
        let side = self.side.name();
        if let Some(name) = other.program_name().filter(|name| is_ours(name)) {
            let text = format!(
                "{side}: {other} is {name} of another np-agent: stop it and run `np-agent \
                 cleanup` with its --pin-dir"
            );
            return Some(Finding { blocking: true, text });
        }
        match other {
            _ if self.side == TcSide::Egress => None,
            Neighbour::Filter(Filter { ending: Ending::Accepts, priority, .. }) => {
                let text = format!(
                    "{side}: {other} runs behind np-agent's and may answer OK, upon which the \
                     kernel overwrites np-agent's tag (skb->tc_index): make it answer \
                     TC_ACT_UNSPEC (tc's `action continue`), or remove it with `tc filter del \
                     dev DEVICE {side} pref {priority}`"
                );
                Some(Finding { blocking: true, text })
            }
            Neighbour::Filter(_) => None,
            Neighbour::Program(_) => {
                let text = format!(
                    "{side}: {other} runs behind np-agent's: it must not write skb->tc_index or \
                     tc_classid, where np-agent's tag is"
                );
                Some(Finding { blocking: false, text })
            }
        }
    }
}

impl Neighbour {
    /// Whether what stands behind it may not get to see a packet.
    fn may_hide(&self) -> bool {
        match self {
            Self::Program(_) => true,
            Self::Filter(filter) => filter.ending != Ending::Continues,
        }
    }

    fn program_name(&self) -> Option<String> {
        match self {
            Self::Program(id) | Self::Filter(Filter { program: Some(id), .. }) => {
                sys::program_name(*id)
            }
            Self::Filter(_) => None,
        }
    }
}

impl std::fmt::Display for Neighbour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Program(id) => write!(f, "program {id}")?,
            Self::Filter(Filter { program, priority, kind, name, .. }) => {
                write!(f, "{kind} filter pref {priority}")?;
                if let Some(name) = name {
                    write!(f, " {name:?}")?;
                }
                if let Some(id) = program {
                    write!(f, " program {id}")?;
                }
            }
        }
        match self.program_name() {
            Some(name) => write!(f, " ({name})"),
            None => Ok(()),
        }
    }
}

fn names(neighbours: &[Neighbour]) -> String {
    neighbours.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Whether a program is called like one of np-agent's.
pub(super) fn is_ours(name: &str) -> bool {
    Hook::ALL.iter().any(|hook| hook.name() == name)
}
