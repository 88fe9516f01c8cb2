//! What programs built with the feature debug-log say, for a lab node only: one line a packet.

use std::thread;
use std::time::Duration;

use aya::Ebpf;
use aya_log::EbpfLogger;

use super::error::DataplaneError;

const PAUSE: Duration = Duration::from_millis(50);

/// Passes the programs' lines on to the agent's log, from a thread of its own.
pub(super) fn follow(mut ebpf: Ebpf) -> Result<Ebpf, DataplaneError> {
    let mut logger = EbpfLogger::init(&mut ebpf).map_err(DataplaneError::Log)?;
    let work = move || loop {
        logger.flush();
        thread::sleep(PAUSE);
    };
    let thread = thread::Builder::new().name("debug-log".to_owned()).spawn(work);
    thread.map(|_| ebpf).map_err(DataplaneError::file("start thread", "debug-log".as_ref()))
}
