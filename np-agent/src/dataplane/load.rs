//! From the embedded object to loaded programs, and maps that are pinned or not.

use std::os::fd::{AsFd, OwnedFd};

use aya::maps::Map;
use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfLoader};
use np_common::direction::Hook;
use np_common::maps;

use super::error::DataplaneError;
use super::pins::Pins;
use super::sys;

/// The object that `cargo xtask build-ebpf` makes; empty when the agent was built without it.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/np-ebpf.o"));

/// A loaded program. It stays loaded while this or a link of it exists.
#[derive(Debug)]
pub(super) struct Program {
    pub fd: OwnedFd,
    pub id: u32,
}

/// The four programs of a node.
#[derive(Debug)]
pub(super) struct Programs {
    from_pod: Program,
    to_pod: Program,
    from_uplink: Program,
    to_uplink: Program,
}

/// The object with its maps.
#[derive(Debug)]
pub(super) struct Object(Ebpf);

impl Object {
    /// Reads the object with the pinned maps, and pins those that are to be and are not.
    pub(super) fn open(pins: &Pins) -> Result<Self, DataplaneError> {
        let hz = sys::ticks_per_second()
            .map_err(DataplaneError::file("read the tick of", "/proc/self".as_ref()))?;
        let mut loader = EbpfLoader::new();
        loader.override_global("HZ", &hz, true);
        for spec in &maps::ALL {
            loader.map_pin_path(spec.name, pins.map(spec));
        }
        let ebpf = loader.load(OBJECT).map_err(DataplaneError::Object)?;
        #[cfg(feature = "debug-log")]
        let ebpf = super::log::follow(ebpf)?;
        Ok(Self(ebpf))
    }

    /// Loads the programs. Each call loads them once more, over the same maps.
    pub(super) fn programs(&mut self) -> Result<Programs, DataplaneError> {
        Ok(Programs {
            from_pod: program(&mut self.0, Hook::FromPod)?,
            to_pod: program(&mut self.0, Hook::ToPod)?,
            from_uplink: program(&mut self.0, Hook::FromUplink)?,
            to_uplink: program(&mut self.0, Hook::ToUplink)?,
        })
    }

    /// A map that is not pinned.
    pub(super) fn map(&self, name: &'static str) -> Result<&Map, DataplaneError> {
        self.0.map(name).ok_or(DataplaneError::MapMissing(name))
    }
}

impl Programs {
    pub(super) fn of(&self, hook: Hook) -> &Program {
        match hook {
            Hook::FromPod => &self.from_pod,
            Hook::ToPod => &self.to_pod,
            Hook::FromUplink => &self.from_uplink,
            Hook::ToUplink => &self.to_uplink,
        }
    }
}

pub(super) fn program(ebpf: &mut Ebpf, hook: Hook) -> Result<Program, DataplaneError> {
    let name = hook.name();
    let refused = |source| DataplaneError::Program { program: name, source };
    let program = ebpf.program_mut(name).ok_or(DataplaneError::ProgramMissing(name))?;
    let program: &mut SchedClassifier = program.try_into().map_err(refused)?;
    program.load().map_err(refused)?;
    let id = program.info().map_err(refused)?.id();
    let fd = program.fd().map_err(refused)?.as_fd().try_clone_to_owned();
    let fd = fd.map_err(DataplaneError::file("keep program", name.as_ref()))?;
    // It stays loaded by what is returned, and can be loaded once more.
    program.unload().map_err(refused)?;
    Ok(Program { fd, id })
}
