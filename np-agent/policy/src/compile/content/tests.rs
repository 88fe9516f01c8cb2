use super::*;
use crate::model::Values;

/// The values that the hash's authors give.
#[test]
fn it_is_the_hash_it_says() {
    for (text, hash) in [
        ("", 0xcbf2_9ce4_8422_2325),
        ("a", 0xaf63_dc4c_8601_ec8c),
        ("foobar", 0x8594_4171_f739_67e8),
    ] {
        let mut hasher = Fnv1a::new();
        hasher.bytes(text.as_bytes());
        assert_eq!(hasher.0, hash, "{text}");
    }
}

fn values(values: &[&str]) -> Values {
    values.iter().copied().collect()
}

/// Every alternative of everything that has an encoding.
fn rules() -> Vec<AllowRule> {
    let atom = |namespace: &str, pods: Selector| Atom::PodsOf { namespace: namespace.into(), pods };
    let demanding = Selector::from_iter([
        Requirement::In("app".into(), values(&["a", "b"])),
        Requirement::NotIn("tier".into(), values(&["x"])),
        Requirement::Exists("team".into()),
        Requirement::DoesNotExist("old".into()),
    ]);
    let block = |cidr: &str, except: &[&str]| {
        let net = |text: &str| text.parse::<IpNet>().expect("a prefix");
        Atom::Block(IpBlock {
            cidr: net(cidr),
            except: except.iter().map(|&one| net(one)).collect(),
        })
    };
    let port = ContainerPort { name: "http".to_owned(), protocol: Protocol::Udp, port: 8080 };
    vec![
        AllowRule { peers: None, ports: None },
        AllowRule {
            peers: Some(BTreeSet::from([
                atom("shop", Selector::everything()),
                Atom::Pods { namespaces: demanding.clone(), pods: Selector::everything() },
                block("10.0.0.0/8", &["10.1.0.0/16", "10.2.0.0/16"]),
                block("fd00::/8", &[]),
                Atom::Port(port),
                atom("web", demanding),
            ])),
            ports: Some(BTreeSet::from([
                AllowPorts::Protocol(Protocol::Sctp),
                AllowPorts::Range(Protocol::Tcp, 80, 443),
                AllowPorts::OfPeer(Protocol::Udp, "dns".to_owned()),
            ])),
        },
    ]
}

/// A failure here means that ids in the maps of a running node would mean something else after an
/// upgrade: raise the ABI version with it.
#[test]
fn the_encoding_has_not_changed() {
    let each: Vec<u64> = rules().iter().map(|rule| hash_of([rule].into_iter())).collect();
    assert_eq!(each, [0x5b2a_969b_42d2_38a4, 0x2f08_2648_a340_5935]);
    let rules = rules();
    assert_eq!(
        hash_of(rules[1].peers.iter().flatten().collect::<Vec<_>>().into_iter()),
        0x57f3_6aad_4f87_eddf
    );
    assert_eq!(hash_of(rules.iter().take(0)), 0xa8c7_f832_281a_39c5);
}
