//! What this kernel allows, found by trying. Nothing of it stays but, before TCX, an empty qdisc.

use std::os::fd::OwnedFd;
use std::path::Path;

use aya::EbpfLoader;
use np_common::direction::Hook;

use super::attach::{self, Chain, Mechanism};
use super::capabilities;
use super::clsact;
use super::error::{AttachError, DataplaneError};
use super::load::{OBJECT, program};
use super::pins::{Pins, require_bpffs};
use super::sys::{self, TcSide};
use np_policy::model::IfIndex;

/// The capabilities are there; their names.
pub fn capabilities() -> Result<String, DataplaneError> {
    capabilities::require().map(|()| capabilities::names())
}

/// The pin directory is on a bpffs; it need not exist yet.
pub fn pin_directory(pin_dir: &Path) -> Result<(), DataplaneError> {
    require_bpffs(pin_dir)
}

/// The verifier takes every program, and a device takes one: the loopback device, whose packets
/// are all the node's own and pass. Says by which way.
pub fn programs(loopback: IfIndex) -> Result<Mechanism, ProbeError> {
    if OBJECT.is_empty() {
        return Err(DataplaneError::NoPrograms.into());
    }
    let mechanism = Mechanism::of_kernel()?;
    let mut ebpf = EbpfLoader::new().load(OBJECT).map_err(DataplaneError::Object)?;
    for hook in Hook::ALL {
        let program = program(&mut ebpf, hook)?;
        if hook == Hook::ToUplink {
            try_attach(mechanism, &program.fd, loopback)?;
        }
    }
    Ok(mechanism)
}

fn try_attach(
    mechanism: Mechanism,
    program: &OwnedFd,
    loopback: IfIndex,
) -> Result<(), AttachError> {
    match mechanism {
        // Closing the link detaches.
        Mechanism::Tcx => sys::link_create(program, loopback.0, TcSide::Egress)
            .map(drop)
            .map_err(AttachError::link("create", "loopback".as_ref())),
        Mechanism::Clsact => clsact::attach(program, loopback.0, TcSide::Egress)
            .and_then(|()| Ok(clsact::detach(loopback.0, TcSide::Egress)?))
            .map_err(AttachError::filter(loopback)),
    }
}

/// The programs at both sides of a device, and where ours stand among them.
pub fn chains(pin_dir: &Path, ifindex: IfIndex) -> Result<Vec<Chain>, AttachError> {
    attach::order(&Pins::of(pin_dir), ifindex)
}

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(transparent)]
    Load(#[from] DataplaneError),
    #[error(transparent)]
    Attach(#[from] AttachError),
}
