//! Where the checks of ipBlocks begin and end.

use super::support::{block, from, pod, service, table};

const RANGE: &str = "{apiVersion: networking.k8s.io/v1, kind: ServiceCIDR, metadata: {name: a}, \
                     spec: {cidrs: [10.96.0.0/12, 'fd00:10:96::/112']}}";

#[test]
fn blocks_against_services() {
    for (cidr, expected) in [
        ("10.96.0.0/12", &["NP101 warning"][..]),
        ("10.96.0.0/16", &["NP101 warning"]),
        ("10.100.0.1/32", &["NP101 warning"]),
        ("fd00:10:96::1/128", &["NP101 warning"]),
        ("10.0.0.0/8", &["NP101 info"]),
        ("0.0.0.0/0", &[]),
        ("::/0", &[]),
        ("10.112.0.0/12", &[]),
        ("192.168.0.0/16", &[]),
    ] {
        table(&block(cidr), &[(cidr, &[RANGE], expected)]);
    }
    let excepted = from("- ipBlock: {cidr: 10.0.0.0/8, except: [10.96.0.0/13, 10.104.0.0/13]}");
    table(&excepted, &[("the range is excepted, in two parts", &[RANGE], &[])]);
}

#[test]
fn blocks_against_addresses_of_services() {
    let web = service("web", "app: web", "clusterIP: 10.96.0.20, ports: [{port: 80}]");
    let headless = service("web", "app: web", "clusterIP: None, ports: [{port: 80}]");
    for (cidr, expected) in [
        ("10.96.0.20/32", &["NP101 warning"][..]),
        ("10.96.0.0/16", &["NP101 warning"]),
        ("10.0.0.0/8", &["NP101 info"]),
        ("10.97.0.0/16", &[]),
    ] {
        table(&block(cidr), &[(cidr, &[&web], expected), (cidr, &[&headless], &[])]);
    }
    let excepted = from("- ipBlock: {cidr: 10.96.0.0/16, except: [10.96.0.20/32]}");
    table(&excepted, &[("the one address is excepted", &[&web], &[])]);
}

#[test]
fn blocks_against_pods() {
    let node =
        "{apiVersion: v1, kind: Node, metadata: {name: node-1}, spec: {podCIDRs: [10.244.1.0/24]}}";
    let web = pod("default", "web", "app: web", &["10.244.1.7"]);
    let host = "{apiVersion: v1, kind: Pod, metadata: {name: h, labels: {app: web}}, spec: \
                {hostNetwork: true}, status: {podIPs: [{ip: 10.244.1.7}]}}";
    for (cidr, expected) in [
        ("10.244.1.7/32", &["NP102 warning"][..]),
        ("10.244.0.0/16", &["NP102 warning"]),
        ("10.0.0.0/8", &["NP102 info"]),
        ("0.0.0.0/0", &[]),
        ("10.245.0.0/16", &[]),
    ] {
        table(&block(cidr), &[(cidr, &[node], expected), (cidr, &[&web], expected)]);
        // The node's address is no pod's, and with such pods only the policy has no effect.
        table(&block(cidr), &[(cidr, &[host], &["NP206 warning"])]);
    }
}

/// Through an overlay it is the node's own address.
#[test]
fn the_first_address_of_a_node_is_only_worth_a_word() {
    let node = "{apiVersion: v1, kind: Node, metadata: {name: node-1}, spec: {podCIDRs: \
                [10.244.1.0/24, 'fd00:1::/64']}}";
    for (cidr, expected) in [
        ("10.244.1.0/32", &["NP102 info"][..]),
        ("fd00:1::/128", &["NP102 info"]),
        ("10.244.1.1/32", &["NP102 warning"]),
        ("10.244.1.0/31", &["NP102 warning"]),
    ] {
        table(&block(cidr), &[(cidr, &[node], expected)]);
    }
    let taken = pod("default", "web", "app: web", &["10.244.1.0"]);
    table(&block("10.244.1.0/32"), &[("a pod has it", &[node, &taken], &["NP102 warning"])]);
}

#[test]
fn blocks_of_a_family_that_no_pod_has() {
    let v4 = pod("default", "web", "app: web", &["10.244.1.7"]);
    let both = pod("default", "web", "app: web", &["10.244.1.7", "fd00::7"]);
    let v6 = pod("default", "web", "app: web", &["fd00::7"]);
    table(
        &block("2001:db8::/32"),
        &[
            ("IPv4 only", &[&v4], &["NP104 warning"]),
            ("dual stack", &[&both], &[]),
            ("IPv6 only", &[&v6], &[]),
            ("nobody knows", &[], &[]),
        ],
    );
    table(&block("192.0.2.0/24"), &[("IPv6 only", &[&v6], &["NP104 warning"])]);
    let portable = from("- ipBlock: {cidr: '2001:db8::/32'}\n- ipBlock: {cidr: 192.0.2.0/24}");
    table(&portable, &[("a block of each", &[&v4], &["NP104 info"])]);
}

#[test]
fn excepts_take_all_away_only_together() {
    for (except, expected) in [
        ("192.0.2.0/25, 192.0.2.128/25", &["NP103 warning"][..]),
        ("192.0.2.0/26, 192.0.2.64/26, 192.0.2.128/25", &["NP103 warning"]),
        ("192.0.2.0/25, 192.0.2.128/26", &[]),
        ("192.0.2.0/25", &[]),
    ] {
        let spec = from(&format!("- ipBlock: {{cidr: 192.0.2.0/24, except: [{except}]}}"));
        table(&spec, &[(except, &[], expected)]);
    }
}
