//! Which pods show which addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::pack;
use crate::model::Pod;

/// The pods that show an address; the one with the best claim to it comes first.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    owners: BTreeMap<IpAddr, Arc<Pod>>,
    /// Nearly always empty: an address has two pods only while it goes from one to the next.
    others: BTreeMap<IpAddr, Vec<Arc<Pod>>>,
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

    pub fn pack(&mut self) {
        pack(&mut self.owners);
    }

    pub fn owner(&self, addr: IpAddr) -> Option<&Arc<Pod>> {
        self.owners.get(&addr)
    }

    pub fn owned(&self, first: IpAddr, last: IpAddr) -> impl Iterator<Item = IpAddr> {
        self.owners.range(first..=last).map(|(addr, _)| *addr)
    }

    pub fn owners(&self) -> impl Iterator<Item = (IpAddr, &Arc<Pod>)> {
        self.owners.iter().map(|(addr, pod)| (*addr, pod))
    }

    fn of(&self, addr: IpAddr) -> impl Iterator<Item = &Arc<Pod>> {
        self.others.get(&addr).into_iter().flatten().chain(self.owners.get(&addr))
    }

    fn set(&mut self, addr: IpAddr, mut all: Vec<Arc<Pod>>) {
        all.sort_by_key(|pod| pod.claim_to_address());
        match all.pop() {
            None => self.owners.remove(&addr),
            Some(owner) => self.owners.insert(addr, owner),
        };
        if all.is_empty() {
            self.others.remove(&addr);
        } else {
            self.others.insert(addr, all);
        }
    }
}
