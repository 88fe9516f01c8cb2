//! The life of an agent with real traffic: starts and stops, kills, edits, pods that come and go,
//! and what a user reads when something is wrong.

mod attachments;
mod binding;
mod devices;
mod doors;
mod kills;
mod life;
mod monitor;
mod output;
mod server;
mod tenants;
mod veths;
mod world;
