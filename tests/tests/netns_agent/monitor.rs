//! Which policy dropped this: what `np-agent monitor` says of real traffic.

use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::world::{CLIENT, SETTLE, World, eventually};

/// A default-deny, rules that miss by a port and by a peer, and a sender that may not send.
const POLICIES: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: default}
spec:
  podSelector: {matchLabels: {app: stranger}}
  policyTypes: [Ingress]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: who-may, namespace: default}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
  ingress:
    - from: [{podSelector: {matchLabels: {app: client}}}]
      ports: [{protocol: TCP, port: 81}]
    - from: [{podSelector: {matchLabels: {app: nobody}}}]
      ports: [{protocol: TCP, port: 80}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: guest-out, namespace: default}
spec:
  podSelector: {matchLabels: {app: guest}}
  policyTypes: [Egress]
  egress:
    - to: [{podSelector: {matchLabels: {app: client}}}]
";

/// Lines of JSON that the agent remembers.
#[track_caller]
fn remembered(world: &mut World, args: &[&str]) -> Vec<Value> {
    let args = [args, &["-o", "json"]].concat();
    let (code, out, err) = world.agent().monitor(&args).expect("it runs");
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    out.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// The first event that the agent remembers of a connection that was denied.
#[track_caller]
fn denied(world: &mut World, from: &str, to: &str, port: u16) -> Value {
    world.assert_reaches(from, world.address(to), false);
    let (from, to) = (format!("default/{from}"), format!("default/{to}"));
    let mut found = None;
    eventually(&format!("{from} -> {to} is told"), || {
        let lines = remembered(world, &["--from", &from, "--to", &to]);
        found =
            lines.into_iter().find(|line| line["type"] == "event" && line["dst"]["port"] == port);
        found.is_some()
    });
    found.expect("it was found")
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The rules that nearly match, as "policy rule wrong wants".
fn near(event: &Value) -> Vec<String> {
    let text = |miss: &Value, field| miss[field].as_str().unwrap_or_default().to_owned();
    let near = event["near"].as_array().into_iter().flatten();
    near.map(|miss| ["policy", "rule", "wrong", "wants"].map(|field| text(miss, field)).join(" "))
        .collect()
}

#[test]
fn every_denial_is_told_with_its_policies_and_the_nearest_miss() {
    let mut world = World::new(POLICIES);

    let event = denied(&mut world, "client", "stranger", 80);
    assert_eq!(event["version"], 1);
    assert_eq!(event["node"], "node-1");
    assert_eq!(event["verdict"], "denied");
    assert_eq!(event["reason"], "ingress-denied");
    assert_eq!(event["hook"], "to_pod");
    assert_eq!(event["direction"], "ingress");
    assert_eq!(event["device"], "v-stranger");
    assert_eq!(event["protocol"], "TCP");
    assert_eq!(event["changed"], false);
    assert_eq!(event["reply"], false);
    let (src, dst) = (&event["src"], &event["dst"]);
    for (end, name) in [(src, "client"), (dst, "stranger")] {
        assert_eq!(end["kind"], "pod");
        assert_eq!(end["namespace"], "default");
        assert_eq!(end["pod"], name);
        assert_eq!(end["node"], "node-1");
        assert_eq!(end["ip"], world.address(name).to_string());
    }
    assert_eq!(texts(&event["isolated_by"]), ["default/closed"], "by default-deny");
    assert_eq!(near(&event), [""; 0]);

    let event = denied(&mut world, "client", "server", 80);
    assert_eq!(event["reason"], "ingress-denied");
    assert_eq!(texts(&event["isolated_by"]), ["default/who-may"]);
    assert_eq!(
        near(&event),
        [
            "default/who-may spec.ingress[0] port TCP 81",
            "default/who-may spec.ingress[1] peer pods app=nobody of namespace default",
        ],
        "by port"
    );

    let event = denied(&mut world, "stranger", "server", 80);
    assert_eq!(
        near(&event),
        ["default/who-may spec.ingress[1] peer pods app=nobody of namespace default"],
        "by peer"
    );

    let event = denied(&mut world, "guest", "server", 80);
    println!("{event}");
    assert_eq!(event["reason"], "egress-denied", "by the other side's egress");
    assert_eq!(event["direction"], "egress");
    assert_eq!(texts(&event["isolated_by"]), ["default/guest-out"]);
    assert_eq!(texts(&event["policies"]), ["default/guest-out"]);
    assert_eq!(
        near(&event),
        ["default/guest-out spec.egress[0] peer pods app=client of namespace default"]
    );

    let of = |world: &mut World, args: &[&str]| -> Vec<(String, String)> {
        let lines = remembered(world, args);
        let end = |line: &Value, end| line[end]["pod"].as_str().expect("a pod").to_owned();
        let mut ends: Vec<_> =
            lines.iter().map(|line| (end(line, "src"), end(line, "dst"))).collect();
        ends.sort();
        ends.dedup();
        ends
    };
    let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    let server = world.address("server").to_string();
    assert_eq!(of(&mut world, &["--policy", "default/closed"]), [pair("client", "stranger")]);
    assert_eq!(of(&mut world, &["--reason", "egress-denied"]), [pair("guest", "server")]);
    assert_eq!(of(&mut world, &["--pod", "default/guest"]), [pair("guest", "server")]);
    assert_eq!(
        of(&mut world, &["--to", &server, "--last", "10m"]),
        [pair("client", "server"), pair("guest", "server"), pair("stranger", "server")]
    );
    assert_eq!(of(&mut world, &["--verdict", "allowed"]), [], "nobody has asked for it");
    let none = remembered(&mut world, &["--last", "0s"]);
    assert!(none.is_empty(), "{none:?}");

    let (code, table, err) =
        world.agent().monitor(&["--from", "default/client", "--to", "default/server"]).unwrap();
    assert_eq!((code, err.as_str()), (0, ""));
    println!("{}", world.agent().monitor(&[]).unwrap().1);
    let line = table.lines().next().expect("there is one");
    for part in [
        "denied",
        "default/client -> default/server:80 TCP",
        "ingress-denied",
        "isolated by default/who-may; nearest: default/who-may ingress[0] wrong port, it allows TCP 81",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }

    // A pod that is gone keeps its name in the lines about it.
    world.apply("pods.yaml", Some(&without_stranger(&world)));
    let told = of(&mut world, &["--policy", "default/closed"]);
    assert_eq!(told, [pair("client", "stranger")]);
}

/// The manifest of the pods, without one.
fn without_stranger(world: &World) -> String {
    let file = world.agents.manifests().join("pods.yaml");
    let text = std::fs::read_to_string(file).expect("the harness writes it");
    let pods: Vec<&str> = text.split("---\n").filter(|pod| !pod.contains("stranger")).collect();
    assert_ne!(pods.join("---\n"), text, "it was there");
    pods.join("---\n")
}

/// A monitor that follows; it ends with the test.
struct Following {
    child: Child,
    lines: Receiver<String>,
}

impl Following {
    fn new(world: &mut World, args: &[&str]) -> Self {
        let args = [args, &["-o", "json"]].concat();
        let mut child = world.agent().follow(&args).expect("it starts");
        let out = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, lines) = channel();
        // It ends with the monitor, or when nobody listens any more.
        thread::spawn(move || {
            let mut lines = out.lines().map_while(Result::ok);
            while lines.next().is_some_and(|line| sender.send(line).is_ok()) {}
        });
        Self { child, lines }
    }

    /// The next line, if there is one within so long.
    fn within(&self, longest: Duration) -> Option<Value> {
        let line = self.lines.recv_timeout(longest).ok()?;
        Some(serde_json::from_str(&line).expect("a line is JSON"))
    }

    /// Repeats something until a line comes that is about it.
    #[track_caller]
    fn hears(&self, mut act: impl FnMut(), is_it: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + SETTLE;
        while Instant::now() < end {
            act();
            while let Some(line) = self.within(Duration::from_millis(300)) {
                if is_it(&line) {
                    return line;
                }
            }
        }
        panic!("it was not told within {SETTLE:?}");
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn who_follows_is_told_what_is_allowed_and_by_which_rule() {
    let mut world = World::new(POLICIES);
    let following = Following::new(&mut world, &["--verdict", "allowed"]);
    let client = world.address("client");
    let reach = || world.assert_reaches("guest", client, true);
    let event = following.hears(reach, |line| line["src"]["pod"] == "guest");
    assert_eq!(event["reason"], "allowed");
    assert_eq!(event["verdict"], "allowed");
    assert_eq!(event["dst"]["pod"], "client");
    assert_eq!(texts(&event["policies"]), ["default/guest-out"]);
    assert_eq!(event["allowed_by"][0]["rule"], "spec.egress[0]");
    assert_eq!(event["changed"], false);
    assert!(event["direction"].is_null(), "{event}");

    // One event for a connection, however many packets it has.
    let talk = world.talk("client", "guest");
    let event = following.hears(|| (), |line| line["src"]["pod"] == "client");
    assert_eq!(event["reason"], "not-isolated");
    assert!(talk.goes_on(50, Duration::from_secs(10)), "{:?}", talk.progress());
    let port = &event["src"]["port"];
    let lines = remembered(&mut world, &["--from", "default/client"]);
    let same = lines.iter().filter(|line| line["src"]["port"] == *port).count();
    assert_eq!(same, 1, "{lines:#?}");

    // Once nobody follows it, there are no more such lines.
    drop(following);
    eventually("the agent has noticed", || {
        let before = remembered(&mut world, &["--verdict", "allowed"]).len();
        world.assert_reaches("guest", client, true);
        thread::sleep(Duration::from_millis(300));
        remembered(&mut world, &["--verdict", "allowed"]).len() == before
    });
}

#[test]
fn a_policy_that_takes_a_connection_away_is_told_from_the_side_that_opened_it() {
    let mut world = World::new(CLIENT);
    let talk = world.talk("client", "server");
    // What happens later must not be named by what is known now.
    let event = denied(&mut world, "guest", "server", 80);
    assert_eq!(
        near(&event),
        ["default/who-may spec.ingress[0] peer pods app=client of namespace default"]
    );
    world.apply(np_tests::agent::POLICIES, Some(&CLIENT.replace("[client]", "[guest]")));
    assert!(!talk.goes_on(1, Duration::from_secs(1)));
    eventually("it is told", || {
        let lines = remembered(&mut world, &["--policy", "default/who-may"]);
        lines.iter().any(|line| {
            line["src"]["pod"] == "client"
                && line["dst"]["pod"] == "server"
                && line["dst"]["port"] == 80
                && line["near"][0]["wrong"] == "peer"
                && line["changed"] == false
        })
    });
}

/// So many datagrams that no rule allows.
const FLOOD: usize = 500;

#[test]
fn events_and_what_was_suppressed_are_what_was_dropped() {
    let mut world = World::new(POLICIES);
    let server = world.address("server");
    let before = world.agent().status().unwrap().count("to_pod", "ingress-denied");
    let sent = world.pod("stranger").run(move || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        for _ in 0..FLOOD {
            socket.send_to(b"let me in", (server, 8443))?;
        }
        Ok(())
    });
    sent.expect("they are sent");
    // Others are heard all the same.
    let event = denied(&mut world, "client", "server", 80);
    assert_eq!(event["src"]["pod"], "client");

    let mut told = (0, 0);
    eventually("every drop is told or counted", || {
        let lines = remembered(&mut world, &["--pod", "default/stranger"]);
        let events =
            lines.iter().filter(|line| line["type"] == "event" && line["protocol"] == "UDP");
        let suppressed = lines.iter().filter(|line| line["type"] == "suppressed");
        for line in suppressed.clone() {
            assert_eq!(line["pod"], "default/stranger");
            assert_eq!(line["sends"], true);
        }
        let suppressed: u64 = suppressed.filter_map(|line| line["events"].as_u64()).sum();
        told = (events.count() as u64, suppressed);
        told.0 + told.1 == FLOOD as u64
    });
    println!("{} events and {} suppressed of {FLOOD}", told.0, told.1);
    assert!(told.0 >= 32 && told.1 > 0, "{told:?}");
    let counted = world.agent().status().unwrap().count("to_pod", "ingress-denied") - before;
    assert!(counted > FLOOD as u64, "the flood and the client's SYNs: {counted}");
}

#[test]
fn a_monitor_says_what_is_wrong_with_what_it_is_asked_and_when_no_agent_answers() {
    let mut world = World::new(CLIENT);
    for (args, part) in [
        (["--reason", "denied"], "is not a reason"),
        (["--policy", "who-may"], "is not namespace/name"),
        (["--pod", "100.68.1.10"], "is not namespace/name"),
    ] {
        let (code, out, err) = world.agent().monitor(&args).unwrap();
        assert_eq!((code, out.as_str()), (1, ""), "{args:?}: {err}");
        assert!(err.starts_with("np-agent: ") && err.contains(part), "{err}");
    }
    // A misspelt option or form is clap's to refuse.
    let (code, _, err) = world.agent().monitor(&["--from", "server"]).unwrap();
    assert_eq!(code, 2);
    assert!(err.contains("neither namespace/name nor an address"), "{err}");

    let socket = world.agent().run_dir().join("agent.events.sock");
    assert!(socket.exists());
    let mut following = Following::new(&mut world, &[]);
    let stranger = || world.assert_reaches("stranger", world.address("server"), false);
    following.hears(stranger, |line| line["src"]["pod"] == "stranger");
    world.stop();
    let ended = following.child.wait().expect("it ends");
    assert_eq!(ended.code(), Some(1), "who follows is not left waiting");
    assert!(!socket.exists());
    let (code, out, err) = world.agent().monitor(&[]).unwrap();
    assert_eq!((code, out.as_str()), (1, ""));
    for part in ["no agent answers", "agent.events.sock", "--run-dir"] {
        assert!(err.contains(part), "{part}: {err}");
    }

    // What a killed agent leaves there, the next one takes, or cleanup removes.
    for _ in 0..2 {
        world.start();
        world.agent().kill().expect("it runs");
        assert!(socket.exists());
    }
    let (code, _, err) = world.agent().subcommand(&["cleanup"]).unwrap();
    assert_eq!(code, 0, "{err}");
    assert!(!socket.exists());
}

/// What happens to a client that stops reading must not reach the agent.
#[test]
fn a_client_that_does_not_read_holds_nobody_up() {
    let mut world = World::new(POLICIES);
    let stopped = Following::new(&mut world, &[]);
    let client = || world.assert_reaches("client", world.address("server"), false);
    stopped.hears(client, |line| line["src"]["pod"] == "client");
    let pid = Pid::from_raw(i32::try_from(stopped.child.id()).expect("a process id"));
    kill(pid, Signal::SIGSTOP).expect("it is ours");
    for _ in 0..3 {
        denied(&mut world, "stranger", "server", 80);
        world.wait("it answers", |status| status.ready);
    }
    kill(pid, Signal::SIGCONT).expect("it is ours");
    stopped.hears(|| (), |line| line["src"]["pod"] == "stranger");
}
