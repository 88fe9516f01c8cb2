//! bpf(2) for tests: tiny programs from raw instructions, test runs of any program, object ids.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use crate::netns::Namespace;

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_PROG_TEST_RUN: libc::c_int = 10;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_MAP_GET_FD_BY_ID: libc::c_int = 14;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_GET_FD_BY_ID: libc::c_int = 30;

const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_MAP_TYPE_PROG_ARRAY: u32 = 3;
const BPF_F_BEFORE: u32 = 1 << 3;

/// "Go on" and "drop", as a program returns them.
pub const TC_ACT_UNSPEC: u32 = u32::MAX;
pub const TC_ACT_SHOT: u32 = 2;

/// One instruction: opcode, destination and source register, offset, immediate.
pub const fn insn(code: u8, dst: u8, src: u8, offset: i16, imm: i32) -> u64 {
    (code as u64)
        | ((src << 4 | dst) as u64) << 8
        | (offset as u16 as u64) << 16
        | (imm as u32 as u64) << 32
}

/// `r0 = verdict; exit`.
pub const fn returns(verdict: i32) -> [u64; 2] {
    [insn(0xb7, 0, 0, 0, verdict), insn(0x95, 0, 0, 0, 0)]
}

/// Loads a TC program.
pub fn load(name: &str, instructions: &[u64]) -> anyhow::Result<OwnedFd> {
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buf: u64,
        kern_version: u32,
        prog_flags: u32,
        prog_name: [u8; 16],
    }
    let mut log = vec![0u8; 1 << 16];
    let mut prog_name = [0; 16];
    prog_name.iter_mut().zip(name.bytes().take(15)).for_each(|(to, from)| *to = from);
    let mut attr = Attr {
        prog_type: BPF_PROG_TYPE_SCHED_CLS,
        insn_cnt: instructions.len() as u32,
        insns: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 1,
        log_size: log.len() as u32,
        log_buf: log.as_mut_ptr() as u64,
        prog_name,
        ..Attr::default()
    };
    // SAFETY: the attribute is that of BPF_PROG_LOAD, and its buffers live through the call.
    let loaded = unsafe { new_fd(BPF_PROG_LOAD, &mut attr) };
    loaded.with_context(|| format!("loading {name}: {}", String::from_utf8_lossy(&log)))
}

/// An array of programs to tail-call.
pub fn program_array(programs: &[&dyn AsFd]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Create {
        map_type: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        map_flags: u32,
    }
    #[repr(C)]
    struct Update {
        map_fd: u32,
        _pad: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let mut create = Create {
        map_type: BPF_MAP_TYPE_PROG_ARRAY,
        key_size: 4,
        value_size: 4,
        max_entries: programs.len() as u32,
        map_flags: 0,
    };
    // SAFETY: the attribute is that of BPF_MAP_CREATE.
    let map = unsafe { new_fd(BPF_MAP_CREATE, &mut create)? };
    for (index, program) in (0u32..).zip(programs) {
        let value = program.as_fd().as_raw_fd() as u32;
        let mut update = Update {
            map_fd: map.as_raw_fd() as u32,
            _pad: 0,
            key: (&raw const index) as u64,
            value: (&raw const value) as u64,
            flags: 0,
        };
        // SAFETY: the attribute is that of BPF_MAP_UPDATE_ELEM; key and value are 4 bytes.
        unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut update)? };
    }
    Ok(map)
}

/// `struct __sk_buff`, as far as a test run takes it in and gives it back.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SkBuff {
    _before: [u32; 9],
    pub ingress_ifindex: u32,
    pub ifindex: u32,
    _tc_index: u32,
    pub cb: [u32; 5],
    _after: [u32; 31],
}

const _: () = assert!(size_of::<SkBuff>() == 192);
const _: () = assert!(std::mem::offset_of!(SkBuff, cb) == 48);

impl SkBuff {
    pub fn new(ifindex: u32, ingress_ifindex: u32, cb: [u32; 5]) -> Self {
        Self { ifindex, ingress_ifindex, cb, ..Self::default() }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct TestRun {
    pub verdict: u32,
    pub skb: SkBuff,
    /// Mean of all repetitions.
    pub duration: Duration,
}

/// Runs a program on a frame; repetitions see the same skb.
pub fn test_run(
    program: &impl AsFd,
    frame: &[u8],
    skb: &SkBuff,
    repeat: u32,
) -> io::Result<TestRun> {
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        prog_fd: u32,
        retval: u32,
        data_size_in: u32,
        data_size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
        ctx_size_in: u32,
        ctx_size_out: u32,
        ctx_in: u64,
        ctx_out: u64,
        flags: u32,
        cpu: u32,
        batch_size: u32,
        _pad: u32,
    }
    let mut out = SkBuff::default();
    let mut attr = Attr {
        prog_fd: program.as_fd().as_raw_fd() as u32,
        data_size_in: frame.len() as u32,
        data_in: frame.as_ptr() as u64,
        repeat,
        ctx_size_in: size_of::<SkBuff>() as u32,
        ctx_size_out: size_of::<SkBuff>() as u32,
        ctx_in: std::ptr::from_ref(skb) as u64,
        ctx_out: (&raw mut out) as u64,
        ..Attr::default()
    };
    // SAFETY: the attribute is that of BPF_PROG_TEST_RUN, and every buffer is as long as it says.
    unsafe { bpf(BPF_PROG_TEST_RUN, &mut attr)? };
    let duration = Duration::from_nanos(attr.duration.into());
    Ok(TestRun { verdict: attr.retval, skb: out, duration })
}

/// What the kernel made of a program.
#[derive(Clone, Copy, Debug)]
pub struct ProgramSize {
    /// Bytes of instructions after the verifier.
    pub translated: u32,
    /// Bytes of machine code.
    pub jited: u32,
    /// Instructions that the verifier walked through, every path counted.
    pub verified: u32,
    /// The deepest stack offset that an instruction names, in bytes.
    pub stack: u32,
}

pub fn program_size(program: &impl AsFd) -> io::Result<ProgramSize> {
    let size = program_info(program, &mut [])?;
    let mut instructions = vec![0u64; size.xlated_prog_len as usize / 8];
    let info = program_info(program, &mut instructions)?;
    Ok(ProgramSize {
        translated: size.xlated_prog_len,
        jited: info.jited_prog_len,
        verified: info.verified_insns,
        stack: instructions.iter().map(|insn| stack_offset(*insn)).max().unwrap_or(0),
    })
}

pub fn program_id(program: &impl AsFd) -> io::Result<u32> {
    Ok(program_info(program, &mut [])?.id)
}

/// How deep an instruction reaches into the stack, which register 10 points to the top of.
fn stack_offset(insn: u64) -> u32 {
    let [code, registers, ..] = insn.to_le_bytes();
    let offset = i32::from((insn >> 16) as u16 as i16);
    let (dst, src) = (registers & 0xf, registers >> 4);
    let reach = match code & 7 {
        // Loads name their base as source, stores as destination.
        1 if src == 10 => offset,
        2 | 3 if dst == 10 => offset,
        // An address is made by adding a negative constant to a copy of register 10.
        7 if code == 0x07 => (insn >> 32) as i32,
        _ => 0,
    };
    if (-512..0).contains(&reach) { reach.unsigned_abs() } else { 0 }
}

/// `struct bpf_prog_info` up to the last field needed.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_prog_len: u32,
    xlated_prog_len: u32,
    jited_prog_insns: u64,
    xlated_prog_insns: u64,
    _times_and_maps: [u64; 3],
    _name_and_netns: [u64; 5],
    _ksyms_to_lines: [u64; 10],
    _runs: [u64; 4],
    verified_insns: u32,
    _btf: u32,
}

#[repr(C)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

fn program_info(program: &impl AsFd, instructions: &mut [u64]) -> io::Result<ProgramInfo> {
    let mut info = ProgramInfo {
        xlated_prog_len: size_of_val(instructions) as u32,
        xlated_prog_insns: instructions.as_mut_ptr() as u64,
        ..ProgramInfo::default()
    };
    let mut attr = InfoAttr {
        bpf_fd: program.as_fd().as_raw_fd() as u32,
        info_len: size_of::<ProgramInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the attribute is that of BPF_OBJ_GET_INFO_BY_FD, and both buffers are as long as
    // they say.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)? };
    Ok(info)
}

/// The side of a device, in TC's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcSide {
    Ingress,
    Egress,
}

/// Where a third party's program goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    First,
    Last,
}

/// Attaches a program by TCX; it stays while the link does.
pub fn attach(
    program: &impl AsFd,
    ifindex: u32,
    side: TcSide,
    place: Place,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        prog_fd: u32,
        target_ifindex: u32,
        attach_type: u32,
        flags: u32,
        relative_fd: u32,
        _pad: u32,
        expected_revision: u64,
    }
    let mut attr = Attr {
        prog_fd: program.as_fd().as_raw_fd() as u32,
        target_ifindex: ifindex,
        attach_type: if side == TcSide::Ingress { 46 } else { 47 },
        flags: if place == Place::First { BPF_F_BEFORE } else { 0 },
        ..Attr::default()
    };
    // SAFETY: the attribute is that of BPF_LINK_CREATE.
    unsafe { new_fd(BPF_LINK_CREATE, &mut attr) }
}

/// Adds a pinned program to the filters of a device's clsact qdisc, which must be there.
pub fn filter(
    inside: &Namespace,
    device: &str,
    side: TcSide,
    preference: u8,
    pin: &Path,
) -> anyhow::Result<()> {
    let (side, pin) = (if side == TcSide::Ingress { "ingress" } else { "egress" }, pin.display());
    inside
        .call(&format!("tc filter add dev {device} {side} pref {preference} bpf da pinned {pin}"))
        .map(drop)
}

#[repr(C)]
struct PathAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

fn c_string(path: &Path) -> anyhow::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Pins an object in a bpffs.
pub fn pin(object: &impl AsFd, path: &Path) -> anyhow::Result<()> {
    let c_path = c_string(path)?;
    let bpf_fd = object.as_fd().as_raw_fd() as u32;
    let mut attr = PathAttr { pathname: c_path.as_ptr() as u64, bpf_fd, file_flags: 0 };
    // SAFETY: the attribute is that of BPF_OBJ_PIN; the path outlives the call.
    unsafe { bpf(BPF_OBJ_PIN, &mut attr) }.with_context(|| format!("pinning {path:?}"))?;
    Ok(())
}

/// Opens what is pinned at a path.
pub fn open_pin(path: &Path) -> anyhow::Result<OwnedFd> {
    let c_path = c_string(path)?;
    let mut attr = PathAttr { pathname: c_path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: the attribute is that of BPF_OBJ_GET; the path outlives the call.
    let opened = unsafe { new_fd(BPF_OBJ_GET, &mut attr) };
    opened.with_context(|| format!("opening the pin {path:?}"))
}

/// The ids of a link and of the program it runs.
pub fn link_ids(link: &impl AsFd) -> io::Result<(u32, u32)> {
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        prog_id: u32,
        _rest: [u32; 13],
    }
    let mut info = Info::default();
    let mut attr = InfoAttr {
        bpf_fd: link.as_fd().as_raw_fd() as u32,
        info_len: size_of::<Info>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the attribute is that of BPF_OBJ_GET_INFO_BY_FD, and `info` is as long as it says.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)? };
    Ok((info.id, info.prog_id))
}

/// A kernel object by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectId {
    Program(u32),
    Map(u32),
    Link(u32),
}

impl ObjectId {
    /// Whether the kernel still has the object.
    pub fn exists(self) -> io::Result<bool> {
        #[repr(C)]
        struct Attr {
            id: u32,
            next_id: u32,
            open_flags: u32,
        }
        let (command, id) = match self {
            ObjectId::Program(id) => (BPF_PROG_GET_FD_BY_ID, id),
            ObjectId::Map(id) => (BPF_MAP_GET_FD_BY_ID, id),
            ObjectId::Link(id) => (BPF_LINK_GET_FD_BY_ID, id),
        };
        let mut attr = Attr { id, next_id: 0, open_flags: 0 };
        // SAFETY: the attribute is that of the GET_FD_BY_ID commands.
        match unsafe { new_fd(command, &mut attr) } {
            Ok(_fd) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            // A link that is going down.
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Ticks per second of the kernel: the coarse clock moves once a tick.
pub fn ticks_per_second() -> io::Result<u32> {
    let mut tick = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `tick` has room for what the kernel writes.
    if unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut tick) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(((1_000_000_000 + tick.tv_nsec / 2) / tick.tv_nsec) as u32)
}

/// # Safety
///
/// `T` must be the part of union bpf_attr that the command reads, with good pointers in it.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// # Safety
///
/// As [`bpf`]; the command must be one that returns a new file descriptor.
unsafe fn new_fd<T>(command: libc::c_int, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { bpf(command, attr)? };
    // SAFETY: the command returned a descriptor that nobody else has seen.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
