//! An skb as the verdict reads it.

use core::arch::asm;
use core::mem::MaybeUninit;
use core::ptr;

use aya_ebpf::Global;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::{bpf_jiffies64, bpf_skb_load_bytes};
use aya_ebpf::programs::TcContext;
use np_common::decide::Context;
use np_common::flow::Time;
use np_common::packet::PacketReader;
use np_common::tag::Tag;

/// Ticks per second of this kernel; the agent sets it when it loads the programs.
#[unsafe(no_mangle)]
static HZ: Global<u32> = Global::new(250);

pub struct Skb {
    raw: *mut __sk_buff,
}

/// Reads one field of the context. Volatile, because the verifier refuses a load that the
/// compiler made wide enough for two fields.
macro_rules! field {
    ($skb:expr, $($field:ident).+) => {
        // SAFETY: the kernel hands a valid context to the program, for as long as it runs.
        unsafe { ptr::read_volatile(&raw const (*$skb.raw).$($field).+) }
    };
}

impl Skb {
    #[inline(always)]
    pub fn new(ctx: &TcContext) -> Self {
        Self { raw: ctx.skb.skb }
    }

    #[inline(always)]
    pub fn context(&self) -> Context {
        Context {
            ifindex: field!(self, ifindex),
            ingress_ifindex: field!(self, ingress_ifindex),
            // A pointer, of which only this is asked.
            socket: !field!(self, __bindgen_anon_2.sk).is_null(),
            tag: self.tag(),
            ethertype: u16::from_be(field!(self, protocol) as u16),
            // SAFETY: the helper takes nothing and touches nothing.
            time: Time::new(unsafe { bpf_jiffies64() }, HZ.load()),
        }
    }

    #[inline(always)]
    fn tag(&self) -> Tag {
        Tag::from_bits(field!(self, tc_index) as u16)
    }

    /// Writes the tag, also to `tc_classid`: what a TCX program behind ours leaves there, the kernel
    /// puts into `tc_index` when that program answers PASS (`tcx_run`, net/core/dev.c), and a
    /// program that does not know of it leaves our own.
    #[inline(always)]
    pub fn set_tag(&self, tag: Tag) {
        let bits = u32::from(tag.bits());
        // SAFETY: as in `field`; a classifier may write both.
        unsafe {
            ptr::write_volatile(&raw mut (*self.raw).tc_index, bits);
            ptr::write_volatile(&raw mut (*self.raw).tc_classid, bits);
        }
    }
}

/// A copied header, aligned so that its fields are loaded as words and not byte by byte.
#[repr(C, align(8))]
struct Header<const N: usize> {
    bytes: [u8; N],
}

impl PacketReader for Skb {
    /// By helper: it also reads what does not lie in the linear part, and a hostile pod can send
    /// a packet with as little as an Ethernet header there.
    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let mut header = MaybeUninit::<Header<N>>::uninit();
        // SAFETY: the context is valid, and the destination holds N bytes.
        let result = unsafe {
            bpf_skb_load_bytes(self.raw.cast(), offset, header.as_mut_ptr().cast(), N as u32)
        };
        if result != 0 {
            return None;
        }
        // SAFETY: the helper wrote all N bytes, and what may follow them is padding.
        Some(unsafe { header.assume_init() }.bytes)
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        field!(self, len)
    }

    /// In place where it can: every packet pays for this.
    #[inline(always)]
    fn read_words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        if let Some(words) = self.words_in_place(offset) {
            return Some(words);
        }
        let mut words = MaybeUninit::<[u32; N]>::uninit();
        let (to, len) = (words.as_mut_ptr().cast(), size_of_val(&words) as u32);
        // SAFETY: the context is valid, and the destination holds as much.
        if unsafe { bpf_skb_load_bytes(self.raw.cast(), offset, to, len) } != 0 {
            return None;
        }
        // SAFETY: the helper wrote all of them.
        Some(unsafe { words.assume_init() })
    }
}

impl Skb {
    /// Words of the linear part; none where it ends before.
    #[inline(always)]
    fn words_in_place<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        const { assert!(N <= 5, "so many are loaded below") };
        let (data, end) = (field!(self, data) as usize, field!(self, data_end) as usize);
        let start: usize;
        // SAFETY: an addition. The verifier knows what lies behind one pointer: the compiler must
        // not take the sum apart and put it together otherwise.
        unsafe {
            asm!(
                "{start} += {offset}",
                start = inout(reg) data => start,
                offset = in(reg) u64::from(offset),
                options(pure, nomem, nostack),
            );
        }
        if start + 4 * N > end {
            return None;
        }
        let mut words = [0; N];
        macro_rules! load {
            ($($at:literal)*) => {
                $(
                    if let Some(word) = words.get_mut($at) {
                        // SAFETY: so many words are there.
                        *word = unsafe { word_at::<{ 4 * $at }>(start) };
                    }
                )*
            };
        }
        // Not a loop: nothing unrolls it.
        load!(0 1 2 3 4);
        Some(words)
    }
}

/// The linear part of an skb alone: what is not there is as if it were not in the packet. Nothing that
/// is read from it needs memory.
pub struct Linear<'a>(pub &'a Skb);

impl PacketReader for Linear<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, _offset: u32) -> Option<[u8; N]> {
        None
    }

    #[inline(always)]
    fn read_words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        self.0.words_in_place(offset)
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.0.length()
    }
}

/// Loads a word of a packet. In assembly: what is not known to be aligned the compiler loads byte by
/// byte.
///
/// # Safety
///
/// The verifier knows of `AT + 4` bytes from `start` on.
#[inline(always)]
unsafe fn word_at<const AT: usize>(start: usize) -> u32 {
    let word: u64;
    // SAFETY: the caller's word for it.
    unsafe {
        asm!(
            "{word} = *(u32 *)({start} + {at})",
            word = out(reg) word,
            start = in(reg) start,
            at = const AT,
            options(pure, readonly, nostack),
        );
    }
    word as u32
}
