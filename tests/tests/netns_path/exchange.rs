//! What clients and servers say to each other, and whether all of it comes back as it was.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use np_tests::netns::Namespace;

pub const PATIENCE: Duration = Duration::from_millis(1500);
pub const SILENT: Duration = Duration::from_millis(400);
/// For what takes many packets, some of which are lost and sent again, ever later.
const LONG: Duration = Duration::from_secs(60);

/// Bytes that do not repeat where packets end.
pub fn data(size: usize) -> Vec<u8> {
    (0..size as u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Asks with a datagram, which the server returns: whether it came back whole.
pub fn ask(from: &Namespace, to: SocketAddr, size: usize, patience: Duration) -> Result<bool> {
    from.run(|| {
        let socket = UdpSocket::bind(any(to))?;
        socket.set_read_timeout(Some(patience))?;
        let question = data(size);
        socket.send_to(&question, to)?;
        let mut answer = [0; 1 << 16];
        match socket.recv(&mut answer) {
            Ok(length) => Ok(answer[..length].ends_with(&question)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error).context("receive"),
        }
    })
}

/// Any port of the family's.
pub fn any(to: SocketAddr) -> &'static str {
    if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }
}

/// Sends much and reads it all back, on one connection.
pub fn transfer(from: &Namespace, to: SocketAddr, size: usize) -> Result<()> {
    from.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, LONG).context("connect")?;
        stream.set_read_timeout(Some(LONG))?;
        stream.set_write_timeout(Some(LONG))?;
        let mut writer = stream.try_clone()?;
        let sent = thread::spawn(move || writer.write_all(&data(size)));
        let mut heard = BufReader::new(&mut stream);
        heard.read_line(&mut String::new()).context("receive the greeting")?;
        let mut back = vec![0; size];
        heard.read_exact(&mut back).context("receive")?;
        sent.join().expect("the writer does not panic").context("send")?;
        ensure!(back == data(size), "the {size} bytes came back changed");
        Ok(())
    })
}
