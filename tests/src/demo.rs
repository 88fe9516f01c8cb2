//! The demo: every story for a reader, on the terminal and as one HTML page.

pub mod terminal;
