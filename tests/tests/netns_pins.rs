//! Pinned links and maps with real packets: enforcement outlives the agent, an agent adopts what
//! it finds, and cleanup leaves nothing.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use aya::maps::MapInfo;
use np_agent::dataplane::{
    self, AttachError, CleanupReport, DataplaneError, Mechanism, Opened, Options, Pinned, Side,
    TcSide,
};
use np_agent::model::IfIndex;
use np_agent::plan::{Op, PortPrefix, RulePrefix, Tables};
use np_common::addr::Addr;
use np_common::config::Config;
use np_common::direction::Hook;
use np_common::endpoint::{EndpointId, Iface, PolicyWord, Role};
use np_common::maps;
use np_common::packet::{ETH_P_IPV4, ETH_P_IPV6, UDP};
use np_common::rules::{ClassId, RuleSetId};
use np_common::verdict::Reason;
use np_tests::bpf::{self, ObjectId, Place, TcSide as TestSide};
use np_tests::sandbox::{Netns, command, ifindex, ip, join, sandbox};
use np_tests::wire;

/// The port that pod b accepts, and one that it does not.
const OPEN: u16 = 5000;
const CLOSED: u16 = 6000;

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
            let info = MapInfo::from_pin(pin_dir.join("v1/maps").join(spec.name))?;
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
        let pin = pin_dir.join("v1/maps/RULES");
        std::fs::remove_file(&pin)?;
        let program = bpf::load("any", &bpf::returns(0))?;
        bpf::pin(&bpf::program_array(&[&program])?, &pin)?;
        let error = dataplane::open(&options).expect_err("a foreign map is refused").to_string();
        for part in ["v1/maps/RULES is (type 3,", "wanted is (type 11,", "np-agent cleanup"] {
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
        // A /31 each: shorter than an address, so it lies in the trie.
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

/// Two pods behind one node, which routes between them.
struct Rig {
    mechanism: Mechanism,
    pin_dir: PathBuf,
    a: Pod,
    b: Pod,
}

struct Pod {
    netns: Netns,
    id: EndpointId,
    ifindex: IfIndex,
    address: String,
    open: UdpSocket,
    closed: UdpSocket,
}

/// A test of what holds however programs get to devices: once for each way this kernel has.
fn by_each_mechanism(test: fn(&Path, Mechanism) -> anyhow::Result<()>) {
    for mechanism in mechanisms() {
        println!("by {}", mechanism.name());
        sandbox(move |pin_dir| test(pin_dir, mechanism));
    }
}

/// A test of links. A kernel without them has nothing to test, and must be one from before 6.6.
fn by_links(test: fn(&Path) -> anyhow::Result<()>) {
    if mechanisms().contains(&Mechanism::Tcx) {
        return sandbox(test);
    }
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let mut numbers = release.split('.').map_while(|number| number.parse::<u32>().ok());
    assert!((numbers.next(), numbers.next()) < (Some(6), Some(6)), "{release} lacks TCX");
    println!("Linux {} has no TCX: nothing to test", release.trim());
}

fn mechanisms() -> Vec<Mechanism> {
    match Mechanism::of_kernel().expect("the kernel can be asked") {
        Mechanism::Tcx => vec![Mechanism::Tcx, Mechanism::Clsact],
        Mechanism::Clsact => vec![Mechanism::Clsact],
    }
}

impl Rig {
    fn new(pin_dir: &Path, mechanism: Mechanism) -> anyhow::Result<Self> {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        let (a, b) = (Pod::new("a", 1)?, Pod::new("b", 2)?);
        let rig = Self { mechanism, pin_dir: pin_dir.to_owned(), a, b };
        ensure!(rig.reaches(OPEN)? && rig.reaches(CLOSED)?, "the network works without policy");
        Ok(rig)
    }

    fn open(&self) -> anyhow::Result<Opened> {
        let mechanism = Some(self.mechanism);
        Ok(dataplane::open(&Options { pin_dir: self.pin_dir.clone(), mechanism })?)
    }

    /// Pod b is isolated for ingress but for UDP port OPEN. Returns what the maps then hold.
    fn enforce(&self, opened: &mut Opened) -> anyhow::Result<Tables> {
        let rule_set = RuleSetId::new(1);
        let ports = PortPrefix::ports(UDP, OPEN, 16);
        let mut ops = vec![
            Op::SetConfig(Config::new(1, false)),
            Op::SetRule(RulePrefix { rule_set, class: ClassId::NONE, ports }),
            Op::SetPolicy(self.b.id, PolicyWord::new(Some(rule_set), None)),
        ];
        for pod in [&self.a, &self.b] {
            let addr = Addr::from(pod.addr(0).ip());
            ops.push(Op::SetAddrs(pod.id, [addr, Addr::UNSPECIFIED]));
            ops.push(Op::SetLocal(addr, pod.id));
            ops.push(Op::SetIface(Iface::new(pod.ifindex.0, Role::Pod, pod.id)));
        }
        let mut tables = opened.tables.clone();
        for op in ops {
            opened.maps.apply(&op)?;
            op.apply(&mut tables);
        }
        self.attach(opened)?;
        ensure!(opened.maps.tables()? == tables);
        Ok(tables)
    }

    fn attach(&self, opened: &mut Opened) -> anyhow::Result<()> {
        for pod in [&self.a, &self.b] {
            opened.attacher.attach(pod.ifindex, Side::Pod)?;
        }
        Ok(())
    }

    /// Whether a datagram of pod a, from a new port each time, comes to a port of pod b.
    fn reaches(&self, port: u16) -> anyhow::Result<bool> {
        let to = if port == OPEN { &self.b.open } else { &self.b.closed };
        self.b.received(to)?;
        self.a.socket(0)?.send_to(b"hello", self.b.addr(port))?;
        Ok(self.b.received(to)? == 1)
    }

    fn expect_policy(&self) -> anyhow::Result<()> {
        ensure!(self.reaches(OPEN)?, "the open port is closed");
        ensure!(!self.reaches(CLOSED)?, "the closed port is open");
        Ok(())
    }

    /// The ids of the pinned links, in order; filters have none.
    fn pins(&self) -> anyhow::Result<Vec<u32>> {
        let mut ids = Vec::new();
        if self.mechanism == Mechanism::Clsact {
            return Ok(ids);
        }
        for pod in [&self.a, &self.b] {
            for side in ["ingress", "egress"] {
                let name = format!("{}-{side}", pod.ifindex.0);
                let link = bpf::open_pin(&self.pin_dir.join("v1/links").join(name))?;
                ids.push(bpf::link_ids(&link)?.0);
            }
        }
        Ok(ids)
    }

    /// The ids of our programs at the pods' devices, in order.
    fn program_ids(&self, opened: &Opened) -> anyhow::Result<Vec<u32>> {
        let mut ids = Vec::new();
        for pod in [&self.a, &self.b] {
            for chain in opened.attacher.order(pod.ifindex)? {
                let ours = chain.ours.with_context(|| format!("{chain:?}"))?;
                ids.push(chain.programs[ours]);
            }
        }
        Ok(ids)
    }
}

impl Pod {
    fn new(name: &str, number: u16) -> anyhow::Result<Self> {
        let netns = Netns::new()?;
        let (host, path) = (format!("{name}-host"), netns.path());
        let path = path.display();
        ip(&format!("link add {host} type veth peer name eth0 netns {path}"))?;
        ip(&format!("address add 10.0.{number}.1/24 dev {host}"))?;
        ip(&format!("link set {host} up"))?;
        let address = format!("10.0.{number}.2");
        let inside = address.clone();
        let (open, closed) = netns.run(move || {
            ip(&format!("address add {inside}/24 dev eth0"))?;
            ip("link set eth0 up")?;
            ip(&format!("route add default via 10.0.{number}.1"))?;
            Ok((bind(&inside, OPEN)?, bind(&inside, CLOSED)?))
        })?;
        let (id, ifindex) = (EndpointId::new(number), ifindex(&host)?);
        Ok(Self { netns, id, ifindex, address, open, closed })
    }

    fn addr(&self, port: u16) -> SocketAddr {
        format!("{}:{port}", self.address).parse().expect("a valid address")
    }

    fn socket(&self, port: u16) -> anyhow::Result<UdpSocket> {
        let address = self.address.clone();
        self.netns.run(move || bind(&address, port))
    }

    /// How many datagrams a socket has got, waiting a little for the first.
    fn received(&self, socket: &UdpSocket) -> anyhow::Result<u64> {
        let mut received = 0;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        loop {
            match socket.recv(&mut [0; 64]) {
                Ok(_) => received += 1,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
            socket.set_read_timeout(Some(Duration::from_millis(1)))?;
        }
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(received)
    }
}

fn bind(address: &str, port: u16) -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind(format!("{address}:{port}"))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(socket)
}
