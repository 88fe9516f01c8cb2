//! The four TC programs of a node. They are glue: packet and maps in, [`np_common::decide`]'s
//! verdict out. What each does is told there; nothing is decided here.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod events;
mod maps;
mod report;
mod skb;

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use np_common::decide;
use np_common::direction::Hook;
use np_common::verdict::{Action, Verdict};

use crate::maps::KernelMaps;
use crate::skb::{Linear, Skb};

/// The fast path is a function of its own: its memory is free again behind it, and what calls it pays
/// for few registers.
macro_rules! programs {
    ($($name:ident: $hook:expr;)*) => {
        $(
            #[classifier]
            pub fn $name(ctx: TcContext) -> i32 {
                #[inline(never)]
                fn fast(skb: &Skb) -> Option<Verdict> {
                    decide::fast($hook, &KernelMaps, &Linear(skb), &skb.context())
                }
                run($hook, &ctx, fast)
            }
        )*
    };
}

programs! {
    from_pod: Hook::FromPod;
    to_pod: Hook::ToPod;
    from_uplink: Hook::FromUplink;
    to_uplink: Hook::ToUplink;
}

#[inline(always)]
fn run(hook: Hook, ctx: &TcContext, fast: fn(&Skb) -> Option<Verdict>) -> i32 {
    let skb = Skb::new(ctx);
    let verdict = match fast(&skb) {
        Some(verdict) => verdict,
        None => {
            let verdict = decide::full(hook, &KernelMaps, &skb, &skb.context());
            // What is established, and so of no event, is mostly answered by the fast path.
            events::report(&skb, hook, &verdict);
            verdict
        }
    };
    skb.set_tag(verdict.tag);
    report::report(ctx, hook, &verdict);
    match verdict.action() {
        Action::Pass => TC_ACT_UNSPEC,
        Action::Drop => TC_ACT_SHOT,
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // No program can get here: nothing in the packet path indexes, unwraps or divides, and the
    // verifier would refuse an endless loop that could be reached.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
