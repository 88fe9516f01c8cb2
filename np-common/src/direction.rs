//! The pod's direction, as in the API, and the TC programs of a node.

/// A direction of traffic, always seen from the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// What a pod receives.
    Ingress,
    /// What a pod sends.
    Egress,
}

/// Where a program runs. TC's own words meet the pod's only here: what leaves a pod is TC ingress
/// on the host end of its veth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Hook {
    /// TC ingress of the host end of a pod's veth.
    FromPod = 0,
    /// TC egress of the host end of a pod's veth.
    ToPod = 1,
    /// TC ingress of every other device that brings packets in.
    FromUplink = 2,
    /// TC egress of those devices.
    ToUplink = 3,
}

impl Hook {
    /// Every hook, by its number.
    pub const ALL: [Hook; 4] = [Hook::FromPod, Hook::ToPod, Hook::FromUplink, Hook::ToUplink];

    /// The name of the hook and of the program that runs there.
    pub const fn name(self) -> &'static str {
        match self {
            Hook::FromPod => "from_pod",
            Hook::ToPod => "to_pod",
            Hook::FromUplink => "from_uplink",
            Hook::ToUplink => "to_uplink",
        }
    }

    /// Whether the program sits on the TC ingress side of its device.
    pub const fn is_tc_ingress(self) -> bool {
        matches!(self, Hook::FromPod | Hook::FromUplink)
    }
}
