//! What is told of a verdict.

use aya_ebpf::programs::TcContext;
use np_common::direction::Hook;
use np_common::verdict::Verdict;

use crate::maps;

/// Counts the verdict; a GSO packet counts once.
#[cfg_attr(not(feature = "debug-log"), expect(unused_variables, reason = "the log needs it"))]
#[inline(always)]
pub fn report(ctx: &TcContext, hook: Hook, verdict: &Verdict) {
    maps::count(hook, verdict.reason);
    #[cfg(feature = "debug-log")]
    aya_log_ebpf::debug!(
        ctx,
        "{} {} tag {:x}",
        hook.name(),
        verdict.reason.name(),
        verdict.tag.bits()
    );
}
