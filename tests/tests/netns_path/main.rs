//! What a path does to packets: it breaks them into fragments and complains of them. Real traffic on
//! two nodes, first without agents, then under policies that allow a port each way and no more.

mod errors;
mod fragments;
mod world;
