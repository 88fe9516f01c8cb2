//! What the programs counted.

use std::collections::BTreeMap;

use np_common::direction::Hook;
use np_common::maps::counter_index;
use np_common::verdict::Reason;

/// Packets per hook and Reason. A GSO packet counts once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    packets: BTreeMap<(Hook, Reason), u64>,
}

impl Counters {
    /// Reads each counter by its index in COUNTERS.
    pub(super) fn read<E>(read: impl Fn(u32) -> Result<u64, E>) -> Result<Self, E> {
        let mut packets = BTreeMap::new();
        for hook in Hook::ALL {
            for reason in Reason::ALL {
                packets.insert((hook, *reason), read(counter_index(hook, *reason))?);
            }
        }
        Ok(Self { packets })
    }

    pub fn packets(&self, hook: Hook, reason: Reason) -> u64 {
        self.packets.get(&(hook, reason)).copied().unwrap_or(0)
    }

    /// Every hook with every Reason, zeros too.
    pub fn iter(&self) -> impl Iterator<Item = (Hook, Reason, u64)> {
        self.packets.iter().map(|(&(hook, reason), &packets)| (hook, reason, packets))
    }

    /// What was counted since an earlier reading.
    pub fn since(&self, earlier: &Counters) -> Counters {
        let packets = self.iter().map(|(hook, reason, packets)| {
            ((hook, reason), packets.saturating_sub(earlier.packets(hook, reason)))
        });
        Counters { packets: packets.collect() }
    }
}
