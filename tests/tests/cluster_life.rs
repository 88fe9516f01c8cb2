//! The DaemonSet as shipped in a real cluster, and what befalls its agents, its nodes and its control
//! plane.
//!
//! Run by `cargo xtask test --tier cluster`, one after another.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use np_tests::kubernetes::machine::{Machine, Program};
use np_tests::kubernetes::{AGENTS, Kubernetes, Namespace, PORT, eventually, within};
use serde_json::{Value, json};

/// A client here and a server there that nobody may reach.
fn denied<'a>(cluster: &'a Kubernetes, name: &str) -> Result<(Namespace<'a>, String)> {
    let (here, there) = cluster.two_nodes()?;
    let namespace = cluster.namespace(name)?;
    namespace.pod("client", &here)?;
    namespace.pod("server", &there)?;
    let server = namespace.address("server")?;
    namespace.expect("client", &server, PORT, true)?;
    namespace.policy("deny", &json!({"podSelector": {"matchLabels": {"app": "server"}}}))?;
    namespace.expect("client", &server, PORT, false)?;
    Ok((namespace, server))
}

/// Without the policy of [`denied`] the server is reached: agents take in what changes.
fn allowed_again(cluster: &Kubernetes, namespace: &Namespace<'_>, server: &str) -> Result<()> {
    cluster.kubectl(&format!("delete networkpolicy deny --namespace {}", namespace.name))?;
    // After an outage an agent asks again within half a minute.
    namespace.expect_within(BACK, "client", server, PORT, true)
}

/// Which agents there are, and how often each has restarted.
fn restarts(cluster: &Kubernetes) -> Result<String> {
    let count = "{.items[*].metadata.uid}/{.items[*].status.containerStatuses[0].restartCount}";
    cluster.kubectl(&format!("get pods {AGENTS} -o jsonpath={count}"))
}

/// How long programs and nodes may take to come back.
const BACK: Duration = Duration::from_secs(120);

fn answers(cluster: &Kubernetes) -> Result<()> {
    within(BACK, "the API server again", || cluster.kubectl("get --raw /readyz")).map(drop)
}

fn served(cluster: &Kubernetes) -> Result<()> {
    within(BACK, "agents that are ready", || {
        ensure!(cluster.is_served()?, "an agent is not ready");
        Ok(())
    })
}

#[test]
fn agents_that_are_replaced_leave_no_gap() -> Result<()> {
    let cluster = Kubernetes::find()?;
    let (kept, server) = denied(&cluster, "np-kept")?;
    cluster.kubectl(&format!("delete pod {AGENTS} --wait=false"))?;
    let mut asked = 0;
    // However long it takes, nothing passes.
    while !cluster.is_served()? {
        ensure!(!kept.reaches("client", &server, PORT)?, "it passed after {asked} attempts");
        asked += 1;
    }
    println!("{asked} attempts while the agents were replaced, none passed");
    kept.expect("client", &server, PORT, false)?;
    allowed_again(&cluster, &kept, &server)
}

#[test]
fn no_agent_restarts_while_the_api_server_is_away() -> Result<()> {
    let cluster = Kubernetes::find()?;
    let (away, server) = denied(&cluster, "np-away")?;
    let before = restarts(&cluster)?;
    let stopped = Machine::find("control")?.program("kube-apiserver")?.stop()?;
    // Longer than kubelet takes to call a pod unready whose probe fails.
    thread::sleep(Duration::from_secs(45));
    drop(stopped);
    answers(&cluster)?;
    assert_eq!(restarts(&cluster)?, before);
    ensure!(cluster.is_served()?, "an agent is not ready");
    away.expect("client", &server, PORT, false)?;
    // What changed since is in force as well.
    allowed_again(&cluster, &away, &server)
}

#[test]
fn an_api_server_that_crashes_is_found_again() -> Result<()> {
    let cluster = Kubernetes::find()?;
    let (crashed, server) = denied(&cluster, "np-crashed")?;
    let before = restarts(&cluster)?;
    let api_server = Machine::find("control")?.program("kube-apiserver")?;
    api_server.kill()?;
    thread::sleep(Duration::from_secs(5));
    api_server.start()?;
    answers(&cluster)?;
    assert_eq!(restarts(&cluster)?, before);
    crashed.expect("client", &server, PORT, false)?;
    allowed_again(&cluster, &crashed, &server)
}

/// Versions are given a second time, for other objects: agents must not take old for new.
#[test]
fn a_policy_that_comes_back_with_an_older_etcd_is_in_force_again() -> Result<()> {
    let cluster = Kubernetes::find()?;
    let (older, server) = denied(&cluster, "np-older")?;
    let control = Machine::find("control")?;
    let names = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
    let programs: Vec<Program> =
        names.iter().map(|name| control.program(name)).collect::<Result<_>>()?;
    let while_down = |what: &str| -> Result<()> {
        // The others would ask for versions that are gone.
        for name in names.iter().rev() {
            control.program(name)?.kill()?;
        }
        let done = control.call(what);
        programs[..2].iter().try_for_each(Program::start)?;
        answers(&cluster)?;
        programs[2..].iter().try_for_each(Program::start)?;
        done.map(drop)
    };
    let before = restarts(&cluster)?;
    while_down("rm -rf /var/lib/etcd.older && cp -a /var/lib/etcd /var/lib/etcd.older")?;
    older.expect("client", &server, PORT, false)?;
    allowed_again(&cluster, &older, &server)?;
    for number in 0..20 {
        cluster.kubectl(&format!("create configmap later-{number} --namespace np-older"))?;
    }
    while_down("rm -rf /var/lib/etcd && mv /var/lib/etcd.older /var/lib/etcd")?;
    older.expect_within(BACK, "client", &server, PORT, false)?;
    assert_eq!(restarts(&cluster)?, before);
    allowed_again(&cluster, &older, &server)
}

/// The rules of np-agent's role, given back in the end.
struct Rules<'a> {
    cluster: &'a Kubernetes,
    rules: Value,
}

impl<'a> Rules<'a> {
    fn without_policies(cluster: &'a Kubernetes) -> Result<Self> {
        let role = cluster.kubectl("get clusterrole np-agent -o json")?;
        let role: Value = serde_json::from_str(&role).context("a role")?;
        let rules = Self { cluster, rules: role["rules"].clone() };
        let kept = rules.rules.as_array().context("rules")?;
        let kept = kept.iter().filter(|rule| rule["resources"] != json!(["networkpolicies"]));
        rules.set(&kept.cloned().collect())?;
        Ok(rules)
    }

    fn set(&self, rules: &Value) -> Result<()> {
        // Words end at a blank, and this has none.
        let patch = json!([{"op": "replace", "path": "/rules", "value": rules}]);
        self.cluster
            .kubectl(&format!("patch clusterrole np-agent --type=json --patch={patch}"))
            .map(drop)
    }
}

impl Drop for Rules<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.set(&self.rules) {
            eprintln!("{error:#}");
        }
    }
}

#[test]
fn an_agent_that_may_not_list_policies_leaves_them_in_force_and_says_what_it_lacks() -> Result<()> {
    let cluster = Kubernetes::find()?;
    let (forbidden, server) = denied(&cluster, "np-forbidden")?;
    let rules = Rules::without_policies(&cluster)?;
    cluster.kubectl(&format!("delete pod {AGENTS} --timeout=60s"))?;
    let said = eventually("agents that say what they lack", || {
        let logs = cluster.kubectl(&format!("logs {AGENTS} --tail=-1"))?;
        ensure!(logs.contains("allow np-agent's ServiceAccount"), "they say: {logs}");
        Ok(logs)
    })?;
    ensure!(said.contains("networkpolicies"), "they say: {said}");
    ensure!(!cluster.is_served()?, "an agent without policies has started");
    forbidden.expect("client", &server, PORT, false)?;
    drop(rules);
    served(&cluster)?;
    allowed_again(&cluster, &forbidden, &server)
}

#[test]
fn a_node_that_reboots_has_its_policies_again() -> Result<()> {
    let cluster = Kubernetes::find()?;
    let (rebooted, server) = denied(&cluster, "np-rebooted")?;
    let (_, there) = cluster.two_nodes()?;
    Machine::find(&there)?.reboot()?;
    // Its pods are started anew, and have other addresses.
    let server = within(BACK, "the pod again", || {
        let address = rebooted.address("server")?;
        ensure!(!address.is_empty() && address != server, "it is still {address}");
        Ok(address)
    })?;
    served(&cluster)?;
    rebooted.wait("server", "condition=Ready")?;
    rebooted.expect("client", &server, PORT, false)?;
    allowed_again(&cluster, &rebooted, &server)
}
