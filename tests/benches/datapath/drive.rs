//! Small programs that put one packet after another to a program, each of another flow.

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::Result;
use np_common::flow::FlowKey;
use np_common::tag::Tag;
use np_tests::bpf::{self, insn};

const RANDOM: i32 = 7;
const STORE_BYTES: i32 = 9;
const LOOK_UP: i32 = 1;
const TAIL_CALL: i32 = 12;

const MOVE: u8 = 0xbf;
const SET: u8 = 0xb7;
const ADD: u8 = 0x07;
const CALL: u8 = 0x85;
const STORE: u8 = 0x63;

/// A number in the packet that is drawn again each time: one of `count` from `base` on.
#[derive(Clone, Copy, Debug)]
pub struct Vary {
    pub offset: u32,
    pub base: u32,
    pub count: u32,
    /// In bytes.
    pub len: u8,
}

impl Vary {
    fn instructions(self) -> Vec<u64> {
        let Vary { offset, base, count, len } = self;
        let store = [
            insn(STORE, 10, 0, -8, 0),
            insn(MOVE, 1, 6, 0, 0),
            insn(SET, 2, 0, 0, offset as i32),
            insn(MOVE, 3, 10, 0, 0),
            insn(ADD, 3, 0, 0, -8),
            insn(SET, 4, 0, 0, len.into()),
            insn(SET, 5, 0, 0, 0),
            insn(CALL, 0, 0, 0, STORE_BYTES),
        ];
        [&drawn(base, count, len)[..], &store].concat()
    }
}

/// `r0` = such a number in network order.
fn drawn(base: u32, count: u32, len: u8) -> [u64; 4] {
    [
        insn(CALL, 0, 0, 0, RANDOM),
        insn(0x97, 0, 0, 0, count as i32),       // r0 %= count
        insn(0x04, 0, 0, 0, base as i32),        // w0 += base
        insn(0xdc, 0, 0, 0, i32::from(len) * 8), // to big endian
    ]
}

/// Sets the tag, draws what varies and calls the first program of an array.
pub fn driver(programs: &OwnedFd, tag: Tag, vary: &[Vary]) -> Result<OwnedFd> {
    const TC_INDEX: i16 = 44;
    let mut program = vec![insn(MOVE, 6, 1, 0, 0)];
    program.extend(vary.iter().flat_map(|vary| vary.instructions()));
    program.extend([
        insn(SET, 2, 0, 0, tag.bits().into()),
        insn(STORE, 6, 2, TC_INDEX, 0),
        insn(MOVE, 1, 6, 0, 0),
        insn(0x18, 2, 1, 0, programs.as_raw_fd()), // the map, in two instructions
        0,
        insn(SET, 3, 0, 0, 0),
        insn(CALL, 0, 0, 0, TAIL_CALL),
    ]);
    program.extend(bpf::returns(0));
    bpf::load("driver", &program)
}

/// Looks a flow up by a key whose source port is drawn, or only makes the key.
pub fn look_up(flows: Option<&OwnedFd>, key: &FlowKey, base: u32, count: u32) -> Result<OwnedFd> {
    const KEY: i16 = -(size_of::<FlowKey>() as i16);
    let FlowKey { src, dst, dport, protocol, .. } = *key;
    // In words of eight bytes, as the look-up compares them: what is stored in parts cannot be loaded
    // whole until it has left the store buffer.
    let [a, b, c, d] = src.words();
    let [e, f, g, h] = dst.words();
    let last = u32::from(dport) << 16;
    let words = [[a, b], [c, d], [e, f], [g, h], [last, protocol]];
    let mut program = drawn(base, count, 2).to_vec();
    program.push(insn(MOVE, 6, 0, 0, 0));
    for (number, [low, high]) in (0..).zip(words) {
        program.extend([insn(0x18, 1, 0, 0, low as i32), insn(0, 0, 0, 0, high as i32)]);
        if number == 4 {
            program.push(insn(0x4f, 1, 6, 0, 0)); // r1 |= r6: the source port
        }
        program.push(insn(0x7b, 10, 1, KEY + 8 * number, 0));
    }
    if let Some(flows) = flows {
        program.extend([
            insn(0x18, 1, 1, 0, flows.as_raw_fd()), // the map, in two instructions
            0,
            insn(MOVE, 2, 10, 0, 0),
            insn(ADD, 2, 0, 0, KEY.into()),
            insn(CALL, 0, 0, 0, LOOK_UP),
        ]);
    }
    program.extend(bpf::returns(-1));
    bpf::load("look_up", &program)
}
