//! Pinned links and maps with real packets: enforcement outlives the agent, an agent adopts what
//! it finds, and cleanup leaves nothing.

mod links;
mod neighbours;
mod pinned;
mod qdisc;
mod rig;
mod upgrade;

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use aya::maps::MapInfo;
use np_agent::dataplane::{
    self, AttachError, CleanupReport, DataplaneError, Mechanism, NamespaceLock, Opened, Options,
    Pinned, Side, TcSide,
};
use np_common::addr::Addr;
use np_common::config::Config;
use np_common::direction::Hook;
use np_common::endpoint::{EndpointId, Iface, PolicyWord, Role};
use np_common::maps;
use np_common::packet::{ETH_P_IPV4, ETH_P_IPV6, UDP};
use np_common::rules::{ClassId, RuleSetId};
use np_common::verdict::Reason;
use np_policy::model::IfIndex;
use np_policy::plan::{Op, PortPrefix, RulePrefix, Tables};
use np_tests::bpf::{self, ObjectId, Place, TcSide as TestSide};
use np_tests::sandbox::{Netns, command, ifindex, ip, join, sandbox};
use np_tests::wire;

use crate::rig::*;

/// The port that pod b accepts, and one that it does not.
const OPEN: u16 = 5000;
const CLOSED: u16 = 6000;
