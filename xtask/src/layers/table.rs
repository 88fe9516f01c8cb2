//! The order of the layers, and nothing else.

/// A top-level module of np-agent.
#[derive(Debug)]
pub struct Layer {
    pub module: &'static str,
    pub kind: Kind,
    /// Paths in the crate that it may name besides its own.
    pub may: &'static [&'static str],
    /// Modules it may name of np-common, what the kernel programs share with the agent.
    pub np_common: &'static [&'static str],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Values in, values out: no I/O, no clock.
    Pure,
    /// I/O of one sort; knows no other edge.
    Edge,
    /// Joins the others; nothing else imports it.
    Wiring,
}

pub const NP_AGENT: &[Layer] = &[
    Layer {
        module: "model",
        kind: Kind::Pure,
        may: &[],
        np_common: &["direction", "packet", "source", "tunnel"],
    },
    Layer { module: "index", kind: Kind::Pure, may: &["model"], np_common: &[] },
    Layer { module: "compile", kind: Kind::Pure, may: &["model", "index"], np_common: &[] },
    Layer {
        module: "plan",
        kind: Kind::Pure,
        may: &["model", "index", "compile"],
        np_common: ANYTHING,
    },
    Layer {
        module: "bind",
        kind: Kind::Pure,
        may: &["model", "index", "plan"],
        np_common: ANYTHING,
    },
    Layer {
        module: "explain",
        kind: Kind::Pure,
        may: &["model", "index", "compile", "plan"],
        np_common: ANYTHING,
    },
    Layer {
        module: "reconcile",
        kind: Kind::Pure,
        may: &["model", "index", "compile", "plan", "bind"],
        np_common: ANYTHING,
    },
    Layer { module: "lint", kind: Kind::Pure, may: &["model", "index"], np_common: &[] },
    Layer { module: "source", kind: Kind::Edge, may: &["model"], np_common: &[] },
    Layer { module: "links", kind: Kind::Edge, may: &["model"], np_common: &[] },
    Layer { module: "dataplane", kind: Kind::Edge, may: &["model", "plan"], np_common: ANYTHING },
    Layer { module: "admin", kind: Kind::Wiring, may: ANYTHING, np_common: ANYTHING },
    Layer { module: "advice", kind: Kind::Wiring, may: ANYTHING, np_common: ANYTHING },
    Layer { module: "agent", kind: Kind::Wiring, may: ANYTHING, np_common: ANYTHING },
    Layer { module: "app", kind: Kind::Wiring, may: ANYTHING, np_common: ANYTHING },
    Layer { module: "args", kind: Kind::Wiring, may: ANYTHING, np_common: ANYTHING },
    Layer { module: "attaching", kind: Kind::Wiring, may: ANYTHING, np_common: ANYTHING },
    Layer { module: "cli", kind: Kind::Wiring, may: ANYTHING, np_common: ANYTHING },
    Layer { module: "doorkeeper", kind: Kind::Wiring, may: ANYTHING, np_common: ANYTHING },
    Layer { module: "inspector", kind: Kind::Wiring, may: ANYTHING, np_common: ANYTHING },
    Layer { module: "lib", kind: Kind::Wiring, may: ANYTHING, np_common: ANYTHING },
    Layer { module: "main", kind: Kind::Wiring, may: ANYTHING, np_common: ANYTHING },
    Layer { module: "message", kind: Kind::Wiring, may: ANYTHING, np_common: ANYTHING },
    Layer { module: "origin", kind: Kind::Wiring, may: ANYTHING, np_common: ANYTHING },
    Layer { module: "status", kind: Kind::Wiring, may: ANYTHING, np_common: ANYTHING },
    Layer { module: "telemetry", kind: Kind::Wiring, may: ANYTHING, np_common: ANYTHING },
];

pub const ANYTHING: &[&str] = &["*"];

/// What pure code must not name: I/O, clocks, and the crates that bring them.
pub const NOT_PURE: &[&str] = &[
    "aya",
    "kube",
    "libc",
    "netlink_packet_route",
    "netlink_sys",
    "nix",
    "std::env",
    "std::fs",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "tokio",
];

/// Crates whose types stop at the edges named here.
pub const ONLY_IN: &[(&str, &[&str])] = &[
    ("aya", &["dataplane"]),
    ("aya_log", &["dataplane"]),
    ("http", &["source"]),
    ("http_body_util", &["source"]),
    ("k8s_openapi", &["source"]),
    ("kube", &["source"]),
    ("netlink_packet_core", &["dataplane", "links"]),
    ("netlink_packet_route", &["dataplane", "links"]),
    ("netlink_sys", &["dataplane", "links"]),
    ("serde_saphyr", &["source"]),
];

/// What each package may depend on of this workspace.
pub const PACKAGES: &[(&str, &[&str])] = &[
    ("np-common", &[]),
    ("np-ebpf", &["np-common"]),
    ("np-agent", &["np-common"]),
    // It runs where kubectl does, which need not be Linux.
    ("kubectl-np", &[]),
    ("np-tests", &["np-common", "np-agent", "kubectl-np"]),
    ("xtask", &["np-common"]),
];

/// All that np-common may depend on, and only if asked to by a feature.
pub const NP_COMMON_OPTIONAL: &[&str] = &["aya"];
