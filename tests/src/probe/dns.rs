//! Enough of DNS for a real lookup: one question, an A record in the answer, and a TXT record beside
//! it that says which server answered and whom it saw.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::{Reply, connect, mapped, told};

/// The name every probe asks for.
pub(super) const QUESTION: &str = "svc-b.namespace-b.svc.cluster.local";

const TYPE_A: u16 = 1;
const TYPE_TXT: u16 = 16;
const CLASS_IN: u16 = 1;

pub(super) fn lookup(server: SocketAddr, tcp: bool, patience: Duration) -> io::Result<Reply> {
    let query = query(QUESTION);
    let answer = if tcp {
        let mut stream = connect(server, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(&framed(&query))?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer)?;
        answer
    } else {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
        socket.connect(mapped(server))?;
        socket.set_read_timeout(Some(patience))?;
        socket.send(&query)?;
        let mut answer = vec![0; 512];
        let length = socket.recv(&mut answer)?;
        answer.truncate(length);
        answer
    };
    // The TXT record is the last; its data is one string with a length before it.
    if answer.len() <= query.len() || answer[..2] != query[..2] {
        return Err(ErrorKind::InvalidData.into());
    }
    let text = answer
        .windows(4)
        .rposition(|w| *w == [0, TYPE_TXT as u8, 0, CLASS_IN as u8])
        .and_then(|at| answer.get(at + 11..))
        .ok_or(ErrorKind::InvalidData)?;
    Ok(told(&String::from_utf8_lossy(text)))
}

/// Puts the length before a message, as DNS over TCP has it.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let mut framed = (message.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    framed
}

/// Answers a query; `None` for what is not one question.
pub(super) fn answer(
    query: &[u8],
    server: &str,
    peer: IpAddr,
    zone: &[(String, Ipv4Addr)],
) -> Option<Vec<u8>> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).into_owned());
        at += length;
    }
    let question = query.get(12..at + 4)?;
    let found = zone.iter().find(|(name, _)| *name == labels.join("."));
    let mut out = query.get(..2)?.to_vec();
    // A response, authoritative; name error when the zone has no such name.
    out.extend([
        0x84,
        if found.is_some() { 0 } else { 3 },
        0,
        1,
        0,
        u8::from(found.is_some()),
        0,
        0,
        0,
        1,
    ]);
    out.extend_from_slice(question);
    if let Some((_, address)) = found {
        out.extend(record(TYPE_A, &address.octets()));
    }
    let text = format!("{server} {peer} 53");
    let mut data = vec![text.len() as u8];
    data.extend(text.bytes());
    out.extend(record(TYPE_TXT, &data));
    Some(out)
}

/// A record about the name of the question.
fn record(kind: u16, data: &[u8]) -> Vec<u8> {
    let mut out = vec![0xc0, 12];
    out.extend(kind.to_be_bytes());
    out.extend(CLASS_IN.to_be_bytes());
    out.extend(5_u32.to_be_bytes());
    out.extend((data.len() as u16).to_be_bytes());
    out.extend_from_slice(data);
    out
}

fn query(name: &str) -> Vec<u8> {
    let mut out = vec![0x4e, 0x50, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        out.push(label.len() as u8);
        out.extend(label.bytes());
    }
    out.push(0);
    out.extend(TYPE_A.to_be_bytes());
    out.extend(CLASS_IN.to_be_bytes());
    out
}
