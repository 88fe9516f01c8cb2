//! Maps and their pins, and what must be gone after cleanup.

use super::*;

#[test]
fn cleanup_leaves_no_program_map_link_or_pin() {
    by_each_mechanism(|pin_dir, mechanism| {
        let rig = Rig::new(pin_dir, mechanism)?;
        let mut opened = rig.open()?;
        rig.enforce(&mut opened)?;
        let mut objects = Vec::new();
        objects.extend(rig.program_ids(&opened)?.into_iter().map(ObjectId::Program));
        objects.extend(rig.pins()?.into_iter().map(ObjectId::Link));
        for spec in &maps::ALL {
            let info = MapInfo::from_pin(version(pin_dir).join("maps").join(spec.name))?;
            objects.push(ObjectId::Map(info.id()));
        }
        for object in &objects {
            ensure!(object.exists()?, "{object:?}");
        }
        // No agent runs.
        drop(opened);
        rig.expect_policy()?;

        let report = dataplane::cleanup(pin_dir)?;
        ensure!(report == CleanupReport { links: 4, maps: maps::ALL.len() }, "{report:?}");
        ensure!(!pin_dir.exists());
        ensure!(rig.reaches(CLOSED)?, "nothing filters any more");
        // Programs and maps are freed behind a grace period.
        let deadline = Instant::now() + Duration::from_secs(10);
        for object in objects {
            while object.exists()? {
                ensure!(Instant::now() < deadline, "{object:?} is still there");
                thread::sleep(Duration::from_millis(10));
            }
        }
        ensure!(dataplane::cleanup(pin_dir)? == CleanupReport::default(), "again is fine");
        Ok(())
    });
}

/// aya opens whatever bears the name; user space would then copy by the wrong size.
#[test]
fn a_pinned_map_of_another_shape_is_refused_by_name() {
    sandbox(|pin_dir| {
        let options = Options { pin_dir: pin_dir.to_owned(), mechanism: None };
        drop(dataplane::open(&options)?);
        let pin = version(pin_dir).join("maps/RULES");
        std::fs::remove_file(&pin)?;
        let program = bpf::load("any", &bpf::returns(0))?;
        bpf::pin(&bpf::program_array(&[&program])?, &pin)?;
        let error = dataplane::open(&options).expect_err("a foreign map is refused").to_string();
        for part in ["maps/RULES is (type 3,", "wanted is (type 11,", "np-agent cleanup"] {
            ensure!(error.contains(part), "{error}");
        }
        let error = Pinned::open(pin_dir).expect_err("also for reading");
        ensure!(matches!(error, DataplaneError::MapMismatch { .. }), "{error}");
        dataplane::cleanup(pin_dir)?;
        drop(dataplane::open(&options).context("the remedy works")?);
        Ok(())
    });
}

#[test]
fn a_pin_directory_off_a_bpffs_is_refused_and_not_made() {
    sandbox(|_| {
        let directory = tempfile::tempdir()?;
        let pin_dir = directory.path().join("pins/np-agent");
        let options = Options { pin_dir: pin_dir.clone(), mechanism: None };
        let error = dataplane::open(&options).expect_err("no bpffs");
        ensure!(matches!(&error, DataplaneError::NotBpffs { path } if *path == pin_dir), "{error}");
        ensure!(error.to_string().contains("mount -t bpf bpf /sys/fs/bpf"), "{error}");
        ensure!(!directory.path().join("pins").exists());
        Ok(())
    });
}

/// Indices are counted per network namespace, and pins are named by them.
#[test]
fn links_of_another_namespace_are_not_taken_for_ours() {
    by_links(|pin_dir| {
        let add = "link add name x index 77 type veth peer name y";
        ip(add)?;
        let options = Options { pin_dir: pin_dir.to_owned(), mechanism: None };
        let mut here = dataplane::open(&options)?;
        here.attacher.attach(IfIndex(77), Side::Pod)?;
        let (elsewhere, pin_dir) = (Netns::new()?, pin_dir.to_owned());
        elsewhere.run(move || {
            ip(add)?;
            let mut there = dataplane::open(&Options { pin_dir, mechanism: None })?;
            let error = there.attacher.attach(IfIndex(77), Side::Pod).expect_err("not ours");
            ensure!(matches!(error, AttachError::Elsewhere { .. }), "{error}");
            ensure!(there.attacher.order(IfIndex(77))?[0].ours.is_none());
            Ok(())
        })?;
        ensure!(here.attacher.order(IfIndex(77))?[0].ours == Some(0), "and it stays attached");
        Ok(())
    });
}

/// A hostile pod's frame can be too short to hold the header that its ethertype promises; a test
/// run refuses such frames, a wire does not.
#[test]
fn a_frame_too_short_to_read_is_dropped() {
    by_each_mechanism(|pin_dir, mechanism| {
        let rig = Rig::new(pin_dir, mechanism)?;
        let mut opened = rig.open()?;
        rig.enforce(&mut opened)?;
        let short = |ethertype, lengths: std::ops::Range<usize>| {
            lengths.map(move |length| wire::ethernet(ethertype, &[0x45; 60][..length]))
        };
        let frames: Vec<_> = short(ETH_P_IPV4, 1..20).chain(short(ETH_P_IPV6, 1..40)).collect();
        let expected = frames.len() as u64;
        let before = opened.maps.counters()?;
        rig.a.netns.run(move || wire::send_frames(ifindex("eth0")?, &frames))?;
        let counted = opened.maps.counters()?.since(&before);
        let malformed = counted.packets(Hook::FromPod, Reason::Malformed);
        ensure!(malformed == expected, "{malformed} of {expected}");
        Ok(())
    });
}

#[test]
fn a_full_map_says_so_and_keeps_what_it_holds() {
    sandbox(|pin_dir| {
        let mut opened =
            dataplane::open(&Options { pin_dir: pin_dir.to_owned(), mechanism: None })?;
        let address = |n: u32| std::net::Ipv4Addr::from(0x0a00_0000 + n);
        let local = |n| Op::SetLocal(Addr::from_v4(address(n).octets()), EndpointId::new(1));
        // A /31 each: shorter than an address, so it is in the trie.
        let cidr = |n: u32| {
            let net = ipnet::Ipv4Net::new(address(2 * n), 31).expect("a valid length");
            Op::SetPeer(net.into(), ClassId::new(1))
        };
        let full = |maps: &mut dataplane::Maps, op: &dyn Fn(u32) -> Op, room: u32| {
            for n in 0..room {
                maps.apply(&op(n))?;
            }
            let error = maps.apply(&op(room)).expect_err("there is no room");
            ensure!(error.is_full(), "{error}");
            ensure!(error.to_string().contains(&format!("full at {room} entries")), "{error}");
            maps.apply(&op(0)).context("what is there can be written again")?;
            Ok(error)
        };
        let error = full(&mut opened.maps, &local, maps::LOCAL.max_entries)?;
        ensure!(error.source.raw_os_error() == Some(libc::E2BIG) && error.map() == "LOCAL");
        let error = full(&mut opened.maps, &cidr, maps::CIDRS.max_entries)?;
        ensure!(error.source.raw_os_error() == Some(libc::ENOSPC) && error.map() == "CIDRS");
        let tables = opened.maps.tables()?;
        ensure!(tables.local.len() == maps::LOCAL.max_entries as usize);
        ensure!(tables.peers.len() == maps::CIDRS.max_entries as usize);
        Ok(())
    });
}

#[test]
fn a_reader_finds_one_record_or_the_next_and_nothing_between() {
    sandbox(|pin_dir| {
        let mut opened =
            dataplane::open(&Options { pin_dir: pin_dir.to_owned(), mechanism: None })?;
        let room = (maps::RECORD_CHUNKS - 1) / 2 * maps::RECORD_CHUNK;
        opened.maps.store_record(&vec![0; room])?;
        let error = opened.maps.store_record(&vec![1; room + 1]).expect_err("too large");
        ensure!(matches!(error, DataplaneError::RecordTooLarge { .. }), "{error}");
        ensure!(opened.maps.record() == Some(vec![0; room]), "the one before stays");

        let reader = Pinned::open(pin_dir)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let reading = thread::spawn(move || -> anyhow::Result<u64> {
            let mut reads = 0;
            while !stopped.load(Ordering::Relaxed) {
                let record = reader.record().context("there always is a record")?;
                let first = *record.first().context("no record is empty")?;
                ensure!(record.iter().all(|byte| *byte == first), "a record is torn");
                reads += 1;
            }
            Ok(reads)
        });
        for n in 0..200u8 {
            opened.maps.store_record(&vec![n; 1 + usize::from(n) * 500])?;
            // As far apart as an agent's changes are at the least.
            thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, Ordering::Relaxed);
        ensure!(join(reading)? > 0);
        Ok(())
    });
}
