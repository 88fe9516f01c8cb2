//! A long-lived connection: numbered lines out, the same lines back, until the value is dropped.
//!
//! It is lock-step: a line is sent when the one before has come back. So what an established
//! connection feels is measured, not guessed: whether it continues, since when it stalls, and the
//! longest wait for a line (a lost TCP packet costs 200 ms or more, a lost datagram is counted).

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{PATIENCE, connect, mapped};
use crate::netns::Namespace;

/// How long a datagram's echo is waited for before it counts as lost.
const LOST_AFTER: Duration = Duration::from_millis(100);
/// The pause between lines.
const PAUSE: Duration = Duration::from_millis(2);

/// What has happened on a conversation so far.
#[derive(Clone, Debug)]
pub struct Progress {
    pub answered: u64,
    /// Datagrams that were not answered in time; TCP loses none.
    pub lost: u64,
    /// The longest wait for one answer so far, the present wait not included.
    pub longest_wait: Duration,
    /// When the last answer came.
    pub last_answer: Instant,
    /// Why the connection ended, if it did: a stall is no end.
    pub ended: Option<String>,
}

#[derive(Debug)]
pub struct Conversation {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    progress: Mutex<Progress>,
}

impl Shared {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn answered(&self, sent: Instant) {
        let now = Instant::now();
        let mut progress = self.progress();
        progress.answered += 1;
        progress.last_answer = now;
        progress.longest_wait = progress.longest_wait.max(now - sent);
    }
}

impl Conversation {
    /// Opens a TCP connection from inside a namespace and starts talking on it.
    pub fn tcp(from: &Namespace, to: IpAddr, port: u16) -> Result<Self> {
        let stream = from.run(|| {
            connect(SocketAddr::new(to, port), PATIENCE)
                .with_context(|| format!("connect to {to} port {port} from {}", from.name()))
        })?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_millis(50)))?;
        Ok(Self::start(move |shared| talk_tcp(&stream, shared)))
    }

    /// Starts sending datagrams from inside a namespace, from one port.
    pub fn udp(from: &Namespace, to: IpAddr, port: u16) -> Result<Self> {
        let socket = from.run(|| {
            let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
            socket.connect(mapped(SocketAddr::new(to, port)))?;
            Ok(socket)
        })?;
        socket.set_read_timeout(Some(LOST_AFTER))?;
        Ok(Self::start(move |shared| talk_udp(&socket, shared)))
    }

    fn start(talk: impl FnOnce(&Shared) -> io::Result<()> + Send + 'static) -> Self {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            progress: Mutex::new(Progress {
                answered: 0,
                lost: 0,
                longest_wait: Duration::ZERO,
                last_answer: Instant::now(),
                ended: None,
            }),
        });
        let theirs = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            if let Err(error) = talk(&theirs) {
                theirs.progress().ended = Some(error.to_string());
            }
        });
        Self { shared, thread: Some(thread) }
    }

    pub fn progress(&self) -> Progress {
        self.shared.progress().clone()
    }

    /// Waits until `lines` more are answered; false when they are not in time.
    pub fn goes_on(&self, lines: u64, within: Duration) -> bool {
        let end = Instant::now() + within;
        let goal = self.progress().answered + lines;
        while self.progress().answered < goal {
            if Instant::now() > end {
                return false;
            }
            thread::sleep(Duration::from_millis(2));
        }
        true
    }

    /// True when no line is answered for as long as `silence`.
    pub fn stalls(&self, silence: Duration) -> bool {
        !self.goes_on(1, silence)
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the thread of a conversation panicked");
        }
    }
}

fn talk_tcp(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    read_line(&mut reader, &mut line, shared)?;
    for number in 0_u64.. {
        if shared.stopped() {
            break;
        }
        let sent = Instant::now();
        let said = format!("{number}\n");
        (&mut &*stream).write_all(said.as_bytes())?;
        read_line(&mut reader, &mut line, shared)?;
        if shared.stopped() {
            break;
        }
        if line != said {
            return Err(io::Error::other(format!("said {said:?}, got {line:?}")));
        }
        shared.answered(sent);
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// Reads a line, over as many time-outs as it takes.
fn read_line(
    reader: &mut BufReader<&TcpStream>,
    line: &mut String,
    shared: &Shared,
) -> io::Result<()> {
    line.clear();
    while !shared.stopped() {
        match reader.read_line(line) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => return Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn talk_udp(socket: &UdpSocket, shared: &Shared) -> io::Result<()> {
    let mut buffer = [0; 512];
    for number in 0_u64.. {
        if shared.stopped() {
            break;
        }
        let said = format!("#{number}#");
        let sent = Instant::now();
        socket.send(said.as_bytes())?;
        loop {
            match socket.recv(&mut buffer) {
                Ok(length) if String::from_utf8_lossy(&buffer[..length]).ends_with(&said) => {
                    shared.answered(sent);
                    break;
                }
                // The late echo of a datagram already counted as lost.
                Ok(_) => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    shared.progress().lost += 1;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}
