//! What this kernel allows, found by trying. Nothing of it stays.

use std::path::Path;

use aya::EbpfLoader;
use np_common::direction::Hook;

use super::attach::{self, Chain};
use super::error::{AttachError, DataplaneError};
use super::load::{OBJECT, program, require_capabilities};
use super::pins::{Pins, require_bpffs};
use super::sys;
use crate::model::IfIndex;

/// The capabilities are there.
pub fn capabilities() -> Result<(), DataplaneError> {
    require_capabilities()
}

/// The pin directory is on a bpffs; it need not exist yet.
pub fn pin_directory(pin_dir: &Path) -> Result<(), DataplaneError> {
    require_bpffs(pin_dir)
}

/// The verifier takes every program, and a device takes one: the loopback device, whose packets
/// are all the node's own and pass.
pub fn programs(loopback: IfIndex) -> Result<(), ProbeError> {
    if OBJECT.is_empty() {
        return Err(DataplaneError::NoPrograms.into());
    }
    let mut ebpf = EbpfLoader::new().load(OBJECT).map_err(DataplaneError::Object)?;
    for hook in Hook::ALL {
        let program = program(&mut ebpf, hook)?;
        if hook == Hook::ToUplink {
            sys::link_create(&program.fd, loopback.0, sys::TcSide::Egress)
                .map_err(|error| attach::refused(error, loopback, "loopback".as_ref()))?;
        }
    }
    Ok(())
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
