//! Which pods show which addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::Pod;

/// The pods that show an address; the one with the best claim to it comes first.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    by_addr: BTreeMap<IpAddr, Claimants>,
}

/// Nearly always one: two only while an address goes from one pod to the next.
#[derive(Clone, Debug)]
struct Claimants {
    owner: Arc<Pod>,
    others: Vec<Arc<Pod>>,
}

impl Claims {
    pub fn insert(&mut self, pod: &Arc<Pod>) {
        if !pod.enforceable() {
            return;
        }
        for addr in &pod.addresses {
            let all = self.of(*addr).chain([pod]).cloned().collect();
            self.set(*addr, all);
        }
    }

    pub fn remove(&mut self, pod: &Arc<Pod>) {
        for addr in &pod.addresses {
            let all = self.of(*addr).filter(|other| !Arc::ptr_eq(other, pod)).cloned().collect();
            self.set(*addr, all);
        }
    }

    pub fn owner(&self, addr: IpAddr) -> Option<&Arc<Pod>> {
        self.by_addr.get(&addr).map(|claimants| &claimants.owner)
    }

    pub fn owned(&self, first: IpAddr, last: IpAddr) -> impl Iterator<Item = IpAddr> {
        self.by_addr.range(first..=last).map(|(addr, _)| *addr)
    }

    pub fn owners(&self) -> impl Iterator<Item = (IpAddr, &Arc<Pod>)> {
        self.by_addr.iter().map(|(addr, claimants)| (*addr, &claimants.owner))
    }

    fn of(&self, addr: IpAddr) -> impl Iterator<Item = &Arc<Pod>> {
        let claimants = self.by_addr.get(&addr);
        claimants
            .into_iter()
            .flat_map(|claimants| claimants.others.iter().chain([&claimants.owner]))
    }

    fn set(&mut self, addr: IpAddr, mut all: Vec<Arc<Pod>>) {
        all.sort_by_key(|pod| pod.claim_to_address());
        match all.pop() {
            None => {
                self.by_addr.remove(&addr);
            }
            Some(owner) => {
                self.by_addr.insert(addr, Claimants { owner, others: all });
            }
        }
    }
}
