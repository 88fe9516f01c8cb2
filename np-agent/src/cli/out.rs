//! Standard output, whose reader may leave before the end, as `head` does.

use std::io::{self, ErrorKind, Write};

/// Writes a text, as far as anybody reads it.
pub fn show(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("cannot write to standard output"))
        }
        _ => Ok(()),
    }
}

/// Writes a line, as far as anybody reads it.
pub fn line(text: impl std::fmt::Display) -> anyhow::Result<()> {
    show(&format!("{text}\n"))
}
