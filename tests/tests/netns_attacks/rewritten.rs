//! Neighbours behind our programs that make the kernel write over the tag.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use np_agent::dataplane::Mechanism;
use np_tests::bpf::{self, Place, TcSide};
use np_tests::matrix::{self, Row};
use np_tests::netns::Namespace;
use np_tests::probe::{Kind, PATIENCE, probe};
use np_tests::wire::datagram;

use crate::field::{Field, ip_packet};
use crate::forge::fragments_that_lose_their_device;

/// What stands behind ours on a device's ingress side.
#[derive(Clone, Copy, Debug)]
enum Neighbour {
    /// A filter that answers OK: the kernel writes 0.
    Ok,
    /// A TCX program that answers PASS: the kernel writes what was left for it.
    Pass,
    /// A filter with a class: the kernel writes its number, another pod's id perhaps.
    Class(u16),
}

impl Neighbour {
    fn row(self) -> Row {
        let name = match self {
            Neighbour::Ok => "a filter behind ours that answers OK",
            Neighbour::Pass => "a TCX program behind ours that answers PASS",
            Neighbour::Class(_) => "a filter behind ours with a class",
        };
        matrix::row("Neighbours", name.to_owned())
    }

    fn stand(self, field: &Field, node: &Namespace, device: &str) -> Result<Option<OwnedFd>> {
        let qdisc = || node.call(&format!("tc qdisc add dev {device} clsact")).map(drop);
        match self {
            Neighbour::Ok | Neighbour::Pass => {
                let program = bpf::load("answers_0", &bpf::returns(0))?;
                if matches!(self, Neighbour::Pass) {
                    let attached = node.run(|| {
                        let ifindex = nix::net::if_::if_nametoindex(device)?;
                        Ok(bpf::attach(&program, ifindex, TcSide::Ingress, Place::Last)?)
                    })?;
                    return Ok(Some(attached));
                }
                let pin = field
                    .agents
                    .as_ref()
                    .context("agents run")?
                    .pins()
                    .join(format!("ok-{device}"));
                bpf::pin(&program, &pin)?;
                if Mechanism::of_kernel()? == Mechanism::Tcx {
                    qdisc()?;
                }
                bpf::filter(node, device, TcSide::Ingress, 7, &pin)?;
            }
            Neighbour::Class(id) => {
                if Mechanism::of_kernel()? == Mechanism::Tcx {
                    qdisc()?;
                }
                node.call(&format!(
                    "tc filter add dev {device} ingress pref 7 protocol all u32 match u32 0 0 flowid :{id:x}"
                ))?;
            }
        }
        Ok(None)
    }
}

/// On the uplink, and on a pod's own veth.
#[test]
fn what_neighbours_write_over_the_tag_grants_nothing() -> Result<()> {
    let tcx = Mechanism::of_kernel()? == Mechanism::Tcx;
    // Endpoint ids are small, and given in the order in which pods are found.
    let mut neighbours = vec![Neighbour::Ok, Neighbour::Class(1), Neighbour::Class(5)];
    neighbours.extend(tcx.then_some(Neighbour::Pass));
    for neighbour in neighbours {
        let row = neighbour.row();
        let mut field = Field::new()?;
        field.start_agents()?;
        let node = field.cluster.namespace("node-1")?.clone();
        let mut links = Vec::new();
        for device in ["eth0", "v-jailed", "v-attacker"] {
            links.push(neighbour.stand(&field, &node, device)?);
        }
        let what = |text: &str| format!("{neighbour:?}: {text}");

        let m = field.marker();
        let as_open = datagram(field.v4("open"), field.v4("choosy"), 5000, 8443, &m);
        let packets = [ip_packet(as_open.bytes())];
        field.check(&what("outside as another pod"), "internet", "choosy", &packets, &m, false)?;
        let m = field.marker();
        let packets =
            fragments_that_lose_their_device(field.v6("internet"), field.v6("closed"), &m);
        field.check(&what("fragments"), "internet", "closed", &packets, &m, false)?;
        for (from, to) in [
            ("internet", "closed"),
            ("attacker", "closed"),
            ("jailed", "open"),
            ("jailed", "internet"),
        ] {
            let m = field.marker();
            let packet = datagram(field.v4(from), field.v4(to), 5000, 9, &m);
            let packets = [ip_packet(packet.bytes())];
            field.check(&what(&format!("{from} to {to}")), from, to, &packets, &m, false)?;
        }
        let m = field.marker();
        let packet = datagram(field.v4("attacker"), field.v4("open"), 5000, 9, &m);
        let packets = [ip_packet(packet.bytes())];
        field.check(&what("attacker to open"), "attacker", "open", &packets, &m, true)?;

        // Replies that nothing translated, both ways, and the node's own probes.
        let reached = |from: &str, to: &str| -> Result<bool> {
            let inside = field.cluster.namespace(from)?;
            Ok(probe(inside, field.v4(to), Kind::Tcp(80), PATIENCE).replied())
        };
        let (out, within, back, probed) = (
            reached("closed", "remote")?,
            reached("closed", "attacker")?,
            reached("remote", "open")?,
            reached("node-1", "closed")?,
        );
        let all = (out, within, back, probed);
        field.expect(&what("replies and probes"), out && within && back && probed, all);
        // A filter is named, and keeps the agent from ready; a TCX program gives the tag back.
        let status = field
            .agents
            .as_mut()
            .context("agents run")?
            .on("node-1")?
            .wait(PATIENCE * 4, |status| status.ready == matches!(neighbour, Neighbour::Pass));
        field.expect(&what("readiness"), status.is_ok(), status.err());
        drop(links);
        field.report();
        row.holds();
    }
    Ok(())
}
