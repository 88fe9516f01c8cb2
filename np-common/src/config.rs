//! The node's one word of configuration: CONFIG holds a single u64, stored at once.

use crate::abi::map_type;

map_type! {
    /// Policy generation (bits 0–31) and flags (bits 32–63).
    pub struct Config: 8 bytes {
        bits: u64,
    }
}

const PENDING_ALLOWED: u64 = 1 << 32;

impl Config {
    /// Makes the word of a generation, and of what devices that are not known yet may do.
    #[inline(always)]
    pub const fn new(generation: u32, pending_allowed: bool) -> Self {
        let flags = if pending_allowed { PENDING_ALLOWED } else { 0 };
        Self { bits: generation as u64 | flags }
    }

    /// Reads what [`Config::bits`] gave.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self { bits }
    }

    /// Returns the word as it is in the map.
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.bits
    }

    /// Rises with every change of policy: a flow judged under another one is judged again.
    #[inline(always)]
    pub const fn generation(self) -> u32 {
        self.bits as u32
    }

    /// Devices not yet known to be a pod's pass instead of dropping.
    #[inline(always)]
    pub const fn pending_allowed(self) -> bool {
        self.bits & PENDING_ALLOWED != 0
    }
}
