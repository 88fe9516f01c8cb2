//! The life of an agent with real traffic: starts and stops, kills, edits, pods that come and go,
//! and what a user is told when something is wrong.

mod binding;
mod kills;
mod life;
mod told;
mod world;
