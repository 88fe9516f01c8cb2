//! Programs on devices: kept, adopted, swapped, reaped, and in order with those of others.

use super::*;

/// The killed agent's links and maps keep judging; the next one finds its tables, record and
/// links, and puts its own programs into the same links.
#[test]
fn enforcement_outlives_the_agent_and_is_adopted() {
    by_each_mechanism(|pin_dir, mechanism| {
        let rig = Rig::new(pin_dir, mechanism)?;
        let mut first = rig.open()?;
        ensure!(first.tables == Tables::default() && first.links.is_empty());
        let tables = rig.enforce(&mut first)?;
        first.maps.store_record(b"who is who")?;
        rig.expect_policy()?;
        let programs = rig.program_ids(&first)?;
        let links = rig.pins()?;
        drop(first);

        rig.expect_policy().context("while no agent runs")?;
        let pinned = Pinned::open(pin_dir)?;
        ensure!(
            pinned.tables()? == tables && pinned.record().as_deref() == Some(&b"who is who"[..])
        );
        let before = pinned.counters()?;
        ensure!(!rig.reaches(CLOSED)?);
        let counted = pinned.counters()?.since(&before);
        ensure!(counted.packets(Hook::ToPod, Reason::IngressDenied) == 1, "{counted:?}");

        let mut second = rig.open()?;
        ensure!(second.tables == tables, "{:#?}", second.tables);
        ensure!(second.record.as_deref() == Some(&b"who is who"[..]));
        ensure!(second.links == pinned.links()? && second.links.len() == 4);
        ensure!(second.links.iter().all(|link| !link.severed), "{:?}", second.links);
        ensure!(rig.program_ids(&second)? == programs, "opening alone changes nothing attached");
        rig.attach(&mut second)?;
        for (old, new) in programs.iter().zip(rig.program_ids(&second)?) {
            ensure!(*old != new, "{old} is still attached");
        }
        ensure!(rig.pins()? == links, "the links are the same");
        rig.expect_policy().context("under the adopting agent")?;

        second.maps.apply(&Op::SetPolicy(rig.b.id, PolicyWord::OPEN))?;
        ensure!(rig.reaches(CLOSED)?, "the adopting agent's maps are those in force");
        Ok(())
    });
}

/// One link update replaces a program: at every moment the old or the new one judges.
#[test]
fn a_swap_under_traffic_lets_nothing_through_and_loses_nothing() {
    by_each_mechanism(|pin_dir, mechanism| {
        let rig = Rig::new(pin_dir, mechanism)?;
        let mut one = rig.open()?;
        rig.enforce(&mut one)?;
        let mut other = rig.open()?;
        rig.expect_policy()?;

        let stop = Arc::new(AtomicBool::new(false));
        let (flooding, target) = (rig.a.socket(0)?, rig.b.addr(CLOSED));
        let stopped = stop.clone();
        let flood = thread::spawn(move || -> anyhow::Result<u64> {
            let mut sent = 0;
            while !stopped.load(Ordering::Relaxed) {
                flooding.send_to(b"closed", target)?;
                sent += 1;
            }
            Ok(sent)
        });
        let asking = rig.a.socket(0)?;
        let answering = rig.b.open.try_clone()?;
        let target = rig.b.addr(OPEN);
        let round_trips = thread::spawn(move || -> anyhow::Result<u64> {
            let mut buffer = [0; 16];
            for round in 0..3_000u64 {
                asking.send_to(&round.to_le_bytes(), target)?;
                let (length, from) =
                    answering.recv_from(&mut buffer).with_context(|| format!("lost {round}"))?;
                answering.send_to(&buffer[..length], from)?;
                asking.recv(&mut buffer).with_context(|| format!("lost the answer {round}"))?;
            }
            Ok(3_000)
        });
        let mut swaps = 0u64;
        while !round_trips.is_finished() || swaps < 2_000 {
            rig.attach(&mut other)?;
            rig.attach(&mut one)?;
            swaps += 8;
        }
        stop.store(true, Ordering::Relaxed);
        let (sent, round_trips) = (join(flood)?, join(round_trips)?);
        ensure!(sent > 1_000, "only {sent} packets");
        ensure!(rig.b.received(&rig.b.closed)? == 0, "packets came through");
        println!(
            "{swaps} swaps, {sent} denied packets: 0 passed; {round_trips} round trips: 0 lost"
        );
        Ok(())
    });
}

/// A role change goes the same way: the pod's pair gives way to the uplink's in the same link.
#[test]
fn a_change_of_role_replaces_the_programs_in_place() {
    by_each_mechanism(|pin_dir, mechanism| {
        let rig = Rig::new(pin_dir, mechanism)?;
        let mut opened = rig.open()?;
        rig.enforce(&mut opened)?;
        let before = rig.pins()?;
        opened.attacher.attach(rig.b.ifindex, Side::Uplink)?;
        ensure!(rig.pins()? == before);
        let to_uplink = bpf::program_id(&opened.attacher.program(Hook::ToUplink))?;
        let chains = opened.attacher.order(rig.b.ifindex)?;
        ensure!(chains[1].programs == [to_uplink], "{chains:?}");
        Ok(())
    });
}

#[test]
fn a_gone_device_severs_its_links_and_only_those_are_reaped() {
    by_links(|pin_dir| {
        let rig = Rig::new(pin_dir, Mechanism::Tcx)?;
        let mut opened = rig.open()?;
        rig.enforce(&mut opened)?;
        opened.attacher.reap(rig.a.ifindex)?;
        ensure!(
            opened.attacher.order(rig.a.ifindex)?[0].ours == Some(0),
            "a living device's stays"
        );

        ip("link delete a-host")?;
        let severed = || -> anyhow::Result<Vec<IfIndex>> {
            let links = Pinned::open(pin_dir)?.links()?;
            Ok(links.into_iter().filter(|link| link.severed).map(|link| link.ifindex).collect())
        };
        ensure!(severed()? == [rig.a.ifindex; 2], "{:?}", severed()?);
        opened.attacher.reap(rig.a.ifindex)?;
        ensure!(severed()?.is_empty());
        let left = Pinned::open(pin_dir)?.links()?;
        ensure!(left.iter().all(|link| link.ifindex == rig.b.ifindex) && left.len() == 2);

        // Indices come again, also before anybody has reaped.
        ip("link delete b-host")?;
        ip(&format!("link add name b-host index {} type veth peer name b2", rig.b.ifindex.0))?;
        opened.attacher.attach(rig.b.ifindex, Side::Pod)?;
        ensure!(severed()?.is_empty());
        ensure!(opened.attacher.order(rig.b.ifindex)?.iter().all(|chain| chain.ours == Some(0)));
        Ok(())
    });
}

#[test]
fn programs_of_others_run_behind_ours_and_are_seen_in_front() {
    by_links(|pin_dir| {
        let rig = Rig::new(pin_dir, Mechanism::Tcx)?;
        let mut opened = rig.open()?;
        rig.enforce(&mut opened)?;
        let device = rig.b.ifindex.0;
        ensure!(rig.reaches(OPEN)?);

        let drops = bpf::load("drops", &bpf::returns(2))?;
        let behind = bpf::attach(&drops, device, TestSide::Egress, Place::Last)?;
        ensure!(!rig.reaches(OPEN)?, "what we pass goes on to the next TCX program");
        drop(behind);
        ensure!(rig.reaches(OPEN)?);

        let pin = pin_dir.with_file_name("drops");
        bpf::pin(&drops, &pin)?;
        command("tc qdisc add dev b-host clsact")?;
        let object = pin.display();
        command(&format!("tc filter add dev b-host egress bpf da object-pinned {object}"))?;
        ensure!(!rig.reaches(OPEN)?, "what we pass goes on to clsact");
        command("tc qdisc delete dev b-host clsact")?;
        ensure!(rig.reaches(OPEN)?);

        let accepts = bpf::load("accepts", &bpf::returns(0))?;
        let front = bpf::attach(&accepts, device, TestSide::Egress, Place::First)?;
        let chains = opened.attacher.order(rig.b.ifindex)?;
        ensure!(chains[0].side == TcSide::Ingress && chains[0].before_ours().is_empty());
        ensure!(chains[1].before_ours() == [bpf::program_id(&accepts)?], "{chains:?}");
        ensure!(rig.reaches(CLOSED)?, "an OK in front of ours hides packets: why it is reported");
        drop(front);
        rig.expect_policy()
    });
}

/// Filters run by priority, and of one priority the newest first.
#[test]
fn filters_of_others_run_behind_ours_and_are_seen_in_front() {
    sandbox(|pin_dir| {
        let rig = Rig::new(pin_dir, Mechanism::Clsact)?;
        command("tc qdisc add dev b-host clsact")?;
        let (drops, accepts) =
            (bpf::load("drops", &bpf::returns(2))?, bpf::load("accepts", &bpf::returns(0))?);
        let pin = |name| pin_dir.with_file_name(name);
        bpf::pin(&drops, &pin("drops"))?;
        bpf::pin(&accepts, &pin("accepts"))?;
        let add = |priority, name| {
            let object = pin(name);
            let filter = format!("bpf da object-pinned {}", object.display());
            command(&format!("tc filter add dev b-host egress prio {priority} {filter}"))
        };
        add(1, "accepts")?;
        let mut opened = rig.open()?;
        rig.enforce(&mut opened)?;
        rig.expect_policy().context("ours is newer, hence first")?;
        add(2, "drops")?;
        rig.expect_policy().context("the other one's OK ends the chain")?;
        command("tc filter delete dev b-host egress prio 1 handle 0x1 bpf")?;
        ensure!(!rig.reaches(OPEN)?, "what we pass goes on to the next filter");
        command("tc filter delete dev b-host egress prio 2")?;
        rig.expect_policy()?;

        add(1, "accepts")?;
        let chains = opened.attacher.order(rig.b.ifindex)?;
        ensure!(chains[0].side == TcSide::Ingress && chains[0].before_ours().is_empty());
        ensure!(chains[1].before_ours() == [bpf::program_id(&accepts)?], "{chains:?}");
        dataplane::cleanup(pin_dir)?;
        let left = command("tc filter show dev b-host egress")?;
        ensure!(left.contains("accepts") && !left.contains("np-agent"), "{left}");
        Ok(())
    });
}
