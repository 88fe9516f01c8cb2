//! The calls of bpf(2) that aya does not offer: links by ifindex, what a link says of itself, and
//! the order of programs at a device.
//!
//! Layouts and numbers are those of `include/uapi/linux/bpf.h` in Linux 6.6, where TCX appeared.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_DETACH: libc::c_int = 34;

const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;
const BPF_LINK_TYPE_TCX: u32 = 11;
/// In front of the named program; with none named, in front of all.
const BPF_F_BEFORE: u32 = 1 << 3;
/// `BPF_MPROG_MAX`: how many programs one side of a device can have.
const PROGRAMS_MAX: usize = 64;

/// The side of a device in TC's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TcSide {
    Ingress,
    Egress,
}

impl TcSide {
    pub const ALL: [TcSide; 2] = [TcSide::Ingress, TcSide::Egress];

    pub const fn name(self) -> &'static str {
        match self {
            TcSide::Ingress => "ingress",
            TcSide::Egress => "egress",
        }
    }

    const fn attach_type(self) -> u32 {
        match self {
            TcSide::Ingress => BPF_TCX_INGRESS,
            TcSide::Egress => BPF_TCX_EGRESS,
        }
    }
}

/// What the kernel says of a TCX link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkInfo {
    pub id: u32,
    pub program: u32,
    /// 0 when the device is gone.
    pub ifindex: u32,
}

/// A program at a device, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attached {
    pub program: u32,
    /// 0 for a program attached without a link.
    pub link: u32,
}

/// Attaches a program in front of all others. Waits for an RCU grace period, under RTNL.
pub(super) fn link_create(program: &impl AsFd, ifindex: u32, side: TcSide) -> io::Result<OwnedFd> {
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
        prog_fd: raw(program),
        target_ifindex: ifindex,
        attach_type: side.attach_type(),
        flags: BPF_F_BEFORE,
        ..Attr::default()
    };
    // SAFETY: `Attr` is the link_create part of union bpf_attr.
    unsafe { bpf_fd(BPF_LINK_CREATE, &mut attr) }
}

/// Puts another program in the place of a link's, without a gap and without waiting.
pub(super) fn link_update(link: &impl AsFd, program: &impl AsFd) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        link_fd: u32,
        new_prog_fd: u32,
        flags: u32,
        old_prog_fd: u32,
    }
    let mut attr = Attr { link_fd: raw(link), new_prog_fd: raw(program), flags: 0, old_prog_fd: 0 };
    // SAFETY: `Attr` is the link_update part of union bpf_attr.
    unsafe { bpf(BPF_LINK_UPDATE, &mut attr) }.map(drop)
}

pub(super) fn link_detach(link: &impl AsFd) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        link_fd: u32,
    }
    let mut attr = Attr { link_fd: raw(link) };
    // SAFETY: `Attr` is the link_detach part of union bpf_attr.
    unsafe { bpf(BPF_LINK_DETACH, &mut attr) }.map(drop)
}

/// What a TCX link says of itself; `InvalidData` for any other object.
pub(super) fn link_info(link: &impl AsFd) -> io::Result<LinkInfo> {
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        prog_id: u32,
        _pad: u32,
        ifindex: u32,
        attach_type: u32,
        // The kernel fills in as much as is asked for; other objects' infos are longer.
        _rest: [u64; 4],
    }
    #[repr(C)]
    struct Attr {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
    let mut info = Info::default();
    let mut attr = Attr {
        bpf_fd: raw(link),
        info_len: size_of::<Info>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: `Attr` is the info part of union bpf_attr, and `info` is as long as it says.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)? };
    if info.kind != BPF_LINK_TYPE_TCX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a TCX link"));
    }
    Ok(LinkInfo { id: info.id, program: info.prog_id, ifindex: info.ifindex })
}

/// What a program's author calls it; none when the kernel does not say (that takes
/// CAP_SYS_ADMIN), or when the program is gone.
pub(super) fn program_name(id: u32) -> Option<String> {
    #[repr(C)]
    struct Attr {
        prog_id: u32,
        next_id: u32,
        open_flags: u32,
    }
    // struct bpf_prog_info up to the name.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        _before: [u64; 8],
        name: [u8; 16],
    }
    #[repr(C)]
    struct InfoAttr {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
    let mut attr = Attr { prog_id: id, next_id: 0, open_flags: 0 };
    // SAFETY: `Attr` is the get_id part of union bpf_attr.
    let program = unsafe { bpf_fd(BPF_PROG_GET_FD_BY_ID, &mut attr) }.ok()?;
    let mut info = Info::default();
    let mut attr = InfoAttr {
        bpf_fd: raw(&program),
        info_len: size_of::<Info>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: `InfoAttr` is the info part of union bpf_attr, and `info` is as long as it says.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }.ok()?;
    let name: Vec<u8> = info.name.into_iter().take_while(|byte| *byte != 0).collect();
    Some(String::from_utf8_lossy(&name).into_owned()).filter(|name| !name.is_empty())
}

/// Whether the kernel has TCX: one without knows no such type of attachment, one with it knows no
/// device 0.
pub(super) fn has_tcx() -> io::Result<bool> {
    match attached(0, TcSide::Ingress) {
        Ok(_) => Ok(true),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENODEV) => Ok(true),
            Some(libc::EINVAL) => Ok(false),
            _ => Err(error),
        },
    }
}

/// The programs at one side of a device of this network namespace, first to run first.
pub(super) fn attached(ifindex: u32, side: TcSide) -> io::Result<Vec<Attached>> {
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        target_ifindex: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        prog_ids: u64,
        count: u32,
        _pad: u32,
        prog_attach_flags: u64,
        link_ids: u64,
        link_attach_flags: u64,
        revision: u64,
    }
    let mut programs = [0u32; PROGRAMS_MAX];
    let mut links = [0u32; PROGRAMS_MAX];
    let mut attr = Attr {
        target_ifindex: ifindex,
        attach_type: side.attach_type(),
        prog_ids: programs.as_mut_ptr() as u64,
        link_ids: links.as_mut_ptr() as u64,
        count: PROGRAMS_MAX as u32,
        ..Attr::default()
    };
    // SAFETY: `Attr` is the query part of union bpf_attr, and both arrays have `count` elements.
    match unsafe { bpf(BPF_PROG_QUERY, &mut attr) } {
        // No program has been attached yet.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(Vec::new()),
        other => other?,
    };
    let all = programs.into_iter().zip(links).take(attr.count as usize);
    Ok(all.map(|(program, link)| Attached { program, link }).collect())
}

#[repr(C)]
struct PathAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

pub(super) fn pin(object: &impl AsFd, path: &Path) -> io::Result<()> {
    let path = c_string(path)?;
    let mut attr = PathAttr { pathname: path.as_ptr() as u64, bpf_fd: raw(object), file_flags: 0 };
    // SAFETY: `PathAttr` is the obj part of union bpf_attr; the path outlives the call.
    unsafe { bpf(BPF_OBJ_PIN, &mut attr) }.map(drop)
}

/// Opens what is pinned at a path; none if nothing is.
pub(super) fn open_pin(path: &Path) -> io::Result<Option<OwnedFd>> {
    let path = c_string(path)?;
    let mut attr = PathAttr { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: `PathAttr` is the obj part of union bpf_attr; the path outlives the call.
    match unsafe { bpf_fd(BPF_OBJ_GET, &mut attr) } {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Whether a path is on a bpffs.
pub(super) fn is_bpffs(path: &Path) -> io::Result<bool> {
    Ok(statfs(path)?.filesystem_type() == BPF_FS_MAGIC)
}

/// Ticks per second of the kernel: the coarse clock moves once a tick.
pub(super) fn ticks_per_second() -> io::Result<u32> {
    let mut tick = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: `tick` has room for what the kernel writes.
    if unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, tick.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it filled in `tick`.
    let nanoseconds = unsafe { tick.assume_init() }.tv_nsec;
    const SECOND: libc::c_long = 1_000_000_000;
    u32::try_from((SECOND + nanoseconds / 2) / nanoseconds.max(1)).map_err(io::Error::other)
}

fn c_string(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn raw(fd: &impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd() as u32
}

/// # Safety
///
/// `T` must be laid out as the part of union bpf_attr that the command reads, and every pointer
/// in it must be good for what the command does with it.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the attribute is as long as stated; the rest is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// # Safety
///
/// As [`bpf`]; the command must be one that returns a new file descriptor.
unsafe fn bpf_fd<T>(command: libc::c_int, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { bpf(command, attr)? };
    // SAFETY: the command returned a descriptor that nobody else has seen.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
