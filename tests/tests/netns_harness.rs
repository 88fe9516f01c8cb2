//! The parts of the harness that need root: namespaces, probes and servers.

use std::net::IpAddr;

use np_tests::netns::Namespace;
use np_tests::probe::server::{Listen, Servers};
use np_tests::probe::{IMPATIENCE, Kind, Outcome, PATIENCE, Reply, probe};

/// A thread inside sees only the namespace's own devices; the caller stays where it was.
#[test]
fn a_namespace_has_devices_of_its_own() {
    let ns = Namespace::new("own-devices").unwrap();
    ns.ip("link add left type veth peer name right").unwrap();
    let links = ns.feed("ip", &["-o", "link"], "").unwrap();
    assert!(links.contains("left@right"), "{links}");
    let outside = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    assert!(!outside.contains("left"), "{outside}");
}

#[test]
fn a_failing_batch_names_the_command_and_the_line() {
    let ns = Namespace::new("failing-batch").unwrap();
    let error = ns.ip("link set lo up\nlink set nowhere up").unwrap_err().to_string();
    assert!(error.contains("failing-batch"), "{error}");
    assert!(error.contains("nowhere"), "{error}");
}

/// Without this no "denied" of a matrix could be distinguished from a closed port.
#[test]
fn a_probe_tells_reply_refusal_and_silence_apart() {
    let ns = Namespace::new("outcomes").unwrap();
    ns.ip("link set lo up\nlink add void type veth peer name beyond\nlink set void up\nlink set beyond up\naddr add 10.9.9.1/24 dev void\nroute add unreachable 10.9.8.0/24").unwrap();
    let mut servers = Servers::new().unwrap();
    let ports = Listen { tcp: &[80], udp: &[90], dns: true };
    servers.start("me", &ns, ports, &[]).unwrap();
    let lo: IpAddr = "127.0.0.1".parse().unwrap();
    let v6: IpAddr = "::1".parse().unwrap();
    let reply = |source, port| {
        Outcome::Reply(Reply { server: Some("me".into()), source: Some(source), port: Some(port) })
    };
    assert_eq!(probe(&ns, lo, Kind::Tcp(80), PATIENCE), reply(lo, 80));
    assert_eq!(probe(&ns, v6, Kind::Tcp(80), PATIENCE), reply(v6, 80));
    assert_eq!(probe(&ns, lo, Kind::Udp(90), PATIENCE), reply(lo, 90));
    assert_eq!(probe(&ns, v6, Kind::Udp(90), PATIENCE), reply(v6, 90));
    assert!(probe(&ns, lo, Kind::Echo, PATIENCE).replied());
    assert!(probe(&ns, v6, Kind::Echo, PATIENCE).replied());
    assert_eq!(probe(&ns, lo, Kind::Dns { tcp: true }, PATIENCE), reply(lo, 53));
    assert_eq!(probe(&ns, v6, Kind::Dns { tcp: false }, PATIENCE), reply(v6, 53));
    assert_eq!(probe(&ns, lo, Kind::Tcp(81), PATIENCE), Outcome::Refused);
    assert_eq!(probe(&ns, lo, Kind::Udp(81), PATIENCE), Outcome::Refused);
    let void: IpAddr = "10.9.9.2".parse().unwrap();
    assert_eq!(probe(&ns, void, Kind::Tcp(80), IMPATIENCE), Outcome::Timeout);
    assert_eq!(probe(&ns, void, Kind::Udp(80), IMPATIENCE), Outcome::Timeout);
    assert_eq!(probe(&ns, void, Kind::Echo, IMPATIENCE), Outcome::Timeout);
    let nowhere: IpAddr = "10.9.8.2".parse().unwrap();
    assert_eq!(probe(&ns, nowhere, Kind::Tcp(80), PATIENCE), Outcome::Unreachable);
}

/// TCP would mend it after a second.
#[test]
fn a_probe_whose_first_packet_was_dropped_is_no_reply() {
    let ns = Namespace::new("mended").unwrap();
    ns.ip("link set lo up").unwrap();
    let mut servers = Servers::new().unwrap();
    let ports = Listen { tcp: &[80], udp: &[], dns: false };
    servers.start("me", &ns, ports, &[]).unwrap();
    ns.nft("add table inet t\nadd chain inet t in { type filter hook input priority 0; }\nadd rule inet t in tcp dport 80 quota until 100 bytes drop")
        .unwrap();
    let lo: IpAddr = "127.0.0.1".parse().unwrap();
    assert_eq!(probe(&ns, lo, Kind::Tcp(80), PATIENCE), Outcome::Timeout);
    assert!(probe(&ns, lo, Kind::Tcp(80), PATIENCE).replied());
}
