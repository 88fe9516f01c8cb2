//! What a path does to packets and what live connections feel: fragments, complaints of routers,
//! sizes, headers, floods, edits, an agent that comes later. Real traffic on two nodes, under
//! policies that allow a port each way and no more.

mod crossing;
mod errors;
mod exchange;
mod flows;
mod fragments;
mod headers;
mod link;
mod sizes;
mod synproxy;
