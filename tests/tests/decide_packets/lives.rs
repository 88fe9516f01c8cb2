//! Endpoint ids are used again: nothing of a pod that had one before is the next one's.

use np_common::packet::{ACK, SYN};
use np_common::verdict::Reason;
use np_policy::plan::simulate::Simulated;
use np_policy::plan::{Scope, diff};

use super::*;

fn step(actual: &mut Tables, desired: &Tables) {
    for op in diff(&actual.clone(), desired, &Scope::everything()) {
        op.apply(actual);
    }
}

/// The tables while nobody has pod A's id, device and addresses.
fn without_a() -> Tables {
    let mut tables = tables();
    tables.endpoints.remove(&ID_A);
    tables.ifaces.remove(&POD_A);
    tables.local.retain(|_, id| *id != ID_A);
    tables
}

/// Pod A goes and another pod gets its id, device and addresses.
#[test]
fn a_flow_of_an_earlier_life_is_nobody_s() {
    let all = tables();
    let without = without_a();
    let mut actual = Tables { config: Config::new(7, false), ..Tables::default() };
    step(&mut actual, &all);
    let flows = {
        let maps = Simulated::new(&actual);
        assert_eq!(verdict(&maps, A_OUT, &udp(A, OUT, 40_000, 53)).reason, Reason::Allowed);
        assert_eq!(verdict(&maps, A_TO_B, &tcp(A, B, 9, 80, SYN)).reason, Reason::Allowed);
        maps.flows.take()
    };
    let (answer, data) = (udp(OUT, A, 53, 40_000), tcp(B, A, 80, 9, ACK));
    for life in 0..3 {
        step(&mut actual, &without);
        {
            let maps = Simulated::new(&actual);
            maps.flows.replace(flows.clone());
            assert_eq!(verdict(&maps, BACK_IN, &answer).reason, Reason::Entered, "{life}: free");
            // Judged at its way out for nobody.
            let late = At(ToUplink, UPLINK, POD_A, OF_A);
            let found = verdict(&maps, late, &udp(A, OUT, 40_000, 53));
            assert_eq!(found.reason, Reason::EgressDenied, "{life}: a free id allows nothing");
        }
        step(&mut actual, &all);
        let maps = Simulated::new(&actual);
        maps.flows.replace(flows.clone());
        assert_eq!(verdict(&maps, BACK_IN, &answer).reason, Reason::Entered, "{life}: another");
        assert_eq!(verdict(&maps, B_BACK, &data).reason, Reason::Entered, "{life}: another");
        let sent = verdict(&maps, A_OUT, &udp(A, OUT, 40_000, 53));
        assert_eq!(sent.reason, Reason::Allowed, "{life}: judged as its own first one");
        assert_eq!(verdict(&maps, BACK_IN, &answer).reason, Reason::Reply, "{life}: its own");
    }
}

/// What an earlier pod has sent out of the node is no proof for who has its id and address now.
#[test]
fn what_an_earlier_pod_has_sent_round_does_not_come_back_as_anothers() {
    let all = tables();
    let without = without_a();
    let mut actual = Tables { config: Config::new(7, false), ..Tables::default() };
    step(&mut actual, &all);
    let round = tcp(A, B, 9, 80, SYN);
    let flows = {
        let maps = Simulated::new(&actual);
        assert_eq!(verdict(&maps, A_OUT, &round).reason, Reason::Allowed);
        assert_eq!(verdict(&maps, IN_B, &round).reason, Reason::Allowed, "its own flow");
        maps.flows.take()
    };
    step(&mut actual, &without);
    step(&mut actual, &all);
    let maps = Simulated::new(&actual);
    maps.flows.replace(flows);
    assert_eq!(verdict(&maps, IN_B, &round).reason, Reason::ForgedSource);
}

/// An id whose pod has lost an address starts again: the address may be another pod's.
#[test]
fn an_id_keeps_no_address_that_its_pod_has_lost() {
    let mut desired = tables();
    let mut actual = Tables { config: Config::new(7, false), ..Tables::default() };
    step(&mut actual, &desired);
    let moved = "10.0.0.50";
    let policy = desired.endpoints[&ID_A].policy;
    let addrs = [addr(moved).into(), addr(A6).into()];
    desired.endpoints.insert(ID_A, Endpoint::new(addrs, policy, 0));
    desired.local.remove(&addr(A).into());
    desired.local.insert(addr(moved).into(), ID_A);
    let ops = diff(&actual, &desired, &Scope::everything());
    let mut tables = actual.clone();
    for op in ops {
        op.apply(&mut tables);
        let endpoint = tables.endpoints[&ID_A];
        let [old, new] = [A, moved].map(|text| endpoint.owns(&addr(text).into()));
        assert!(!endpoint.policy.is_in_use() || old != new, "{op:?}: one or the other");
    }
    let maps = Simulated::new(&tables);
    assert_eq!(verdict(&maps, FROM_A, &tcp(A, B, 9, 80, SYN)).reason, Reason::SourceAddress);
    assert_eq!(verdict(&maps, FROM_A, &tcp(moved, B, 9, 80, SYN)).reason, Reason::Entered);
}
