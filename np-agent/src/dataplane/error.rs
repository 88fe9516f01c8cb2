//! What can go wrong with the kernel's side, and what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use aya::maps::MapError;
use aya::programs::ProgramError;
use aya::{EbpfError, maps::MapType};
use np_common::maps::{self, Kind, MapSpec};
use thiserror::Error;

use super::clsact::Refusal;
use np_policy::model::IfIndex;
use np_policy::plan::Op;

/// Loading, adopting, reading and cleaning up.
#[derive(Debug, Error)]
pub enum DataplaneError {
    #[error(
        "this np-agent was built without its programs: run `cargo xtask build-ebpf`, then build it again"
    )]
    NoPrograms,
    #[error("missing capabilities: {}; grant them or run as root", .0.join(", "))]
    Capabilities(Vec<&'static str>),
    #[error(
        "pin directory {path} is not on a bpffs: run `mount -t bpf bpf /sys/fs/bpf`, or name a directory on one with --pin-dir"
    )]
    NotBpffs { path: PathBuf },
    #[error("nothing is pinned at {path}: no np-agent has run with this --pin-dir")]
    NothingPinned { path: PathBuf },
    #[error(
        "another np-agent (process {pid}) runs in this network namespace; two would write over each other's tags: stop one of them"
    )]
    Running { pid: i32 },
    #[error(
        "device {device} has {program} of another np-agent, {place}; two would write over each other's tags: run `np-agent cleanup` with its --pin-dir, or start this one with that --pin-dir to take over from it"
    )]
    Rival { device: String, program: String, place: String },
    #[error("cannot {action} {path}")]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "pinned map {path} is {found}, wanted is {wanted}: another build of np-agent made it; run `np-agent cleanup` with that --pin-dir, which lifts all policy until the agent has started again"
    )]
    MapMismatch { path: PathBuf, found: Shape, wanted: Shape },
    #[error("the object lacks map {0}: its build is not of this np-agent")]
    MapMissing(&'static str),
    #[error("cannot {action} map {map}")]
    Map { action: &'static str, map: &'static str, source: MapError },
    #[error("cannot map the memory of map {map}")]
    Memory { map: &'static str, source: io::Error },
    #[error(
        "map {map} has an entry that no np-agent writes: {entry}; run `np-agent cleanup`, which lifts all policy until the agent has started again"
    )]
    ForeignEntry { map: &'static str, entry: String },
    #[error("cannot load the object")]
    Object(#[source] EbpfError),
    #[cfg(feature = "debug-log")]
    #[error("the programs were built without debug-log: run `cargo xtask build-ebpf --debug-log`")]
    Log(#[source] aya_log::Error),
    #[error("the object lacks program {0}: its build is not of this np-agent")]
    ProgramMissing(&'static str),
    #[error("the kernel refuses program {program}")]
    Program { program: &'static str, source: ProgramError },
    #[error(
        "the record of {bytes} bytes is larger than the {room} that map RECORDS has for it; the one before stays"
    )]
    RecordTooLarge { bytes: usize, room: usize },
}

impl DataplaneError {
    pub(super) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }

    pub(super) fn map(action: &'static str, spec: &MapSpec) -> impl FnOnce(MapError) -> Self {
        let map = spec.name;
        move |source| Self::Map { action, map, source }
    }
}

/// What a map is, as the kernel sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The kernel's number of the type.
    pub kind: u32,
    pub key: u32,
    pub value: u32,
    pub max_entries: u32,
    pub flags: u32,
}

impl From<&MapSpec> for Shape {
    fn from(spec: &MapSpec) -> Self {
        let kind = match spec.kind {
            Kind::Array => MapType::Array,
            Kind::PerCpuArray => MapType::PerCpuArray,
            Kind::Hash => MapType::Hash,
            Kind::LruHash => MapType::LruHash,
            Kind::LpmTrie => MapType::LpmTrie,
        };
        Self {
            kind: kind as u32,
            key: spec.key,
            value: spec.value,
            max_entries: spec.max_entries,
            flags: spec.flags,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let &Self { kind, key, value, max_entries, flags } = self;
        write!(
            f,
            "(type {kind}, key {key} B, value {value} B, {max_entries} entries, flags {flags:#x})"
        )
    }
}

/// A write to a map failed: what the map held stays in force.
#[derive(Debug, Error)]
#[error("cannot write {op}: {source}; {}", self.remedy())]
pub struct ApplyError {
    pub op: Op,
    pub source: io::Error,
}

impl ApplyError {
    pub fn map(&self) -> &'static str {
        self.op.map()
    }

    /// Whether the map has no room left. A hash says E2BIG, a trie ENOSPC.
    pub fn is_full(&self) -> bool {
        matches!(self.source.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC))
    }

    pub fn remedy(&self) -> String {
        let map = self.map();
        if self.is_full() {
            let max = maps::ALL.iter().find(|spec| spec.name == map).map_or(0, |s| s.max_entries);
            let cause = match map {
                "PEERS" => "fewer pods that policies here tell apart",
                "CIDRS" => "fewer or wider ipBlocks in the policies of this node's pods",
                "RULES" => "fewer distinct port lists or peers in the policies of this node's pods",
                _ => "fewer pods on this node",
            };
            return format!("the map is full at {max} entries and takes more only with {cause}");
        }
        match self.source.raw_os_error() {
            Some(libc::ENOMEM) => {
                "the kernel has no memory for it: raise the memory limit of np-agent's container"
                    .to_owned()
            }
            Some(libc::EPERM) => "np-agent needs CAP_BPF".to_owned(),
            _ => "what the map held stays in force, and the write is tried again".to_owned(),
        }
    }
}

/// Attaching to a device failed.
#[derive(Debug, Error)]
pub enum AttachError {
    #[error("device {} is gone", .0.0)]
    Gone(IfIndex),
    #[error(
        "an {kind} qdisc is where device {} needs clsact, and has room for one side only: the CNI plugin `bandwidth` makes one for a pod with kubernetes.io/ingress-bandwidth or -egress-bandwidth; take the annotation off and make the pod anew, or use Linux 6.6 or newer, where np-agent needs no qdisc", ifindex.0
    )]
    Qdisc { ifindex: IfIndex, kind: String },
    #[error("{side}: the program is gone again as soon as it is attached to device {}: something else takes it off; look for it with `bpftool net`", ifindex.0)]
    Lost { ifindex: IfIndex, side: &'static str },
    #[error("cannot set our filter at the clsact qdisc of device {}", ifindex.0)]
    Filter { ifindex: IfIndex, source: io::Error },
    #[error(
        "the link pinned at {path} is attached in another network namespace: give each namespace's np-agent its own --pin-dir"
    )]
    Elsewhere { path: PathBuf },
    #[error("cannot {action} the link pinned at {path}")]
    Link { action: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot load our programs once more, to go in front of others")]
    Load { source: Box<DataplaneError> },
    #[error("cannot list the programs at device {}", ifindex.0)]
    Query { ifindex: IfIndex, source: io::Error },
}

impl AttachError {
    pub(super) fn link(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Link { action, path, source }
    }

    pub(super) fn load(source: DataplaneError) -> Self {
        Self::Load { source: Box::new(source) }
    }

    pub(super) fn filter(ifindex: IfIndex) -> impl FnOnce(Refusal) -> Self {
        move |refusal| match refusal {
            Refusal::Qdisc(kind) => Self::Qdisc { ifindex, kind },
            Refusal::Failed(source) if source.raw_os_error() == Some(libc::ENODEV) => {
                Self::Gone(ifindex)
            }
            Refusal::Failed(source) => Self::Filter { ifindex, source },
        }
    }

    pub(super) fn query(ifindex: IfIndex) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.raw_os_error() {
            Some(libc::ENODEV) => Self::Gone(ifindex),
            _ => Self::Query { ifindex, source },
        }
    }
}
