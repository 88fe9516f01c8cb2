//! What a rule asks for, in one line, in the words of kubectl.

use std::fmt;

use super::RuleRef;
use crate::model::{IpBlock, Peer, Ports, Requirement, Rule, Selector};

/// The peers of a rule: "pods app=web of namespaces team=red; 10.0.0.0/8".
#[derive(Clone, Copy, Debug)]
pub struct PeerList<'e>(pub RuleRef<'e>);

/// The ports of a rule: "TCP 443, UDP 53".
#[derive(Clone, Copy, Debug)]
pub struct PortList<'e>(pub RuleRef<'e>);

/// More peers or ports than this are only counted.
const MOST: usize = 4;

impl fmt::Display for PeerList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rule { peers, ports: _ } = self.0.rule;
        let Some(peers) = peers else { return f.write_str("everyone") };
        if peers.is_empty() {
            return f.write_str("nobody");
        }
        list(f, peers, "; ", |f, peer| match peer {
            Peer::IpBlock(IpBlock { cidr, except }) if except.is_empty() => write!(f, "{cidr}"),
            Peer::IpBlock(IpBlock { cidr, except }) => {
                write!(f, "{cidr} except ")?;
                list(f, except, ", ", |f, except| write!(f, "{except}"))
            }
            Peer::Pods { namespaces, pods } => {
                pods_of(f, pods)?;
                match namespaces {
                    None => write!(f, " of namespace {}", self.0.policy.key.namespace),
                    Some(namespaces) if namespaces.is_everything() => {
                        f.write_str(" of every namespace")
                    }
                    Some(namespaces) => {
                        f.write_str(" of namespaces ")?;
                        selector(f, namespaces)
                    }
                }
            }
        })
    }
}

impl fmt::Display for PortList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rule { peers: _, ports } = self.0.rule;
        let Some(ports) = ports else { return f.write_str("every port") };
        list(f, ports, ", ", |f, port| match &port.ports {
            Ports::All => write!(f, "every {} port", port.protocol),
            Ports::Range(first, last) if first == last => write!(f, "{} {first}", port.protocol),
            Ports::Range(first, last) => write!(f, "{} {first}-{last}", port.protocol),
            Ports::Named(name) => write!(f, "{} {name:?}", port.protocol),
        })
    }
}

fn pods_of(f: &mut fmt::Formatter<'_>, pods: &Selector) -> fmt::Result {
    if pods.is_everything() {
        return f.write_str("every pod");
    }
    f.write_str("pods ")?;
    selector(f, pods)
}

fn selector(f: &mut fmt::Formatter<'_>, selector: &Selector) -> fmt::Result {
    for (number, requirement) in selector.requirements().enumerate() {
        if number > 0 {
            f.write_str(",")?;
        }
        match requirement {
            Requirement::In(key, values) if values.len() == 1 => {
                write!(f, "{key}={}", joined(values))?;
            }
            Requirement::In(key, values) => write!(f, "{key} in ({})", joined(values))?,
            Requirement::NotIn(key, values) => write!(f, "{key} notin ({})", joined(values))?,
            Requirement::Exists(key) => f.write_str(key)?,
            Requirement::DoesNotExist(key) => write!(f, "!{key}")?,
        }
    }
    Ok(())
}

fn joined(values: &[Box<str>]) -> String {
    values.join(",")
}

fn list<T>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    separator: &str,
    mut item: impl FnMut(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (number, one) in items.iter().take(MOST).enumerate() {
        if number > 0 {
            f.write_str(separator)?;
        }
        item(f, one)?;
    }
    match items.len().checked_sub(MOST) {
        Some(more) if more > 0 => write!(f, "{separator}{more} more"),
        _ => Ok(()),
    }
}
