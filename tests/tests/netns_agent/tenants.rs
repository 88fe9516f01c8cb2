//! What one tenant writes is not what another one waits for.

use std::fmt::Write as _;

use np_tests::agent::POLICIES;
use np_tests::matrix;

use crate::world::{CLIENT, SETTLE, World, client_and_guest, eventually};

/// 1,100 ports to 1,000 blocks: 107 KB that ask for 1.1 million rules.
fn huge() -> String {
    let mut text = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: huge, namespace: default}
spec:
  podSelector:
    matchLabels: {app: stranger}
  policyTypes: [Egress]
  egress:
    - to:
"
    .to_owned();
    for block in 0..1000 {
        writeln!(text, "        - ipBlock: {{cidr: 10.{}.{}.0/24}}", block / 250, block % 250)
            .expect("a string takes it");
    }
    text.push_str("      ports:\n");
    for port in 0..1100 {
        writeln!(text, "        - {{port: {}}}", 2 * port + 1).expect("a string takes it");
    }
    text
}

#[test]
fn a_policy_that_is_too_large_holds_back_nobody_else() {
    let row = matrix::row("Life", "a policy that is too large next to those of others");
    let mut world = World::new(CLIENT);
    world.assert_served(true, false, false);
    world.write("huge.yaml", Some(&huge()));
    let status = world
        .agent()
        .wait(SETTLE, |status| status.diagnostics.iter().any(|text| text.contains("default/huge")))
        .unwrap_or_else(|error| panic!("{error:#}"));
    assert!(!status.ready, "it is not in force");
    let told = status.diagnostics.join("\n");
    for part in ["RULES holds", "isolated", "fewer distinct lists of ports"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    world.write(POLICIES, Some(&client_and_guest()));
    eventually("the guest is served", || {
        let server = world.address("server");
        world.reaches(world.pod("guest"), server, true).is_ok()
    });
    world.assert_served(true, true, false);
    let log = world.agent().log();
    assert_eq!(log.matches("NetworkPolicy default/huge").count(), 1, "it is said once: {log}");

    world.write("huge.yaml", None);
    world.wait("all is in force", |_| true);
    row.holds();
}
