//! The harness itself: without agents every cell of a cluster is reachable, through Services,
//! NodePorts and host ports, with the source addresses kube-proxy's rules give. What a story then
//! denies was denied by the agent.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use np_tests::address::Family;
use np_tests::demo::terminal::Terminal;
use np_tests::probe::conversation::Conversation;
use np_tests::proxy::Mode;
use np_tests::story::cluster::spec;
use np_tests::story::matrix::{Expected, Table};
use np_tests::topology::Cluster;

const EVERYTHING: &str = "
            svc-b:443    pod-b-1:8443  pod-b-3:8443  pod-b-2:8443/udp  pod-b-3:icmp  kube-dns:53/udp  kube-dns:53
pod-a       yes@pod-a    yes@pod-a     yes@pod-a     yes@pod-a         yes           yes@pod-a        yes@pod-a
pod-a-2     yes@pod-a-2  yes@pod-a-2   yes@pod-a-2   yes@pod-a-2       yes           yes@pod-a-2      yes@pod-a-2
cache-a     yes@cache-a  yes@cache-a   yes@cache-a   yes@cache-a       yes           yes@cache-a      yes@cache-a
node-1      yes@node-1   yes@node-1    yes@node-1    yes@node-1        yes           yes              yes
internet    .            yes@internet  yes@internet  yes@internet      yes           .                .
10.244.3.1  .            yes@10.244.3.1 yes          yes               yes           .                .
";

const THROUGH_NODES: &str = "
            node-1:30443  node-2:30443  node-2:30444  node-2:8444   host-b:9443   node-1:10250  internet:443  10.0.0.10:5978
pod-a       yes@node-1    yes@node-2    .             yes@pod-a     yes@pod-a     yes@pod-a     yes@node-1    yes@pod-a
pod-a-2     yes@node-1    yes@node-2    yes@pod-a-2   yes@node-2    yes@pod-a-2   yes@pod-a-2   yes@node-2    yes@pod-a-2
node-1      yes           yes@node-2    yes@node-1    yes@node-1    yes@node-1    yes           yes@node-1    yes@node-1
internet    yes@node-1    yes@node-2    yes@internet  yes@internet  yes@internet  yes@internet  .             .
";

/// A pod reaches itself through a Service of one endpoint: masqueraded, as kube-proxy does it.
const HAIRPIN: &str = "
     svc-db:6379
db   yes@node-2
";

fn everything_is_reachable(mode: Mode) -> Result<()> {
    let start = Instant::now();
    let cluster = Cluster::build(spec(), mode)?;
    let built = start.elapsed();
    let mut cells = 0;
    for table in [EVERYTHING, THROUGH_NODES, HAIRPIN] {
        let table = Table::parse(table)?;
        table.check(&cluster.spec)?;
        let matrix = table.play(&cluster, &Family::BOTH)?;
        let shown = Terminal { colour: false }.matrix(&matrix);
        assert_eq!(matrix.differing(), 0, "{mode}:\n{shown}");
        cells += matrix.probed();
    }
    println!("{mode}: {cells} cells; built in {built:?}, {:?} in all", start.elapsed());

    let from = cluster.namespace("pod-a")?;
    for family in Family::BOTH {
        let service = cluster.address("svc-b", family)?;
        let tcp = Conversation::tcp(from, service, 443)?;
        let pod = cluster.address("pod-b-3", family)?;
        let udp = Conversation::udp(from, pod, 8443)?;
        assert!(tcp.goes_on(50, Duration::from_secs(2)), "{:?}", tcp.progress());
        assert!(udp.goes_on(50, Duration::from_secs(2)), "{:?}", udp.progress());
        assert_eq!(udp.progress().lost, 0);
    }
    Ok(())
}

/// A matrix that expects time-outs must notice that nobody enforces them.
#[test]
fn without_agents_every_denied_cell_differs() -> Result<()> {
    let cluster = Cluster::build(spec(), Mode::Iptables)?;
    let story = np_tests::story::all().find(|story| story.id == "A5").context("A5")?;
    let matrix = story.steps[0].table()?.play(&cluster, &Family::BOTH)?;
    let denied = matrix.cells().filter(|(_, _, cell)| cell.expected == Expected::No).count();
    assert_eq!(denied, 4);
    assert_eq!(matrix.differing(), 2 * denied, "{}", Terminal { colour: false }.matrix(&matrix));
    Ok(())
}

#[test]
fn without_agents_all_is_reachable_through_iptables() -> Result<()> {
    everything_is_reachable(Mode::Iptables)
}

#[test]
fn without_agents_all_is_reachable_through_nftables() -> Result<()> {
    everything_is_reachable(Mode::Nftables)
}
