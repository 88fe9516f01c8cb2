//! What a user reads: why the agent cannot start, and what `check` finds.

use std::fs;
use std::path::Path;
use std::process::Output;

use np_agent::dataplane::Mechanism;
use np_tests::agent::agent_binary;
use np_tests::bpf::{self, Place, TC_ACT_UNSPEC, TcSide};

use crate::world::{CLIENT, World, device_of};

/// Where a start is to take place.
struct Start<'a> {
    manifests: &'a Path,
    pin_dir: &'a Path,
    run_dir: &'a Path,
    /// What takes capabilities away first.
    wrapper: &'a [&'a str],
}

impl Start<'_> {
    /// Runs an agent that is expected to end by itself.
    fn output(&self, world: &World) -> Output {
        let binary = agent_binary().expect("np-agent is built");
        let mut words = self.wrapper.iter().chain(&["timeout", "20"]);
        let mut command = world.node().command(words.next().expect("there is a program"));
        command.args(words).arg(binary).args(["--node", "node-1"]);
        command.arg("--manifests").arg(self.manifests);
        command.arg("--pin-dir").arg(self.pin_dir).arg("--run-dir").arg(self.run_dir);
        command.output().expect("the program runs")
    }

    /// That it ends with exit code 1 and names all of these.
    #[track_caller]
    fn assert_refused(&self, world: &World, names: &[&str]) {
        let output = self.output(world);
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{err}");
        assert!(!err.contains("panicked"), "{err}");
        let message = err.lines().last().unwrap_or_default();
        assert!(message.starts_with("np-agent: "), "{err}");
        for name in names {
            assert!(message.contains(name), "{name:?} is not in: {message}");
        }
    }
}

/// What setpriv calls the loss of a capability.
fn flag(capability: &str) -> String {
    format!("-{}", capability.trim_start_matches("CAP_").to_lowercase())
}

#[test]
fn a_start_that_cannot_be_names_the_cause_and_the_remedy() {
    let mut world = World::new(CLIENT);
    let files = tempfile::tempdir().unwrap();
    let (manifests, run_dir) = (world.agents.manifests(), files.path().join("run"));
    let pin_dir = world.agents.pins().join("other");
    let good = Start { manifests: &manifests, pin_dir: &pin_dir, run_dir: &run_dir, wrapper: &[] };

    let missing = files.path().join("nothing-here");
    let name = missing.display().to_string();
    Start { manifests: &missing, ..good }
        .assert_refused(&world, &["--manifests", &name, "name a directory"]);

    let file = files.path().join("file");
    fs::write(&file, "").unwrap();
    Start { manifests: &file, ..good }
        .assert_refused(&world, &["--manifests", "not a directory", "name the directory"]);
    let name = file.display().to_string();
    Start { run_dir: &file, ..good }.assert_refused(&world, &["run directory", &name, "--run-dir"]);

    let plain = files.path().join("pins");
    let name = plain.display().to_string();
    Start { pin_dir: &plain, ..good }
        .assert_refused(&world, &[&name, "not on a bpffs", "mount -t bpf", "--pin-dir"]);
    assert!(!plain.exists());

    let held = world.agent().run_dir().to_owned();
    let name = held.display().to_string();
    Start { run_dir: &held, ..good }
        .assert_refused(&world, &["another np-agent", &name, "stop it", "--run-dir"]);
    world.agent().status().expect("the first agent is as it was");

    for (capability, flag) in
        np_agent::dataplane::capabilities::NEEDED.map(|(name, _)| (name, flag(name)))
    {
        let flag = flag.as_str();
        let wrapper = ["setpriv", "--bounding-set", flag, "--inh-caps", flag];
        Start { wrapper: &wrapper, ..good }
            .assert_refused(&world, &["missing capabilities", capability, "grant them"]);
    }
    good.assert_refused(
        &world,
        &["another np-agent (process", "this network namespace", "stop one"],
    );
    assert!(!pin_dir.exists(), "a start that cannot be leaves no pins");
    world.assert_served(true, false, false);
}

#[test]
fn check_finds_a_program_in_front_of_ours() {
    let mut world = World::new(CLIENT);
    let (code, out, err) = world.agent().subcommand(&["check"]).unwrap();
    assert_eq!(code, 0, "{out}{err}");
    for subject in ["kernel", "capabilities", "bpffs", "netlink", "programs", "ipsec"] {
        let line = out.lines().find(|line| line.split_whitespace().nth(1) == Some(subject));
        let line = line.unwrap_or_else(|| panic!("no line on {subject}: {out}"));
        assert!(line.starts_with("ok "), "{line}");
    }
    for (capability, _) in np_agent::dataplane::capabilities::NEEDED {
        assert!(out.contains(capability), "{capability}: {out}");
    }
    assert!(!out.contains("warn"), "{out}");

    let status = world.agent().status().unwrap();
    let ifindex = device_of(&status, "v-server").unwrap().ifindex;
    let program = bpf::load("neighbour", &bpf::returns(TC_ACT_UNSPEC as i32)).unwrap();
    let id = bpf::program_id(&program).unwrap();
    let node = world.node().clone();
    let pin = world.agents.pins().join("neighbour");
    let link = match Mechanism::of_kernel().unwrap() {
        Mechanism::Tcx => {
            node.run(|| Ok(Some(bpf::attach(&program, ifindex, TcSide::Ingress, Place::First)?)))
        }
        Mechanism::Clsact => bpf::pin(&program, &pin)
            .and_then(|()| bpf::filter(&node, "v-server", TcSide::Ingress, 1, &pin))
            .map(|()| None),
    };
    let link = link.unwrap_or_else(|error| panic!("{error:#}"));
    let (code, out, err) = world.agent().subcommand(&["check"]).unwrap();
    assert_eq!(code, 0, "{out}{err}");
    let warnings: Vec<&str> = out.lines().filter(|line| line.starts_with("warn")).collect();
    let [warning] = warnings.as_slice() else { panic!("{out}") };
    for part in ["v-server", "ingress", &id.to_string(), "before ours"] {
        assert!(warning.contains(part), "{part}: {warning}");
    }
    // It hands on to the next: ours still decide.
    world.assert_served(true, false, false);

    if link.is_none() {
        node.call("tc filter delete dev v-server ingress pref 1 handle 0x1 bpf").unwrap();
    }
    drop(link);
    let (_, out, _) = world.agent().subcommand(&["check"]).unwrap();
    assert!(!out.contains("warn"), "{out}");
}

/// A policy-based tunnel hides from us what it wraps; one of an xfrm interface does not.
#[test]
fn check_names_policy_based_ipsec() {
    let mut world = World::new(CLIENT);
    let tunnel = "xfrm policy add src 100.68.1.0/24 dst 100.68.9.0/24 dir out \
                  tmpl src 192.168.65.10 dst 192.168.65.99 proto esp mode tunnel";
    world.node().ip(tunnel).unwrap();
    let (code, out, err) = world.agent().subcommand(&["check"]).unwrap();
    assert_eq!(code, 0, "{out}{err}");
    let warning = out.lines().find(|line| line.starts_with("warn")).unwrap_or_default();
    for part in ["ipsec", "1 of them", "unjudgeable"] {
        assert!(warning.contains(part), "{part}: {out}");
    }
}
