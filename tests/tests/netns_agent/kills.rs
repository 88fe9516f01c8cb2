//! SIGKILL at any moment: what is allowed continues, what is denied stays denied.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use np_tests::agent::POLICIES;
use np_tests::matrix;
use np_tests::netns::Namespace;

use crate::world::{CLIENT, World, assert_lost_nothing, client_and_guest};

/// Datagrams, each of a flow of its own, one about every millisecond.
struct Flood {
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    sent: AtomicU64,
    answered: AtomicU64,
}

impl Flood {
    fn start(from: &Namespace, to: Ipv4Addr) -> Self {
        let counts = Arc::new(Counts::default());
        let (theirs, from) = (Arc::clone(&counts), from.clone());
        let thread = thread::spawn(move || {
            from.enter().expect("the namespace is there");
            // The latest sockets stay open: an answer may take its time.
            let mut open = VecDeque::new();
            while !theirs.stop.load(Ordering::Relaxed) {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
                socket.connect(SocketAddr::from((to, 8443))).expect("a route");
                socket.set_nonblocking(true).expect("a socket");
                socket.send(b"flood").expect("nothing refuses");
                theirs.sent.fetch_add(1, Ordering::Relaxed);
                open.push_back(socket);
                if open.len() > 200 {
                    open.pop_front();
                }
                thread::sleep(Duration::from_millis(1));
                open.retain(|socket| {
                    let answered = socket.recv(&mut [0; 64]).is_ok();
                    theirs.answered.fetch_add(u64::from(answered), Ordering::Relaxed);
                    !answered
                });
            }
        });
        Self { counts, thread: Some(thread) }
    }

    fn sent(&self) -> u64 {
        self.counts.sent.load(Ordering::Relaxed)
    }

    fn answered(&self) -> u64 {
        self.counts.answered.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.counts.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("a flood ended early");
        }
    }
}

/// Kills and starts the agent; `edit` is called with each round's number right before a kill.
fn survives_kills(world: &mut World, mut edit: impl FnMut(&World, u64)) {
    let server = world.address("server");
    let talk = world.talk("client", "server");
    let allowed = Flood::start(world.pod("client"), server);
    let denied = Flood::start(world.pod("stranger"), server);
    for round in 0..6 {
        let (allowed_before, denied_before) = (allowed.answered(), denied.sent());
        edit(world, round);
        world.agent().kill().expect("it runs");
        // The second half of the rounds kills the next one while it starts.
        if round >= 3 {
            world.agent().start().expect("it is not running");
            thread::sleep(Duration::from_millis(25 * (round - 2)));
            world.agent().kill().expect("it runs");
        }
        thread::sleep(Duration::from_millis(30));
        world.start();
        assert!(allowed.answered() > allowed_before, "the allowed flood gets through");
        assert!(denied.sent() > denied_before, "the denied flood goes on");
        assert_eq!(denied.answered(), 0, "round {round}: of {} denied packets", denied.sent());
    }
    assert_lost_nothing(&talk);
    assert_eq!(denied.answered(), 0, "of {} denied packets", denied.sent());
}

#[test]
fn a_killed_agent_lets_nothing_through_and_cuts_nothing() {
    let row = matrix::row("Life", "the agent killed and started again under traffic");
    let mut world = World::new(CLIENT);
    survives_kills(&mut world, |_, _| {});
    world.assert_served(true, false, false);
    row.holds();
}

#[test]
fn an_edit_around_a_kill_is_applied_by_the_next_start() {
    let mut world = World::new(CLIENT);
    survives_kills(&mut world, |world, round| {
        let policy = if round % 2 == 0 { client_and_guest() } else { CLIENT.to_owned() };
        world.write(POLICIES, Some(&policy));
        // From "not even noticed" to "being written".
        thread::sleep(Duration::from_millis(round * 3));
    });
    // The last round withdrew what the one before it had given.
    world.assert_served(true, false, false);
    world.write(POLICIES, Some(&client_and_guest()));
    world.agent().kill().unwrap();
    world.start();
    world.assert_served(true, true, false);
}

/// Another version has maps of its own and takes over link by link; nobody is asked twice.
#[test]
fn an_upgrade_to_another_version_lets_nothing_through_and_cuts_nothing() {
    let mut world = World::new(CLIENT);
    let server = world.address("server");
    let talk = world.talk("client", "server");
    let allowed = Flood::start(world.pod("client"), server);
    let denied = Flood::start(world.pod("stranger"), server);
    let links = |world: &mut World| -> Vec<String> {
        let pins = world.agent().pin_dir().to_owned();
        let versions = std::fs::read_dir(pins).expect("the agent has pins");
        versions
            .map(|version| version.expect("an entry").file_name().into_string().expect("UTF-8"))
            .collect()
    };
    for abi in ["9001", "9002", "9001"] {
        world.stop();
        let (allowed_before, denied_before) = (allowed.answered(), denied.sent());
        world.agent().extra_args = vec!["--abi".to_owned(), abi.to_owned()];
        world.start();
        thread::sleep(Duration::from_millis(200));
        assert!(allowed.answered() > allowed_before, "the allowed flood gets through");
        assert!(denied.sent() > denied_before, "the denied flood goes on");
        assert_eq!(denied.answered(), 0, "{abi}: of {} denied packets", denied.sent());
        assert_eq!(links(&mut world), [format!("v{abi}")], "the other version is gone");
        let log = world.agent().log();
        assert_eq!(log.matches("took up the pod again").count() % 4, 0, "{log}");
    }
    assert_lost_nothing(&talk);
    let lost = allowed.sent() - allowed.answered();
    println!(
        "{} denied, 0 answered; {} allowed, {lost} not answered",
        denied.sent(),
        allowed.sent()
    );
    assert!(lost < 20, "{lost} of {} were not answered", allowed.sent());
    world.assert_served(true, false, false);
}
