//! The API server as a source, against one that fails in every way that clusters have seen: what is
//! in force afterwards equals what the server holds, and nothing was open before.

mod access;
mod meaning;
mod objects;
mod outages;
mod requests;
mod restored;
mod storms;
mod taint;
mod world;
