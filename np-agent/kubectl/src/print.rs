//! What is printed: plain tables, as kubectl and np-agent print them, for readers who may leave before
//! the end.

use std::io::{self, ErrorKind, Write};

use crate::error::Error;

/// Writes a text to standard output, as far as anybody reads it.
///
/// # Errors
/// If it cannot be written although somebody reads.
pub fn show(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::Output(error)),
        _ => Ok(()),
    }
}

/// Writes a text to standard error, if anybody hears it.
pub fn complain(text: &str) {
    io::stderr().write_all(text.as_bytes()).ok();
}

/// Formats rows under a header, each column as wide as its widest cell.
pub fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let rows = rows.iter().map(|row| row.each_ref().map(String::as_str));
    let lines: Vec<[&str; N]> = [header].into_iter().chain(rows).collect();
    let widths: [usize; N] = std::array::from_fn(|column| {
        lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default()
    });
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}   "));
        text.push_str(cells.collect::<String>().trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows =
            [["a".into(), "ü cell".into(), "1".into()], ["wider".into(), "b".into(), "2".into()]];
        assert_eq!(
            table(["X", "Y", "Z"], &rows),
            "X       Y        Z\na       ü cell   1\nwider   b        2\n"
        );
    }
}
