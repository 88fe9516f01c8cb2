//! Sockets at ports that a test uses again and again.

use std::io;
use std::net::{ToSocketAddrs, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// How long a process that another test has just forked can hold what this one has closed: until it
/// executes its program.
const FORKED: Duration = Duration::from_secs(5);

/// Binds a UDP socket, as soon as nobody holds the port any more.
pub fn udp(address: impl ToSocketAddrs) -> io::Result<UdpSocket> {
    let deadline = Instant::now() + FORKED;
    loop {
        match UdpSocket::bind(&address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_given_back_is_waited_for() {
        let first = udp("127.0.0.1:0").expect("a free port");
        let address = first.local_addr().expect("it is bound");
        let giving = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            drop(first);
        });
        udp(address).expect("it is free by and by");
        giving.join().expect("it ended");
    }
}
