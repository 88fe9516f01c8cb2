//! Everything a test of np-agent needs that np-agent itself must not contain.
//!
//! Bottom up: [`netns`] owns network namespaces, [`topology`] wires them into a cluster of nodes,
//! pods and outside hosts, [`proxy`] writes the rules kube-proxy would write there, [`probe`] sends
//! real traffic, [`agent`] runs one real np-agent per node. [`story`] ties a policy to the
//! reachability it must give, [`demo`] plays all stories for a reader. [`trial`] plays one matrix in
//! every shape of CNI, [`arrival`] asks why anything arrives, and [`matrix`] reports what held.
//! [`kubernetes`] is a real cluster instead, through kubectl, and [`chart`] the Helm chart.
//!
//! Namespaces, processes and pins belong to values: whatever ends a test, `Drop` takes them away.

pub mod address;
pub mod agent;
pub mod arrival;
pub mod bpf;
pub mod chart;
pub mod demo;
pub mod fake_api;
pub mod generate;
pub mod kubernetes;
pub mod manifests;
pub mod matrix;
pub mod netns;
pub mod offload;
pub mod oracle;
pub mod probe;
pub mod property;
pub mod proxy;
pub mod raw;
pub mod sandbox;
pub mod scale;
pub mod simulation;
pub mod sockets;
pub mod story;
pub mod topology;
pub mod trial;
pub mod wire;
