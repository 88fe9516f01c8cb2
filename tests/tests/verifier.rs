//! The kernel accepts the four programs, within bounds.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use anyhow::Context as _;
use np_agent::dataplane::{self, AttachError, DataplaneError, Options, Side};
use np_common::direction::Hook;
use np_tests::bpf::{self, program_size};
use np_tests::matrix;
use np_tests::sandbox::{ifindex, ip, sandbox};

const FIGURES: &str = "instructions; machine code; instructions the verifier walked; stack";

/// The verifier gives up at a million instructions walked and 512 bytes of stack. Older kernels
/// walk more than new ones for the same program, so there must be room.
#[test]
fn every_program_is_accepted_with_room_to_spare() {
    sandbox(|pin_dir| {
        let opened = dataplane::open(&Options { pin_dir: pin_dir.to_owned(), mechanism: None })?;
        for hook in Hook::ALL {
            let name = hook.name();
            let row = matrix::row("What the kernel makes of it", format!("{name}: {FIGURES}"));
            let size = program_size(&opened.attacher.program(hook))?;
            let instructions = size.translated / 8;
            let (verified, stack) = (size.verified, size.stack);
            assert!(instructions < 8192, "{name}: {instructions} instructions");
            assert!(verified < 400_000, "{name}: {verified} instructions walked");
            assert!(stack <= 448, "{name}: {stack} bytes of stack");
            row.measured(format!("{instructions}; {} B; {verified}; {stack} B", size.jited));
        }
        let row = matrix::row("What the kernel makes of it", "empty maps: MiB of memory");
        let bytes = memory_of_maps(pin_dir)?;
        assert!(bytes < 256 << 20, "{bytes} bytes");
        row.measured(format!("{:.1}", bytes as f64 / f64::from(1 << 20)));
        Ok(())
    });
}

/// What the kernel accounts to the pinned maps. Before Linux 6.4 it counts what they may come to hold.
fn memory_of_maps(pin_dir: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for version in fs::read_dir(pin_dir)? {
        for pin in fs::read_dir(version?.path().join("maps"))? {
            let map = bpf::open_pin(&pin?.path())?;
            let facts = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd()))?;
            let memory = facts.lines().find_map(|line| line.strip_prefix("memlock:"));
            bytes += memory.context("a map's memory")?.trim().parse::<u64>()?;
        }
    }
    Ok(bytes)
}

/// The deployment grants these four and no more; in particular not SYS_ADMIN.
#[test]
fn four_capabilities_suffice_to_load_and_attach() {
    sandbox(|pin_dir| {
        ip("link add veth0 type veth peer name veth1")?;
        let device = ifindex("veth0")?;
        keep_capabilities(&[CAP_BPF, CAP_NET_ADMIN, CAP_NET_BROADCAST, CAP_PERFMON])?;
        let options = Options { pin_dir: pin_dir.to_owned(), mechanism: None };
        for side in [Side::Pod, Side::Uplink] {
            let mut opened = dataplane::open(&options)?;
            opened.attacher.attach(device, side)?;
            assert_eq!(opened.attacher.order(device)?[0].ours, Some(0));
        }
        let gone = np_policy::model::IfIndex(4242);
        let mut opened = dataplane::open(&options)?;
        let error = opened.attacher.attach(gone, Side::Pod).expect_err("no such device");
        assert!(matches!(error, AttachError::Gone(ifindex) if ifindex == gone), "{error}");
        dataplane::cleanup(pin_dir)?;
        Ok(())
    });
}

#[test]
fn each_missing_capability_is_named() {
    let all = [
        (CAP_BPF, "BPF"),
        (CAP_NET_ADMIN, "NET_ADMIN"),
        (CAP_NET_BROADCAST, "NET_BROADCAST"),
        (CAP_PERFMON, "PERFMON"),
    ];
    for (missing, name) in all {
        sandbox(move |pin_dir| {
            let kept: Vec<_> =
                all.into_iter().map(|(cap, _)| cap).filter(|c| *c != missing).collect();
            keep_capabilities(&kept)?;
            let error = dataplane::open(&Options { pin_dir: pin_dir.to_owned(), mechanism: None })
                .expect_err("the capability is missing");
            assert!(matches!(error, DataplaneError::Capabilities(_)), "{error}");
            let expected = format!("missing capabilities: CAP_{name}; grant them or run as root");
            assert_eq!(error.to_string(), expected);
            Ok(())
        });
    }
}

const CAP_PERFMON: u32 = 38;
const CAP_NET_BROADCAST: u32 = 11;
const CAP_NET_ADMIN: u32 = 12;
const CAP_BPF: u32 = 39;

/// Takes every other capability from this thread.
fn keep_capabilities(kept: &[u32]) -> anyhow::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let mask = |word: u32| -> u32 {
        kept.iter().filter(|cap| **cap / 32 == word).map(|cap| 1 << (cap % 32)).sum()
    };
    let header = Header { version: 0x2008_0522, pid: 0 };
    // Effective, permitted, inheritable of the low word, then of the high one.
    let data = [mask(0), mask(0), 0, mask(1), mask(1), 0];
    // SAFETY: header and data are laid out as capset(2) of version 3 wants them.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    anyhow::ensure!(result == 0, "capset: {}", std::io::Error::last_os_error());
    Ok(())
}

/// A program of two instructions is what the others are measured against elsewhere; it must load
/// the same way.
#[test]
fn a_raw_program_loads() {
    let program = bpf::load("empty", &bpf::returns(-1)).expect("loads");
    assert_eq!(program_size(&program).expect("has a size").translated, 16);
}
