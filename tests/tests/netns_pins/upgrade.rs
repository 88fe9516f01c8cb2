//! From the programs and maps of one version to those of another, under traffic.

use np_policy::plan::Record;
use np_tests::matrix;

use super::*;

const OLD: u32 = 1001;
const NEW: u32 = 1002;

fn map_id(pin_dir: &Path, abi: u32, name: &str) -> anyhow::Result<u32> {
    Ok(MapInfo::from_pin(pin_dir.join(format!("v{abi}/maps/{name}")))?.id())
}

fn link_ids(rig: &Rig, abi: u32) -> anyhow::Result<Vec<u32>> {
    let mut ids = Vec::new();
    for pod in [&rig.a, &rig.b] {
        for side in ["ingress", "egress"] {
            let pin = rig.pin_dir.join(format!("v{abi}/links/{}-{side}", pod.ifindex.0));
            ids.push(bpf::link_ids(&bpf::open_pin(&pin)?)?.0);
        }
    }
    Ok(ids)
}

/// An agent of the old version, with its record, that is gone by now.
fn old_agent(rig: &Rig) -> anyhow::Result<()> {
    let mut old = rig.open_version(OLD)?;
    rig.plan(&mut old, 7)?;
    rig.attach(&mut old)?;
    old.maps.store_record(&serde_json::to_vec(&Record::default())?)?;
    rig.expect_policy().context("under the old version")
}

#[test]
fn another_version_takes_over_under_traffic_without_a_gap() {
    let row = matrix::row("Life", "programs and maps of another version taken over under traffic");
    by_each_mechanism(|pin_dir, mechanism| {
        let rig = Rig::new(pin_dir, mechanism)?;
        old_agent(&rig)?;
        let links = match mechanism {
            Mechanism::Tcx => link_ids(&rig, OLD)?,
            Mechanism::Clsact => Vec::new(),
        };

        let stop = Arc::new(AtomicBool::new(false));
        let (flooding, target, stopped) = (rig.a.socket(0)?, rig.b.addr(CLOSED), stop.clone());
        let flood = thread::spawn(move || -> anyhow::Result<u64> {
            let mut sent = 0;
            while !stopped.load(Ordering::Relaxed) {
                flooding.send_to(b"closed", target)?;
                sent += 1;
            }
            Ok(sent)
        });
        let (asking, answering, target) =
            (rig.a.socket(0)?, rig.b.open.try_clone()?, rig.b.addr(OPEN));
        answering.set_read_timeout(Some(Duration::from_millis(100)))?;
        asking.set_read_timeout(Some(Duration::from_millis(100)))?;
        let stopped = stop.clone();
        let round_trips = thread::spawn(move || -> anyhow::Result<(u64, u64)> {
            let (mut rounds, mut lost, mut buffer) = (0, 0, [0; 16]);
            while !stopped.load(Ordering::Relaxed) {
                rounds += 1;
                asking.send_to(&u64::to_le_bytes(rounds), target)?;
                let Ok((length, from)) = answering.recv_from(&mut buffer) else {
                    lost += 1;
                    continue;
                };
                answering.send_to(&buffer[..length], from)?;
                lost += u64::from(asking.recv(&mut buffer).is_err());
            }
            Ok((rounds, lost))
        });
        thread::sleep(Duration::from_millis(300));

        let mut new = rig.open_version(NEW)?;
        ensure!(new.links.len() == 4, "the old links are known: {:?}", new.links);
        ensure!(new.record.is_some(), "the old record is there");
        ensure!(new.tables.config.generation() == 7, "generations go on");
        let known: Vec<u32> = new.tables.ifaces.keys().copied().collect();
        ensure!(known == [rig.a.ifindex.0, rig.b.ifindex.0], "{known:?}");
        ensure!(new.tables.endpoints.is_empty() && new.tables.rules.is_empty());
        ensure!(map_id(pin_dir, OLD, "FLOWS")? == map_id(pin_dir, NEW, "FLOWS")?);
        ensure!(map_id(pin_dir, OLD, "ENDPOINTS")? != map_id(pin_dir, NEW, "ENDPOINTS")?);
        thread::sleep(Duration::from_millis(100));
        rig.plan(&mut new, 8)?;
        new.maps.store_record(&serde_json::to_vec(&Record::default())?)?;
        thread::sleep(Duration::from_millis(100));
        let devices = [(rig.a.ifindex, Side::Pod), (rig.b.ifindex, Side::Pod)];
        let started = Instant::now();
        let replaced = new.attacher.replace(&devices);
        let took = started.elapsed();
        ensure!(replaced == [rig.a.ifindex, rig.b.ifindex], "{replaced:?}");
        thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
        let (sent, (rounds, lost)) = (join(flood)?, join(round_trips)?);
        ensure!(sent > 1_000 && rounds > 100, "only {sent} and {rounds} packets");
        ensure!(rig.b.received(&rig.b.closed)? == 0, "packets came through");
        println!(
            "replaced in {took:?}; of {sent} denied packets 0 passed; of {rounds} round trips {lost} lost"
        );
        ensure!(lost <= 3, "{lost} of {rounds} round trips were lost");

        for (device, side) in devices {
            let checked = new.attacher.check(device, side)?;
            ensure!(checked == Default::default(), "{checked:?}");
        }
        ensure!(new.attacher.retire()? == 1);
        ensure!(!pin_dir.join(format!("v{OLD}")).exists());
        if mechanism == Mechanism::Tcx {
            ensure!(link_ids(&rig, NEW)? == links, "the links are the same");
        }
        rig.expect_policy().context("under the new version")?;
        new.maps.apply(&Op::SetPolicy(rig.b.id, PolicyWord::OPEN))?;
        ensure!(rig.reaches(CLOSED)?, "the new version's maps are those in force");
        Ok(())
    });
    row.holds();
}

/// Whatever point it is broken off at, programs judge by maps that are whole.
#[test]
fn an_upgrade_that_is_broken_off_goes_on_with_the_next_start() {
    by_links(|pin_dir| {
        let rig = Rig::new(pin_dir, Mechanism::Tcx)?;
        old_agent(&rig)?;
        // Before the plan was whole.
        let mut half = rig.open_version(NEW)?;
        half.maps.apply(&Op::SetPolicy(rig.b.id, PolicyWord::OPEN))?;
        drop(half);
        rig.expect_policy().context("the old version judges")?;
        let mut new = rig.open_version(NEW)?;
        ensure!(new.tables.endpoints.is_empty(), "what was half written is gone");
        rig.plan(&mut new, 8)?;
        new.maps.store_record(&serde_json::to_vec(&Record::default())?)?;
        // Between the devices.
        new.attacher.attach(rig.a.ifindex, Side::Pod)?;
        drop(new);
        rig.expect_policy().context("one device has the old programs, one the new")?;
        let mut next = rig.open_version(NEW)?;
        ensure!(next.tables.config.generation() == 8 && !next.tables.endpoints.is_empty());
        ensure!(next.links.len() == 4, "{:?}", next.links);
        rig.attach(&mut next)?;
        next.attacher.retire()?;
        rig.expect_policy()?;
        let links = Pinned::open(pin_dir).is_err() && !pin_dir.join(format!("v{OLD}")).exists();
        ensure!(links, "nothing of the old version is left");
        Ok(())
    });
}

/// A device that has no role any more keeps no program that judges by maps nobody writes.
#[test]
fn programs_of_another_version_end_with_it_where_ours_are_not_wanted() {
    by_links(|pin_dir| {
        let rig = Rig::new(pin_dir, Mechanism::Tcx)?;
        old_agent(&rig)?;
        let mut new = rig.open_version(NEW)?;
        rig.plan(&mut new, 8)?;
        new.attacher.attach(rig.a.ifindex, Side::Pod)?;
        new.attacher.retire()?;
        let chains = new.attacher.order(rig.b.ifindex)?;
        ensure!(chains.iter().all(|chain| chain.programs.is_empty()), "{chains:?}");
        let chains = new.attacher.order(rig.a.ifindex)?;
        ensure!(chains.iter().all(|chain| chain.ours == Some(0)), "{chains:?}");
        new.attacher.detach(rig.a.ifindex)?;
        let chains = new.attacher.order(rig.a.ifindex)?;
        ensure!(chains.iter().all(|chain| chain.programs.is_empty()), "{chains:?}");
        Ok(())
    });
}
