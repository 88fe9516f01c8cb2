//! A BPF array as shared memory.
//!
//! `bpf_map_update_elem` copies into an array's element, and a program can read half of the copy.
//! What must flip at once is one aligned word, stored here.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use np_common::maps::MapSpec;

/// All words of one array map.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<AtomicU64>,
    bytes: usize,
}

// SAFETY: the memory is shared with the kernel anyway, and is accessed by atomics only.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the memory of an array whose MapInfo has been compared with its specification.
    pub(super) fn new(map: &impl AsFd, spec: &MapSpec) -> io::Result<Self> {
        // The kernel rounds each element up to eight bytes (array_map_alloc, kernel/bpf/arraymap.c).
        let bytes = spec.value.next_multiple_of(8) as usize * spec.max_entries as usize;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_fd().as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { base, bytes })
    }

    pub(super) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is that long, page-aligned, and lives as long as self; kernel and
        // other processes may change it at any time, which is what atomics are for.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.bytes / size_of::<u64>()) }
    }

    /// A word; 0 beyond the end.
    pub(super) fn load(&self, index: usize) -> u64 {
        self.words().get(index).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Stores a word; what was stored before is seen no later. False beyond the end.
    #[must_use]
    pub(super) fn store(&self, index: usize, value: u64) -> bool {
        self.words().get(index).map(|word| word.store(value, Ordering::Release)).is_some()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: base and length are those of the mapping, and no reference outlives self.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}
