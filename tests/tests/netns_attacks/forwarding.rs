//! A pod that forwards for others: what is behind it passes when the pod names it and the operator
//! grants it, and not otherwise.
//!
//! ```text
//!  behind 10.8.0.5 ──veth── attacker, with ip_forward ──veth── node-1 ── open, choosy, node-2
//! ```

use std::time::Duration;

use anyhow::{Context, Result};
use np_tests::address::{Family, twin};
use np_tests::manifests;
use np_tests::matrix;
use np_tests::netns::Namespace;
use np_tests::probe::conversation::Conversation;
use np_tests::probe::{IMPATIENCE, Kind, Outcome, PATIENCE, probe};
use np_tests::topology::plan::address;
use np_tests::wire::datagram;

use crate::field::{Field, ip_packet};

/// The clients, and the block of the node's pods.
const PREFIXES: &str = "10.8.0.0/24, fd00:10:8::/64, 100.68.1.0/24, fd00:100:68:1::/64";
const GRANT: &str = "10.8.0.0/16,fd00:10:8::/48,100.68.0.0/16,fd00:100:68::/48";
const CLIENT: &str = "10.8.0.5";
/// Nobody's, in the block of the node's pods.
const FREE: &str = "100.68.1.77";

/// Nobody opens anything to the forwarding pod, and it opens TCP 80 to `open` only.
const ISOLATED: &str = r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: gateway, namespace: default}
spec:
  podSelector: {matchLabels: {app: attacker}}
  policyTypes: [Ingress, Egress]
  egress:
    - to: [{podSelector: {matchLabels: {app: open}}}]
      ports: [{port: 80}]
"#;

#[test]
fn a_pod_forwards_for_what_it_names_and_is_granted() -> Result<()> {
    let row = matrix::row("Attacks", "further source prefixes of a pod that forwards");
    let mut field = Field::new()?;
    let behind = behind_the_attacker(&field)?;
    through(&mut field, &behind, "without an agent", true)?;
    other_pods(&mut field, "without an agent", [true, true])?;

    field.start_agents()?;
    through(&mut field, &behind, "neither named nor granted", false)?;
    name(&mut field, Some(PREFIXES))?;
    through(&mut field, &behind, "named and not granted", false)?;
    refused_is_reported(&mut field)?;
    name(&mut field, None)?;
    grant(&mut field, &["--source-prefixes", GRANT])?;
    through(&mut field, &behind, "granted and not named", false)?;

    let longer = format!("{PREFIXES}, 10.9.0.0/24");
    name(&mut field, Some(&longer))?;
    through(&mut field, &behind, "named and granted", true)?;
    other_pods(&mut field, "named and granted", [true, false])?;
    policy_is_the_pods_own(&mut field, &behind)?;

    // Over a restart, also one that grants nothing any more.
    grant(&mut field, &["--source-prefixes", GRANT])?;
    through(&mut field, &behind, "after a restart", true)?;
    let talk = Conversation::tcp(&behind, field.v4("open"), 80)?;
    let goes_on = talk.goes_on(3, Duration::from_secs(3));
    field.expect("a connection through the pod", goes_on, talk.progress());
    name(&mut field, None)?;
    let stalls = talk.stalls(Duration::from_millis(400));
    field.expect("the connection, not named any more", stalls, talk.progress());
    drop(talk);
    through(&mut field, &behind, "not named any more", false)?;
    name(&mut field, Some(PREFIXES))?;
    through(&mut field, &behind, "named again", true)?;
    grant(&mut field, &[])?;
    through(&mut field, &behind, "not granted any more", false)?;
    field.report();
    row.holds();
    Ok(())
}

/// A network behind the attacker's pod, with routes to it.
fn behind_the_attacker(field: &Field) -> Result<Namespace> {
    let behind = Namespace::new("behind")?;
    let gateway = field.cluster.namespace("attacker")?;
    gateway.sysctls(&[("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")])?;
    gateway.ip(&format!(
        "link add lan type veth peer name eth0 netns {}\n\
         addr add 10.8.0.1/24 dev lan\n\
         addr add fd00:10:8::1/64 dev lan nodad\n\
         link set lan up\n",
        behind.path().display()
    ))?;
    behind.ip(&format!(
        "link set lo up\n\
         addr add {CLIENT}/24 dev eth0\n\
         addr add {}/64 dev eth0 nodad\n\
         link set eth0 up\n\
         route add default via 10.8.0.1\n\
         route add default via fd00:10:8::1\n",
        twin(address(CLIENT))
    ))?;
    let route = |to: &str, device: &str| {
        let via = Family::BOTH.map(|family| field.cluster.address(to, family));
        let [v4, v6] = via;
        anyhow::Ok(format!(
            "route add 10.8.0.0/24 via {} dev {device}\nroute add fd00:10:8::/64 via {} dev {device}\n",
            v4?, v6?
        ))
    };
    field.cluster.namespace("node-1")?.ip(&route("attacker", "v-attacker")?)?;
    field.cluster.namespace("node-2")?.ip(&route("node-1", "eth0")?)?;
    Ok(behind)
}

/// The client behind the pod to a pod of this node and to one of the other.
fn through(field: &mut Field, behind: &Namespace, what: &str, passes: bool) -> Result<()> {
    let patience = if passes { PATIENCE } else { IMPATIENCE };
    for family in Family::BOTH {
        for name in ["open", "remote"] {
            let before = field.count("node-1", "from_pod", "source-address")?;
            let to = field.cluster.address(name, family)?;
            let outcome = probe(behind, to, Kind::Tcp(80), patience);
            let after = field.count("node-1", "from_pod", "source-address")?;
            let right = match &outcome {
                Outcome::Reply(reply) => {
                    passes && reply.source == Some(family.address(address(CLIENT)))
                }
                Outcome::Timeout => !passes && after > before,
                _ => false,
            };
            let what = format!("{what}: to {name} by {}", family.name());
            field.expect(&what, right, (outcome, before, after));
        }
    }
    Ok(())
}

/// The pod as nobody in the block of pods, and as another pod.
fn other_pods(field: &mut Field, what: &str, passes: [bool; 2]) -> Result<()> {
    for family in Family::BOTH {
        let to = field.cluster.address("open", family)?;
        let sources = [family.address(address(FREE)), field.cluster.address("choosy", family)?];
        for (source, passes) in sources.into_iter().zip(passes) {
            let m = field.marker();
            let packet = [ip_packet(datagram(source, to, 5000, 9, &m).bytes())];
            let before = field.count("node-1", "from_pod", "source-address")?;
            field.check(
                &format!("{what}: as {source}"),
                "attacker",
                "open",
                &packet,
                &m,
                passes,
            )?;
            let after = field.count("node-1", "from_pod", "source-address")?;
            let counted = passes || after > before;
            field.expect(&format!("{what}: as {source}, counted"), counted, (before, after));
        }
    }
    Ok(())
}

/// What is forwarded is judged by the pod's policy, and replies to it pass to the isolated pod.
fn policy_is_the_pods_own(field: &mut Field, behind: &Namespace) -> Result<()> {
    let open = field.cluster.namespace("open")?.clone();
    for isolated in [false, true] {
        let agents = field.agents.as_mut().context("the agents run")?;
        agents.apply("gateway.yaml", isolated.then_some(ISOLATED))?;
        for family in Family::BOTH {
            let client = family.address(address(CLIENT));
            let to = |name| field.cluster.address(name, family);
            let (near, far) = (to("open")?, to("remote")?);
            let patience = if isolated { IMPATIENCE } else { PATIENCE };
            let outcomes = [
                (probe(behind, near, Kind::Tcp(80), PATIENCE), true),
                (probe(behind, far, Kind::Tcp(80), patience), !isolated),
                (probe(behind, near, Kind::Echo, patience), !isolated),
                (probe(&open, client, Kind::Echo, patience), !isolated),
            ];
            for (at, (outcome, passes)) in outcomes.into_iter().enumerate() {
                let what = format!("{} {at}, isolated {isolated}", family.name());
                field.expect(&what, outcome.replied() == passes, outcome);
            }
        }
    }
    let agents = field.agents.as_mut().context("the agents run")?;
    agents.apply("gateway.yaml", None).map(drop)
}

/// Writes the annotation of the attacker's pod.
fn name(field: &mut Field, prefixes: Option<&str>) -> Result<()> {
    let files = manifests::files(&field.cluster.spec);
    let (file, pods) = files.iter().find(|(file, _)| *file == "pods.yaml").context("pods")?;
    let pod = "  name: attacker\n";
    let annotated = prefixes.map_or(pods.clone(), |prefixes| {
        let annotation = format!("np-agent.io/source-prefixes: \"{prefixes}\"");
        pods.replace(pod, &format!("{pod}  annotations:\n    {annotation}\n"))
    });
    let agents = field.agents.as_mut().context("the agents run")?;
    agents.apply(file, Some(&annotated)).map(drop)
}

/// Restarts the agent of the pod's node with these arguments.
fn grant(field: &mut Field, args: &[&str]) -> Result<()> {
    let agents = field.agents.as_mut().context("the agents run")?;
    let agent = agents.on("node-1")?;
    agent.terminate()?;
    agent.extra_args = args.iter().map(|arg| (*arg).to_owned()).collect();
    agent.start()?;
    agents.find_pods(&field.cluster)
}

fn refused_is_reported(field: &mut Field) -> Result<()> {
    let agent = field.agents.as_mut().context("the agents run")?.on("node-1")?;
    let (_, status, _) = agent.subcommand(&["status"])?;
    let told = "Pod default/attacker: np-agent.io/source-prefixes: \"10.8.0.0/24\": not granted on \
                this node; give its agent --source-prefixes";
    let (in_status, in_log) = (status.contains(told), agent.log().contains(told));
    field.expect("the status tells", in_status, status);
    field.expect("the log tells", in_log, "see above");
    Ok(())
}
