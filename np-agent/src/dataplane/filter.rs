//! Filters of a clsact or ingress qdisc, and how each can end.
//!
//! A filter that ends with OK or RECLASSIFY makes the kernel store its class in `skb->tc_index`
//! (`tc_run`, net/core/dev.c), where our tag is. So behind ours on an ingress hook, only filters
//! that visibly end otherwise leave the tag alone.

use super::rtnetlink::{TcReply, attributes, text};

/// The first to run; of filters with one priority the newest runs first.
pub(super) const PRIORITY: u32 = 1;
/// Tells our filter from another of the same priority: "np".
pub(super) const HANDLE: u32 = 0x6e70;
pub(super) const NAME: &str = "np-agent";

// include/uapi/linux/pkt_cls.h
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_ID: u16 = 11;
const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
const TCA_FLOWER_ACT: u16 = 3;
const TCA_MATCHALL_ACT: u16 = 2;
const TCA_BASIC_ACT: u16 = 3;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
/// Of gact, mirred and skbedit alike; it begins with `struct tc_gen`.
const PARMS: u16 = 2;
const TCA_GACT_PROB: u16 = 3;
const TC_ACT_UNSPEC: i32 = -1;
const TC_ACT_SHOT: i32 = 2;
const TC_ACT_PIPE: i32 = 3;
const TC_ACT_STOLEN: i32 = 4;
const TC_ACT_QUEUED: i32 = 5;
const TC_ACT_REDIRECT: i32 = 7;
const TC_ACT_TRAP: i32 = 8;

/// A filter at one side of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    /// None for a filter that is no program.
    pub program: Option<u32>,
    pub ours: bool,
    pub priority: u32,
    /// "bpf", "u32", "flower" …
    pub kind: String,
    /// What `tc filter show` calls a program.
    pub name: Option<String>,
    pub ending: Ending,
}

/// What a filter can make of a packet that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ending {
    /// The next filter has its turn.
    Continues,
    /// No further filter runs, and the packet passes untouched or is taken out.
    Ends,
    /// Perhaps OK or RECLASSIFY.
    Accepts,
}

impl Filter {
    /// None for the head of a list of filters.
    pub(super) fn read(reply: &TcReply) -> Option<Self> {
        let options = reply.options.as_deref()?;
        let (mut program, mut name) = (None, None);
        if reply.kind == "bpf" {
            for option in attributes(options) {
                match option.kind() {
                    TCA_BPF_ID => program = word(option.value()),
                    TCA_BPF_NAME => name = Some(text(option.value())),
                    _ => {}
                }
            }
        }
        let selects = |wanted| attributes(options).any(|option| option.kind() == wanted);
        // A hash table of u32 is listed like a filter.
        if reply.handle == 0 || reply.kind == "u32" && !selects(TCA_U32_SEL) {
            return None;
        }
        let priority = reply.info >> 16;
        let place = priority == PRIORITY && reply.handle == HANDLE && reply.kind == "bpf";
        let ours = place && name.as_deref() == Some(NAME);
        let ending = ending(&reply.kind, options);
        Some(Self { program, ours, priority, kind: reply.kind.clone(), name, ending })
    }
}

/// What kinds of filters are not known, and programs, may accept.
fn ending(kind: &str, options: &[u8]) -> Ending {
    let wanted = match kind {
        "u32" => TCA_U32_ACT,
        "flower" => TCA_FLOWER_ACT,
        "matchall" => TCA_MATCHALL_ACT,
        "basic" => TCA_BASIC_ACT,
        _ => return Ending::Accepts,
    };
    let actions = attributes(options).find(|option| option.kind() == wanted);
    let endings = actions.as_ref().map(|actions| attributes(actions.value()));
    let endings = endings.into_iter().flatten().map(|action| action_ending(action.value()));
    // Without an action a match is OK (`tcf_exts_exec`, include/net/pkt_cls.h).
    endings.max().unwrap_or(Ending::Accepts)
}

fn action_ending(action: &[u8]) -> Ending {
    let find = |bytes, wanted| attributes(bytes).find(move |part| part.kind() == wanted);
    let kind = find(action, TCA_ACT_KIND).map(|kind| text(kind.value())).unwrap_or_default();
    let Some(options) = find(action, TCA_ACT_OPTIONS) else { return Ending::Accepts };
    let random = kind == "gact" && find(options.value(), TCA_GACT_PROB).is_some();
    if !matches!(kind.as_str(), "gact" | "mirred" | "skbedit") || random {
        return Ending::Accepts;
    }
    // struct tc_gen: index, capab, action.
    let parms = find(options.value(), PARMS);
    let code = parms.and_then(|parms| word(parms.value().get(8..)?));
    match code.map(|code| code as i32) {
        Some(TC_ACT_UNSPEC) => Ending::Continues,
        Some(
            TC_ACT_PIPE | TC_ACT_SHOT | TC_ACT_STOLEN | TC_ACT_QUEUED | TC_ACT_REDIRECT
            | TC_ACT_TRAP,
        ) => Ending::Ends,
        _ => Ending::Accepts,
    }
}

fn word(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nla(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (value.len() as u16 + 4).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn action(order: u16, kind: &str, code: i32) -> Vec<u8> {
        let parms = [0, 0, code, 1, 1].map(i32::to_ne_bytes).concat();
        let options = nla(TCA_ACT_OPTIONS, &nla(PARMS, &parms));
        nla(order, &[nla(TCA_ACT_KIND, format!("{kind}\0").as_bytes()), options].concat())
    }

    fn matchall(actions: &[Vec<u8>]) -> Ending {
        ending("matchall", &nla(TCA_MATCHALL_ACT, &actions.concat()))
    }

    #[test]
    fn only_actions_that_visibly_end_otherwise_are_not_taken_to_accept() {
        for (code, expected) in [
            (TC_ACT_UNSPEC, Ending::Continues),
            (0, Ending::Accepts),
            (1, Ending::Accepts),
            (TC_ACT_SHOT, Ending::Ends),
            (TC_ACT_PIPE, Ending::Ends),
            (TC_ACT_STOLEN, Ending::Ends),
            (6, Ending::Accepts),
            (0x2000_0001, Ending::Accepts),
        ] {
            assert_eq!(matchall(&[action(1, "gact", code)]), expected, "{code}");
        }
        assert_eq!(matchall(&[action(1, "police", TC_ACT_PIPE)]), Ending::Accepts);
        assert_eq!(matchall(&[]), Ending::Accepts, "no action is OK");
        let both = [action(1, "mirred", TC_ACT_PIPE), action(2, "gact", 0)];
        assert_eq!(matchall(&both), Ending::Accepts);
        let both = [action(1, "mirred", TC_ACT_PIPE), action(2, "gact", TC_ACT_UNSPEC)];
        assert_eq!(matchall(&both), Ending::Ends);
        assert_eq!(ending("cgroup", &[]), Ending::Accepts);
    }

    #[test]
    fn a_cut_answer_accepts_and_does_not_panic() {
        let whole = nla(TCA_MATCHALL_ACT, &action(1, "gact", TC_ACT_UNSPEC));
        for length in 0..whole.len() {
            assert_eq!(ending("matchall", &whole[..length]), Ending::Accepts, "{length}");
        }
    }
}
