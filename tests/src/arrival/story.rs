//! What happens in the world while the adversary sends: policies change, pods come and go, agents die,
//! strangers attach programs.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use np_agent::dataplane::Mechanism;

use super::host::HostId;
use super::tap::{SECOND, Time, now};
use super::wishes::APPS;
use super::world::World;
use crate::bpf::{self, Place, TcSide};
use crate::generate::dice::Dice;
use crate::netns::Namespace;

/// How many pods there are in addition to the residents, at most.
const GUESTS: usize = 6;

/// How a new pod and its object come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Birth {
    /// The object shows the address right after the device is there.
    Usual,
    /// The object comes first, its address some time after the device.
    Late,
    /// As late, with an address outside the node's blocks.
    LateOutsideTheBlocks,
}

#[derive(Debug)]
pub struct Story {
    neighbour: Option<Neighbour>,
    /// Addresses that were a guest's, by node.
    used: [Vec<Ipv4Addr>; 2],
    next: u8,
}

/// A stranger's program behind the agent's.
#[derive(Debug)]
struct Neighbour {
    device: String,
    inside: Namespace,
    link: Option<OwnedFd>,
}

impl Story {
    pub fn new() -> Self {
        Self { neighbour: None, used: [Vec::new(), Vec::new()], next: 100 }
    }

    /// One more event.
    pub fn go_on(&mut self, world: &mut World, dice: &mut Dice<'_>) -> Result<()> {
        world.tidy();
        match dice.below(20) {
            0..=4 => world.police(dice),
            5..=9 => self.birth(world, dice),
            10..=13 => self.death(world, dice),
            14..=16 => self.restart(world, dice),
            _ => self.stranger(world, dice),
        }
    }

    fn birth(&mut self, world: &mut World, dice: &mut Dice<'_>) -> Result<()> {
        if world.guests().len() >= GUESTS {
            return self.death(world, dice);
        }
        let node = dice.below(2);
        let routed = node != world.make.bridged;
        let birth = match dice.below(10) {
            0 | 1 if world.running[node] => Birth::Late,
            2 | 3 if world.running[node] && routed => Birth::LateOutsideTheBlocks,
            _ => Birth::Usual,
        };
        let address = if birth == Birth::LateOutsideTheBlocks {
            self.next = self.next.wrapping_add(1).max(100);
            Ipv4Addr::new(100, 69, 9, self.next)
        } else {
            self.address(world, node, dice)
        };
        let app = dice.weighted(&[(4, APPS[2]), (2, APPS[3]), (2, APPS[4]), (1, APPS[0])]);
        let id = world.conceive(node, address, app);
        world.tell(format!(
            "guest-{} ({app}, {address}, {}) comes: {birth:?}, agent runs: {}",
            world.figures.born,
            world.node_name(node),
            world.running[node]
        ));
        world.wire(id)?;
        // An ingress qdisc where the programs would need clsact keeps an agent from ready.
        if routed && dice.chance(25) && Mechanism::of_kernel()? == Mechanism::Tcx {
            world.limit(id)?;
        }
        if birth != Birth::Usual {
            world.present()?;
            world.settle(node)?;
            thread::sleep(Duration::from_millis(300 + dice.below(900) as u64));
        }
        world.show(id);
        world.present()?;
        if world.running[node] {
            world.settle(node)?;
        }
        Ok(())
    }

    /// Rather an address that was another pod's.
    fn address(&mut self, world: &World, node: usize, dice: &mut Dice<'_>) -> Ipv4Addr {
        let chronicle = world.stage.chronicle();
        let free: Vec<Ipv4Addr> = self.used[node]
            .iter()
            .copied()
            .filter(|address| chronicle.owners((*address).into(), now()).next().is_none())
            .collect();
        if !free.is_empty() && dice.chance(75) {
            return *dice.pick(&free[free.len().saturating_sub(4)..]);
        }
        self.next = if self.next >= 250 { 100 } else { self.next + 1 };
        let address = Ipv4Addr::new(100, 68, node as u8 + 1, self.next);
        if chronicle.owners(address.into(), now()).next().is_some() {
            return *free.first().unwrap_or(&Ipv4Addr::new(100, 68, node as u8 + 1, 251));
        }
        address
    }

    fn death(&mut self, world: &mut World, dice: &mut Dice<'_>) -> Result<()> {
        if world.guests().is_empty() {
            return world.police(dice);
        }
        let at = dice.below(world.guests().len());
        let id = world.guests()[at].id;
        self.end(world, id)
    }

    fn end(&mut self, world: &mut World, id: HostId) -> Result<()> {
        let (name, node, v4) = {
            let chronicle = world.stage.chronicle();
            let host = chronicle.host(id);
            (host.name.clone(), host.node, host.v4)
        };
        world.tell(format!("{name} goes"));
        if v4.octets()[1] == 68 {
            self.used[node].retain(|used| *used != v4);
            self.used[node].push(v4);
        }
        world.unwire(id)?;
        world.present()
    }

    /// An agent stops in one way or another; pods come and go until it is back.
    fn restart(&mut self, world: &mut World, dice: &mut Dice<'_>) -> Result<()> {
        let node = dice.below(2);
        let name = world.node_name(node);
        let gently = dice.chance(50);
        world.tell(format!("the agent of {name} stops, gently: {gently}"));
        let agent = world.agents.on(name)?;
        if gently {
            agent.terminate().map(drop)?;
        } else {
            agent.kill()?;
        }
        world.running[node] = false;
        let events = dice.below(4);
        for _ in 0..events {
            match dice.below(5) {
                0 => world.police(dice)?,
                1 | 2 => self.death(world, dice)?,
                _ => self.birth(world, dice)?,
            }
        }
        thread::sleep(Duration::from_millis(dice.below(700) as u64));
        world.tell(format!("the agent of {name} starts"));
        world.started[node] = now();
        world.agents.on(name)?.start()?;
        world.figures.restarts += 1;
        world.settle(node)?;
        world.running[node] = true;
        world.in_force(node);
        Ok(())
    }

    /// A stranger's program comes, or goes again.
    fn stranger(&mut self, world: &mut World, dice: &mut Dice<'_>) -> Result<()> {
        let mechanism = Mechanism::of_kernel()?;
        if let Some(neighbour) = self.neighbour.take() {
            world.tell(format!("the stranger at {} goes", neighbour.device));
            if neighbour.link.is_none() {
                let Neighbour { device, inside, .. } = &neighbour;
                match mechanism {
                    Mechanism::Tcx => inside.call(&format!("tc qdisc del dev {device} clsact"))?,
                    // The qdisc is the agent's.
                    Mechanism::Clsact => {
                        inside.call(&format!("tc filter del dev {device} ingress pref 50"))?
                    }
                };
            }
            drop(neighbour);
            if let Some((_, end)) = world.stage.chronicle().visits.last_mut() {
                *end = Some(now());
            }
            // An agent looks after its attachments once a minute.
            world.excused = now() + 90 * SECOND;
            return Ok(());
        }
        let node = dice.below(2);
        let inside = world.node(node)?.clone();
        let resident = dice.pick(&["web", "closed", "jailed"]);
        let uplink = dice.chance(70) || node == world.make.bridged;
        let device = if uplink { "eth0".to_owned() } else { format!("v-{resident}-{}", node + 1) };
        let what = dice.below(4);
        world.tell(format!(
            "a stranger comes to {device} of {}: {}",
            world.node_name(node),
            ["a filter that answers OK", "TCX_PASS", "u32 with a class id", "go on"][what]
        ));
        world.stage.chronicle().visits.push((now(), None));
        world.excused = Time::MAX;
        world.figures.neighbours += 1;
        if mechanism == Mechanism::Tcx && matches!(what, 0 | 2) {
            inside.call(&format!("tc qdisc add dev {device} clsact"))?;
        }
        let class = 1 + dice.below(14);
        let link = match (what, mechanism) {
            (2, _) => {
                inside.call(&format!(
                    "tc filter add dev {device} ingress protocol all pref 50 u32 match u32 0 0 \
                     flowid :{class:x}"
                ))?;
                None
            }
            (0, _) | (_, Mechanism::Clsact) => {
                let verdict = if what == 3 { -1 } else { 0 };
                let pin = world.agents.pins().join("stranger");
                let program = bpf::load("stranger", &bpf::returns(verdict))?;
                bpf::pin(&program, &pin)?;
                let filtered = bpf::filter(&inside, &device, TcSide::Ingress, 50, &pin);
                std::fs::remove_file(&pin).context("unpin the stranger's program")?;
                filtered?;
                None
            }
            (_, Mechanism::Tcx) => {
                let verdict = if what == 1 { 0 } else { -1 };
                let program = bpf::load("stranger", &bpf::returns(verdict))?;
                let ifindex = inside.run(|| Ok(nix::net::if_::if_nametoindex(device.as_str())?))?;
                Some(
                    inside.run(|| {
                        Ok(bpf::attach(&program, ifindex, TcSide::Ingress, Place::Last)?)
                    })?,
                )
            }
        };
        self.neighbour = Some(Neighbour { device, inside, link });
        Ok(())
    }
}

impl Default for Story {
    fn default() -> Self {
        Self::new()
    }
}
