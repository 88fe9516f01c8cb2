//! A hash that is the same in every run and every build of the agent: ids made with it outlive the
//! process in the maps.

use std::hash::{Hash, Hasher};

pub fn hash_of(content: &impl Hash) -> u64 {
    let mut hasher = Fnv1a::new();
    content.hash(&mut hasher);
    hasher.finish()
}

/// Fowler, Noll and Vo's hash, version 1a, 64 bits.
struct Fnv1a(u64);

impl Fnv1a {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv1a {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values that the hash's authors give.
    #[test]
    fn it_is_the_hash_it_says() {
        for (text, hash) in [
            ("", 0xcbf2_9ce4_8422_2325),
            ("a", 0xaf63_dc4c_8601_ec8c),
            ("foobar", 0x8594_4171_f739_67e8),
        ] {
            let mut hasher = Fnv1a::new();
            hasher.write(text.as_bytes());
            assert_eq!(hasher.finish(), hash, "{text}");
        }
    }
}
