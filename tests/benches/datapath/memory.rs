//! What an entry of a map takes of the kernel's memory.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use ipnet::IpNet;
use np_agent::dataplane::{self, Opened, Options};
use np_common::packet::TCP;
use np_common::rules::{ClassId, RuleSetId};
use np_policy::plan::{Op, PortPrefix, RulePrefix};
use np_tests::sandbox::sandbox;

use crate::Figure;

const ENTRIES: usize = 100_000;

pub fn measure() -> Result<()> {
    println!("\nthe kernel's slabs, in bytes for each of {ENTRIES} entries");
    for (map, op) in [("PEERS", peer as fn(u32) -> Op), ("CIDRS", cidr), ("RULES", rule)] {
        sandbox(move |pin_dir| {
            let options = Options { pin_dir: pin_dir.to_owned(), mechanism: None };
            let Opened { mut maps, .. } = dataplane::open(&options)?;
            let ops: Vec<Op> = (0..ENTRIES as u32).map(op).collect();
            let before = slab()?;
            for op in &ops {
                maps.apply(op)?;
            }
            let value = (slab()? - before) / ENTRIES as f64;
            println!("  {map:<6} {value:.0}");
            let (measure, variant) = ("memory of an entry".to_owned(), map.to_owned());
            Figure { measure, variant, rules: ENTRIES, value, unit: "B" }.tell();
            Ok(())
        });
    }
    Ok(())
}

/// Bytes of slabs that cannot be reclaimed, on the whole machine.
fn slab() -> Result<f64> {
    let facts = fs::read_to_string("/proc/meminfo")?;
    let line = facts.lines().find_map(|line| line.strip_prefix("SUnreclaim:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kibibytes.context("no SUnreclaim in /proc/meminfo")?.parse::<f64>()? * 1024.0)
}

fn peer(number: u32) -> Op {
    let addr = IpAddr::from(Ipv4Addr::from(u32::from(Ipv4Addr::new(11, 0, 0, 0)) + number));
    Op::SetPeer(addr.into(), ClassId::new(1))
}

fn cidr(number: u32) -> Op {
    let addr = Ipv4Addr::from(u32::from(Ipv4Addr::new(64, 0, 0, 0)) + (number << 4));
    let prefix = IpNet::new(addr.into(), 28).expect("a prefix of IPv4 is no longer than 32");
    Op::SetPeer(prefix, ClassId::new(1))
}

fn rule(number: u32) -> Op {
    let ports = PortPrefix::ports(TCP, 80, 16);
    let (rule_set, class) = (RuleSetId::new(1), ClassId::new(number + 1));
    Op::SetRule(RulePrefix { rule_set, class, ports })
}
