//! Events: the maps by which user space learns of single packets, and what is put there.

use core::arch::asm;

use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, RingBuf};
use np_common::direction::Hook;
use np_common::event::{Bucket, Event, Report};
use np_common::maps as specs;
use np_common::verdict::Verdict;

use crate::maps::{CASE, KernelMaps, word};
use crate::skb::Skb;

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(specs::EVENTS_BYTES, 0);
#[map]
static BUCKETS: Array<Bucket> =
    Array::with_max_entries(specs::BUCKETS.max_entries, specs::BUCKETS.flags);
#[map]
static REPORT: Array<u64> = Array::with_max_entries(specs::REPORT.max_entries, specs::REPORT.flags);

/// Makes an event of a packet, if such packets make any. The packet still has the tag it came with.
#[inline(always)]
pub fn report(skb: &Skb, hook: Hook, verdict: &Verdict) {
    let asked = REPORT.get_ptr(0).map_or(0, |asked| word!(asked));
    if Report::asks(asked, verdict.reason) {
        make(skb, hook, verdict);
    }
}

/// A function of its own: its memory is free again behind it.
#[inline(never)]
fn make(skb: &Skb, hook: Hook, verdict: &Verdict) {
    // SAFETY: the helper takes nothing and touches nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(case) = CASE.get_ptr(0) else { return };
    // SAFETY: this CPU's own element, and TC programs of one CPU do not interrupt each other. It holds
    // a case, as `KernelMaps::with_case` says.
    let case = unsafe { &*case };
    let event = Event::of(&KernelMaps, hook, verdict, &skb.context(), case, now);
    let Some(bucket) = BUCKETS.get_ptr_mut(event.bucket()) else { return };
    // SAFETY: fields of the element that the lookup returned.
    let (full, suppressed) = unsafe { (&raw mut (*bucket).full, &raw mut (*bucket).suppressed) };
    let seen = word!(full);
    // Where another CPU has just taken a token of this bucket, that one's event is the one made.
    let taken = Bucket::take(seen, now).is_some_and(|next| replace(full, seen, next));
    // Without room, nobody reads, or not fast enough.
    if !taken || EVENTS.output::<Event>(event, 0).is_err() {
        increase(suppressed);
    }
}

/// Stores a word, if the one that is there is the expected one, at once. Returns whether it was.
///
/// In assembly, as is [`increase`]: for this target, Rust has no such operations. Linux has this one since
/// 5.12.
#[inline(always)]
fn replace(word: *mut u64, expected: u64, new: u64) -> bool {
    let found: u64;
    // SAFETY: the pointer is to an aligned word of an element of an array map, which is never freed.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({word} + 0, r0, {new})",
            word = in(reg) word,
            new = in(reg) new,
            inout("r0") expected => found,
            options(nostack),
        );
    }
    found == expected
}

/// Adds one to a word, at once.
#[inline(always)]
fn increase(word: *mut u64) {
    // SAFETY: as in `replace`.
    unsafe {
        asm!(
            "lock *(u64 *)({word} + 0) += {one}",
            word = in(reg) word,
            one = in(reg) 1_u64,
            options(nostack),
        );
    }
}
