//! What a device is by what it does with packets, for all devices but the ends of pairs.
//!
//! Programs belong where packets enter or leave the node. A device that hands packets back to this
//! node, or whose ports have the programs, has none: a verdict there would come before DNAT, and a
//! tag written there would hide whose packet it is. A device that takes its share of another one's
//! packets is what that one is, unless pods' packets come by it: then it keeps what was tagged
//! below.

use std::collections::BTreeMap;

use np_common::endpoint::Role;

use super::Placement;
use crate::model::{Device, IfIndex, Lower};

/// What devices of a kind do with packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nature {
    /// Packets neither enter nor leave the node by it.
    Within,
    /// What comes in was outside, and nobody on this node can have made it.
    Outward,
    /// What comes in was wrapped in other packets, which anyone who reaches the node could send.
    Unwraps,
    /// It sends and receives by the device below.
    Shares,
    /// A switch's way into the node: pods' packets come in by it.
    Switch,
    /// One of two ends: what goes into one comes out of the other.
    Pair,
}

/// Every kind of device that Linux knows, what it does, and how that shows in its packets.
pub(super) const KINDS: &[(&[&str], Nature, &str)] = {
    use Nature::{Outward, Pair, Shares, Switch, Unwraps, Within};
    &[
        (&["bridge"], Within, "a bridge: its ports have the programs"),
        (&["bond", "team"], Within, "joins its ports, which have the programs"),
        (&["vrf"], Within, "a routing table for its ports, which have the programs"),
        (&["ifb"], Within, "what leaves it goes on where it came in"),
        (&["dummy"], Within, "drops what it is given"),
        (&["nlmon", "vsockmon"], Within, "shows what others sent"),
        (&["can", "vcan", "vxcan"], Within, "carries no IP packets"),
        (&["tun"], Outward, "a process has the other end"),
        (&["wireguard", "amneziawg", "ovpn"], Outward, "takes only what its peers' keys made"),
        (&["xfrm", "vti", "vti6"], Outward, "takes only what a security association made"),
        (&["ppp", "ipoib", "wwan", "caif", "netdevsim"], Outward, "a line out of the node"),
        (&["hsr", "batadv"], Outward, "speaks an ethertype of its own, which pods may not send"),
        (&["vxlan", "geneve", "bareudp", "gtp", "amt", "pfcp"], Unwraps, "unwraps UDP"),
        (&["gre", "gretap", "erspan", "ip6gre", "ip6gretap", "ip6erspan"], Unwraps, "unwraps GRE"),
        (&["ipip", "ip6tnl", "sit"], Unwraps, "unwraps IP in IP"),
        (&["vlan", "dsa", "rmnet"], Shares, "takes what bears its number"),
        (&["macvlan", "macvtap", "virt_wifi"], Shares, "takes what is for its hardware address"),
        (&["ipvlan", "ipvtap"], Shares, "takes what is for its addresses"),
        (&["macsec", "lowpan"], Shares, "takes what was wrapped for this link"),
        (&["openvswitch"], Switch, "a port of a switch whose other ports may be pods'"),
        (&["veth", "netkit"], Pair, "both ends are on the node"),
    ]
};

fn nature(kind: &str) -> Option<(Nature, &'static str)> {
    let row = KINDS.iter().find(|(kinds, ..)| kinds.contains(&kind))?;
    Some((row.1, row.2))
}

/// What a device is that does not lead into a namespace. `ends` says what those are that do.
pub(super) fn place(
    device: &Device,
    devices: &BTreeMap<IfIndex, Device>,
    ends: &BTreeMap<IfIndex, Placement>,
) -> Placement {
    if device.loopback {
        return Placement::of(None, "loopback");
    }
    let Some(kind) = device.kind.as_deref() else {
        return match device.hardware {
            true => Placement::of(Some(Role::Uplink), "physical"),
            // An L2TP session is such a device, or what a module that is not Linux' own has made.
            false => Placement::doubtful("it has no kind and no hardware"),
        };
    };
    let Some((nature, why)) = nature(kind) else {
        return Placement::doubtful(&format!("its kind {kind} is not known"));
    };
    let (role, why) = match nature {
        Nature::Within | Nature::Pair => (None, why.to_owned()),
        Nature::Outward => (Some(Role::Uplink), format!("{kind}: {why}")),
        Nature::Unwraps => (Some(Role::Tunnel), format!("{kind}: {why}")),
        Nature::Switch => (Some(Role::Stacked), format!("{kind}: {why}")),
        Nature::Shares => match device.lower {
            Some(Lower::Here(lower)) if brings_pods(lower, devices, ends, DEEPEST) => {
                let below = devices.get(&lower).map_or("a device", |lower| &lower.name);
                (Some(Role::Stacked), format!("{kind} on {below}, by which pods' packets come"))
            }
            Some(Lower::Here(_)) | None => (Some(Role::Uplink), format!("{kind}: {why}")),
            Some(Lower::Elsewhere) => {
                (Some(Role::Uplink), format!("{kind} on a device of another namespace"))
            }
        },
    };
    Placement::of(role, &why)
}

/// Whether a packet may come up from a device as a pod has sent it, tagged by a program below.
/// A bridge counts also without pods: one may become a port before this is asked again.
fn brings_pods(
    ifindex: IfIndex,
    devices: &BTreeMap<IfIndex, Device>,
    ends: &BTreeMap<IfIndex, Placement>,
    depth: u8,
) -> bool {
    let Some(device) = devices.get(&ifindex) else { return true };
    if depth == 0 || device.kind.as_deref() == Some("bridge") {
        return true;
    }
    let again = |ifindex| brings_pods(ifindex, devices, ends, depth - 1);
    match device.kind.as_deref().and_then(nature) {
        Some((Nature::Switch, _)) => true,
        // Of a pair with both ends here, the other one may be a bridge's.
        Some((Nature::Pair, _)) => {
            ends.get(&ifindex).is_none_or(|end| end.role != Some(Role::Uplink))
        }
        Some((Nature::Shares, _)) => match device.lower {
            Some(Lower::Here(lower)) => again(lower),
            Some(Lower::Elsewhere) | None => false,
        },
        Some((Nature::Within, _)) => {
            let mut ports = devices.values().filter(|port| port.master == Some(ifindex));
            ports.any(|port| again(port.index))
        }
        Some((Nature::Outward | Nature::Unwraps, _)) | None => false,
    }
}

/// The kernel allows eight devices on top of each other.
const DEEPEST: u8 = 8;

#[cfg(test)]
mod tests;
