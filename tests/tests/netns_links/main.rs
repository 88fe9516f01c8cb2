//! `links::Monitor` against the kernel. Nodes and pods are network namespaces without names, kept
//! alive by a thread or a file descriptor of the test, so nothing is left behind however it ends.
//! Needs root.

mod node;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs::File,
    io::Write,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsRawFd,
    panic,
    process::{self, Command, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, setns, unshare},
    unistd::gettid,
};
use np_agent::links::{LinksError, Monitor};
use np_policy::model::{Device, DeviceChange, IfIndex, Lower};
use tokio::{runtime, time};

use crate::node::*;

#[test]
fn a_fresh_namespace_has_only_its_loopback() {
    node(async |node| {
        let lo = &node.devices[&IfIndex(1)];
        // And the tunnels that a kernel makes in every namespace once it has their module.
        let others = node.devices.values().filter(|device| device.encapsulations.is_empty());
        assert_eq!(others.count(), 1, "{:?}", node.devices);
        assert_eq!((lo.name.as_str(), lo.loopback, lo.layer3), ("lo", true, false));
        assert!(lo.addresses.is_empty() && lo.host_routes.is_empty() && !lo.gateway);
        node.quiet().await;
    });
}

#[test]
fn a_veth_is_seen_with_its_peer_and_goes_when_deleted() {
    node(async |node| {
        let pod = Pod::new();
        node.ip(&veth("veth0", &pod));
        let peer = node.until("veth0 with a peer", |d| d("veth0")?.peer.clone()).await;
        let veth0 = node.device("veth0").clone();
        assert_eq!(veth0.kind.as_deref(), Some("veth"));
        assert!(!veth0.layer3 && !veth0.loopback && !veth0.gateway);
        assert_eq!(peer.index.0, pod.index("eth0"));
        assert!(peer.netnsid >= 0 && peer.claims.is_empty(), "{peer:?}");

        node.ip("link del veth0");
        node.until_absent("veth0").await;
        assert_eq!(node.log.last(), Some(&DeviceChange::Gone(veth0.index)));
    });
}

#[test]
fn a_device_goes_with_the_namespace_of_its_peer() {
    node(async |node| {
        let pod = Pod::new();
        node.ip(&veth("veth0", &pod));
        node.until("veth0", |d| d("veth0").cloned()).await;
        drop(pod);
        node.until_absent("veth0").await;
    });
}

#[test]
fn devices_from_before_the_start_are_seen_with_all_facts() {
    node(async |node| {
        let pod = Pod::new();
        node.ip(&veth("veth0", &pod));
        node.ip("link set veth0 up");
        node.ip("addr add 10.0.0.1/32 dev veth0");
        node.ip("route add 10.0.0.7/32 dev veth0");
        pod.ip("link set eth0 up");
        pod.ip("addr add 10.0.0.7/24 dev eth0");
        node.uplink("up0");
        node.ip("addr add 192.0.2.1/24 dev up0");
        node.ip("route add default via 192.0.2.254");
        node.ip("tuntap add tun0 mode tun");

        let devices = Monitor::open().expect("a monitor").devices().expect("devices");
        let find = |name| devices.iter().find(|device| device.name == name).expect("the device");
        let veth0 = find("veth0");
        assert_eq!(claims(veth0), ["10.0.0.7"]);
        assert_eq!(hosts(veth0), ["10.0.0.7"]);
        assert_eq!(texts(&veth0.addresses), ["10.0.0.1"]);
        assert!(!veth0.gateway);
        let up0 = find("up0");
        assert_eq!(texts(&up0.addresses), ["192.0.2.1"]);
        assert!(up0.gateway && up0.host_routes.is_empty() && up0.peer.is_none() && !up0.layer3);
        assert!(find("tun0").layer3);
        assert_eq!(find("tun0").kind.as_deref(), Some("tun"));
    });
}

/// Tentative IPv6 addresses count at once; duplicate address detection takes over a second.
#[test]
fn addresses_inside_are_claims() {
    node(async |node| {
        let pod = Pod::new();
        node.ip(&veth("veth0", &pod));
        node.ip("link set veth0 up");
        node.until("a peer", |d| d("veth0")?.peer.clone()).await;
        pod.ip("link set eth0 up");
        pod.ip("link set lo up");
        pod.ip("addr add 10.0.0.7/24 dev eth0");
        node.until_claims("veth0", &["10.0.0.7"]).await;

        let start = Instant::now();
        pod.ip("addr add fd00::7/64 dev eth0");
        node.until_claims("veth0", &["10.0.0.7", "fd00::7"]).await;
        assert!(start.elapsed() < Duration::from_millis(700), "{:?}", start.elapsed());

        pod.ip("addr add 10.0.0.9/24 dev eth0");
        node.until_claims("veth0", &["10.0.0.7", "10.0.0.9", "fd00::7"]).await;
        pod.ip("addr del 10.0.0.9/24 dev eth0");
        node.until_claims("veth0", &["10.0.0.7", "fd00::7"]).await;
        // A link-local address came too, and lo has 127.0.0.1 and ::1: none is ever a claim.
        node.quiet().await;
    });
}

/// A sandbox or a virtual machine moves the pod's address to another device than the peer.
#[test]
fn an_address_is_claimed_wherever_in_the_namespace_it_is() {
    node(async |node| {
        let (pod, other) = (Pod::new(), Pod::new());
        node.ip(&veth("veth0", &pod));
        pod.ip("link set eth0 name net0");
        node.ip(&veth("veth1", &pod));
        node.ip(&veth("veth2", &other));
        let all = ["10.0.0.7", "10.1.0.7"];
        pod.ip("addr add 10.0.0.7/24 dev net0");
        pod.ip("addr add 10.1.0.7/24 dev eth0");
        node.until_claims("veth0", &all).await;
        node.until_claims("veth1", &all).await;
        let id = |name| node.device(name).peer.as_ref().map(|peer| peer.netnsid);
        assert_eq!(id("veth0"), id("veth1"));
        assert_ne!(id("veth0"), id("veth2"));

        pod.ip("addr del 10.0.0.7/24 dev net0");
        node.until_claims("veth0", &all[1..]).await;
        pod.ip("addr add 10.0.0.7/32 dev lo");
        node.until_claims("veth0", &all).await;
        node.until_claims("veth1", &all).await;
        node.until_claims("veth2", &[]).await;
    });
}

#[test]
fn what_devices_lie_on_and_are_ports_of_is_followed() {
    node(async |node| {
        let pod = Pod::new();
        node.ip("link add cni0 type bridge");
        node.ip(&veth("veth0", &pod));
        node.ip("link add gw0 link cni0 type macvlan mode bridge");
        let gw0 = node.until("gw0", |d| d("gw0").cloned()).await;
        let cni0 = node.device("cni0").index;
        assert_eq!(gw0.lower, Some(Lower::Here(cni0)));
        assert_eq!((gw0.master, gw0.peer, gw0.hardware), (None, None, false));
        assert_eq!(node.device("veth0").lower, None, "the other end is not below it");
        let port_of = |wanted: Option<IfIndex>| {
            move |d: &Find<'_>| (d("veth0")?.master == wanted).then_some(())
        };
        node.ip("link set veth0 master cni0");
        node.until("a port", port_of(Some(cni0))).await;
        node.ip("link set veth0 nomaster");
        node.until("no port", port_of(None)).await;

        // What is on top of a device of another namespace.
        pod.ip("link add far0 link eth0 type macvlan mode bridge");
        pod.ip(&format!("link set far0 netns {}", node.path()));
        let far0 = node.until("far0", |d| d("far0").cloned()).await;
        assert_eq!(far0.lower, Some(Lower::Elsewhere));
    });
}

/// Namespace ids are used again at once. Two devices are never said to lead into one namespace but
/// they do, or did until one of them ended: else the second would be taken for the first one's pod.
#[test]
fn devices_of_different_pods_never_share_a_namespace() {
    node(async |node| {
        let path = node.path();
        let churners: Vec<_> = (0..2).map(|first| churn(path.clone(), first, 2)).collect();
        let mut shared = 0_u32;
        while churners.iter().any(|churner| !churner.is_finished()) {
            node.take().await;
            let ids = node.devices.values().filter_map(|device| {
                device.peer.as_ref().map(|peer| peer.netnsid).filter(|id| *id >= 0)
            });
            let mut seen = BTreeSet::new();
            let twice: Vec<i32> = ids.filter(|id| !seen.insert(*id)).collect();
            shared += twice.len() as u32;
            assert_eq!(shared, 0, "{twice:?} in {:#?}", node.devices);
        }
        let made: u32 = churners.into_iter().map(|churner| churner.join().expect("pods")).sum();
        println!("{made} pods made");
        assert!(made > 10, "too few to say anything: {made}");
    });
}

#[test]
fn host_routes_are_followed() {
    node(async |node| {
        let (first, second) = (Pod::new(), Pod::new());
        for (name, pod) in [("veth0", &first), ("veth1", &second)] {
            node.ip(&veth(name, pod));
            node.ip(&format!("link set {name} addrgenmode none"));
            node.ip(&format!("link set {name} up"));
            pod.ip("link set eth0 up");
        }
        node.settle().await;
        // The kernel makes a /128 route to this one by itself.
        node.ip("addr add fd00::1/128 dev veth0 nodad");
        node.ip("route add 10.0.0.7/32 dev veth0");
        node.ip("-6 route add fd00::7/128 dev veth0");
        node.ip("route add 10.0.0.8/32 dev veth0 table 100");
        node.until_host_routes("veth0", &["10.0.0.7", "10.0.0.8", "fd00::7"]).await;
        node.ip("route del 10.0.0.7/32 dev veth0");
        node.until_host_routes("veth0", &["10.0.0.8", "fd00::7"]).await;
        assert!(!node.device("veth0").gateway);

        // The device a route is taken from is not in the event.
        node.ip("route replace 10.0.0.8/32 dev veth1 table 100");
        node.until_host_routes("veth1", &["10.0.0.8"]).await;
        node.until_host_routes("veth0", &["fd00::7"]).await;

        // IPv4 routes through a device that goes down vanish without an event of their own.
        node.ip("link set veth1 down");
        node.until_host_routes("veth1", &[]).await;
    });
}

#[test]
fn gateways_are_followed() {
    node(async |node| {
        for (name, net) in [("up0", 0), ("up1", 1)] {
            node.uplink(name);
            node.ip(&format!("addr add 192.0.{net}.1/24 dev {name}"));
            node.ip(&format!("addr add fd00:{net}::1/64 dev {name} nodad"));
        }
        node.settle().await;
        node.until_gateways(&[]).await;
        node.ip("route add default via 192.0.0.254");
        node.until_gateways(&["up0"]).await;
        node.ip("route replace default via 192.0.1.254");
        node.until_gateways(&["up1"]).await;
        node.ip("route del default");
        node.until_gateways(&[]).await;
        node.ip("route add default nexthop via 192.0.0.254 nexthop via 192.0.1.254");
        node.until_gateways(&["up0", "up1"]).await;
        node.ip("route del default");
        node.until_gateways(&[]).await;
        // A single host that forwards makes no uplink.
        node.ip("route add 203.0.113.9/32 dev up0");
        node.ip("route add 198.51.100.0/24 via 203.0.113.9 dev up0 onlink");
        node.ip("route add 198.51.101.0/24 via 192.0.1.9");
        node.until_gateways(&["up1"]).await;
        node.ip("route del 198.51.100.0/24");
        node.ip("route del 198.51.101.0/24");
        node.until_gateways(&[]).await;
        node.ip("-6 route add fd01::/16 via fd00:1::9 table 100");
        node.until_gateways(&["up1"]).await;
        node.ip("-6 route flush table 100");
        node.until_gateways(&[]).await;
        node.ip("route add default via inet6 fd00:0::9");
        node.until_gateways(&["up0"]).await;
        node.ip("route del default via inet6 fd00:0::9");
        node.until_gateways(&[]).await;

        // The deletion of a nexthop object takes IPv4 routes along without an event of their own.
        node.ip("nexthop add id 5 via 192.0.1.254 dev up1");
        node.ip("route add 198.51.100.0/24 nhid 5");
        node.until_gateways(&["up1"]).await;
        node.ip("nexthop del id 5");
        node.until_gateways(&[]).await;

        // Before Linux 6.6, so does the deletion of their preferred source, on any device.
        node.ip("route add default via 192.0.0.254 src 192.0.1.1");
        node.until_gateways(&["up0"]).await;
        node.ip("addr del 192.0.1.1/24 dev up1");
        node.until_gateways(&[]).await;
    });
}

#[test]
fn bridge_ports_keep_their_peer() {
    node(async |node| {
        let pod = Pod::new();
        node.ip("link add cni0 type bridge");
        node.ip(&veth("veth0", &pod));
        pod.ip("addr add 10.0.0.7/24 dev eth0");
        node.until_claims("veth0", &["10.0.0.7"]).await;
        node.quiet().await;
        let before = node.log.len();
        for change in ["master cni0", "up", "type bridge_slave hairpin on", "down", "nomaster"] {
            node.ip(&format!("link set veth0 {change}"));
            node.take().await;
        }
        assert_eq!(claims(node.device("veth0")), ["10.0.0.7"]);
        let veth0 = node.device("veth0").index;
        let lost = |change: &&DeviceChange| match change {
            DeviceChange::Seen(device) => device.index == veth0 && device.peer.is_none(),
            DeviceChange::Gone(index) => *index == veth0,
        };
        assert_eq!(node.log[before..].iter().find(lost), None);
    });
}

/// The same name, the same index of the peer and the same namespace id: only the end of the first
/// device tells the two apart.
#[test]
fn a_reused_index_is_gone_before_it_is_seen() {
    node(async |node| {
        let pod = Pod::new();
        node.ip(&format!("{} index 800", veth("veth0 index 900", &pod)));
        pod.ip("addr add 10.0.0.7/24 dev eth0");
        node.until_claims("veth0", &["10.0.0.7"]).await;
        let first = node.device("veth0").clone();

        let before = node.log.len();
        node.ip("link del veth0");
        node.ip(&format!("{} index 800", veth("veth0 index 900", &pod)));
        pod.ip("addr add 10.0.0.8/24 dev eth0");
        node.until_claims("veth0", &["10.0.0.8"]).await;
        let peer = |device: &Device| device.peer.as_ref().map(|peer| (peer.netnsid, peer.index));
        assert_eq!(peer(node.device("veth0")), peer(&first), "not the test it should be");
        assert_eq!(node.log.get(before), Some(&DeviceChange::Gone(IfIndex(900))));
    });
}

#[test]
fn a_peer_that_moves_is_followed() {
    node(async |node| {
        let (first, second) = (Pod::new(), Pod::new());
        // Both have ids already: no event about an id gives the moves away.
        for (name, pod) in [("veth1", &first), ("veth2", &second)] {
            node.ip(&veth(name, pod));
            node.until_claims(name, &[]).await;
        }
        let id = |node: &Node, name| node.device(name).peer.as_ref().map(|peer| peer.netnsid);
        let (of_first, of_second) = (id(node, "veth1"), id(node, "veth2"));
        node.ip("link add veth0 type veth peer name end0");
        node.until("both ends", |d| d("veth0").and(d("end0")).cloned()).await;
        assert_eq!(node.device("veth0").peer, None, "both ends are on the node");

        node.ip(&format!("link set end0 netns {}", first.path()));
        node.until_claims("veth0", &[]).await;
        assert_eq!(id(node, "veth0"), of_first);
        first.ip(&format!("link set end0 netns {}", second.path()));
        node.until("another peer", |d| {
            let peer = d("veth0")?.peer.clone()?;
            (Some(peer.netnsid) == of_second).then_some(())
        })
        .await;
        second.ip("addr add 10.0.0.8/24 dev end0");
        node.until_claims("veth0", &["10.0.0.8"]).await;

        second.ip(&format!("link set end0 netns {}", node.path()));
        let home = |d: &Find<'_>| d("end0").filter(|_| d("veth0").is_some_and(unpaired)).cloned();
        node.until("end0 back on the node", home).await;
    });
}

/// More events than the buffer holds while nobody listens; an index is reused among them.
#[test]
fn lost_events_lead_to_reading_everything() {
    node(async |node| {
        let (first, second) = (Pod::new(), Pod::new());
        node.ip(&veth("veth0 index 900", &first));
        node.until("a peer", |d| d("veth0")?.peer.clone()).await;
        node.uplink("flood0");
        node.until("flood0", |d| d("flood0").cloned()).await;

        let flood: String = (0..8_000)
            .map(|number| {
                let address = Ipv4Addr::from_bits(0x0b00_0000 + number);
                format!("addr add {address}/32 dev flood0\naddr del {address}/32 dev flood0\n")
            })
            .collect();
        ip_batch(&flood);
        let before = node.log.len();
        node.ip("link del veth0");
        node.ip(&veth("veth1 index 900", &second));
        second.ip("addr add 10.0.0.8/24 dev eth0");
        node.until_claims("veth1", &["10.0.0.8"]).await;
        assert!(node.monitor.resyncs() > 0, "the buffer held everything: flood more");
        assert_eq!(node.log.get(before), Some(&DeviceChange::Gone(IfIndex(900))));
        assert!(node.device("flood0").addresses.is_empty());
        node.ip("link del veth1");
        node.until_absent("veth1").await;
    });
}

/// Namespaces come and go, and their ids are reused at once. Each pod's device and address carry
/// one number: a claim read from a namespace that took over the id would carry another.
#[test]
fn a_claim_is_never_another_pods() {
    const CHURNERS: u32 = 2;
    node(async |node| {
        let path = node.path();
        let before = node.devices.len();
        let churners: Vec<_> =
            (0..CHURNERS).map(|first| churn(path.clone(), first, CHURNERS)).collect();
        let mut seen = BTreeMap::new();
        while churners.iter().any(|churner| !churner.is_finished()) {
            for change in node.take().await {
                let DeviceChange::Seen(Device { name, peer: Some(peer), .. }) = change else {
                    continue;
                };
                let number = name.trim_start_matches("veth").parse().expect("a number");
                for claim in &peer.claims {
                    assert_eq!(*claim, churn_address(number), "{name}: {peer:?}");
                    seen.insert(number, peer.netnsid);
                }
            }
        }
        let made: u32 = churners.into_iter().map(|churner| churner.join().expect("pods")).sum();
        let ids: BTreeSet<_> = seen.values().collect();
        println!("{made} pods made, {} seen with their claim, {} ids", seen.len(), ids.len());
        assert!(seen.len() > 50, "too few claims seen to say anything: {}", seen.len());
        assert!(ids.len() * 3 < seen.len(), "the ids were not reused: {ids:?}");
        let end = Instant::now() + PATIENCE;
        while node.devices.len() > before {
            assert!(Instant::now() < end, "left: {:?}", node.devices);
            node.take().await;
        }
    });
}

#[test]
fn a_missing_capability_is_named() {
    // linux/capability.h
    for (capability, name) in [(12, "CAP_NET_ADMIN"), (11, "CAP_NET_BROADCAST")] {
        in_thread(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("needs root");
            drop_capability(capability);
            let opened = runtime().block_on(async { Monitor::open() });
            let error = opened.expect_err("refused");
            assert!(error.to_string().contains(name), "{error}");
            assert!(matches!(error, LinksError::Capability { .. }), "{error}");
        });
    }
}

// === The node: a namespace, a monitor, and what it reported ===
