//! Writes a cluster and probes to measure `np-agent explain --probes` by:
//!
//! ```text
//! cargo run -p np-tests --example explain_cluster -- DIR [PODS] [POLICIES] [PROBES]
//! np-agent explain --manifests DIR/manifests --probes DIR/probes.jsonl > /dev/null
//! ```
//!
//! Always the same text for the same numbers: 20 namespaces, 10 nodes, 10 apps, policies that
//! select an app of a namespace and allow two other apps a port each, or a block.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use anyhow::Context as _;

const NAMESPACES: u32 = 20;
const NODES: u32 = 10;
const APPS: u32 = 10;
const PORTS: [u16; 4] = [80, 443, 5432, 8443];

/// Numbers that look random and are not.
struct Steps(u64);

impl Steps {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(bound)) as u32
    }
}

fn main() -> anyhow::Result<()> {
    let mut args = env::args().skip(1);
    let dir = PathBuf::from(args.next().context("name a directory")?);
    let mut number = |default: u32| args.next().map_or(Ok(default), |text| text.parse());
    let (pods, policies, probes) = (number(1_000)?, number(500)?, number(1_000_000)?);
    let mut steps = Steps(1);
    let manifests = dir.join("manifests");
    fs::create_dir_all(&manifests).with_context(|| format!("make {}", manifests.display()))?;
    fs::write(manifests.join("pods.yaml"), objects(pods)?).context("write the pods")?;
    fs::write(manifests.join("policies.yaml"), policies_text(policies, &mut steps)?)
        .context("write the policies")?;
    let mut lines = String::new();
    for _ in 0..probes {
        let (from, to) = (steps.below(pods), steps.below(pods));
        let port = PORTS[steps.below(4) as usize];
        let from = if steps.below(10) == 0 { "203.0.113.7".to_owned() } else { pod_name(from) };
        writeln!(
            lines,
            r#"{{"from":"{from}","to":"{}","port":{port},"protocol":"TCP"}}"#,
            pod_name(to)
        )?;
    }
    fs::write(dir.join("probes.jsonl"), lines).context("write the probes")?;
    Ok(())
}

fn pod_name(pod: u32) -> String {
    format!("ns-{}/pod-{pod}", pod % NAMESPACES)
}

fn objects(pods: u32) -> anyhow::Result<String> {
    let mut text = String::new();
    for namespace in 0..NAMESPACES {
        writeln!(
            text,
            "---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: ns-{namespace}\n  labels: \
             {{kubernetes.io/metadata.name: ns-{namespace}, team: t-{}}}",
            namespace % 4
        )?;
    }
    for pod in 0..pods {
        writeln!(
            text,
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  namespace: ns-{}\n  name: pod-{pod}\n  \
             labels: {{app: a-{}, tier: t-{}}}\nspec:\n  nodeName: n-{}\n  containers:\n    - \
             name: main\n      image: example.org/main:1\nstatus:\n  phase: Running\n  podIPs: \
             [{{ip: 10.{}.{}.{}}}]",
            pod % NAMESPACES,
            pod / NAMESPACES % APPS,
            pod % 3,
            pod % NODES,
            pod >> 14,
            pod >> 7 & 0x7f,
            (pod & 0x7f) + 1,
        )?;
    }
    Ok(text)
}

fn policies_text(policies: u32, steps: &mut Steps) -> anyhow::Result<String> {
    let mut text = String::new();
    for policy in 0..policies {
        let direction = if policy % 2 == 0 {
            ("Ingress", "ingress", "from")
        } else {
            ("Egress", "egress", "to")
        };
        let (kind, list, peers) = direction;
        writeln!(
            text,
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  namespace: \
             ns-{}\n  name: policy-{policy}\nspec:\n  podSelector: {{matchLabels: {{app: a-{}}}}}\n  \
             policyTypes: [{kind}]\n  {list}:",
            policy / 2 % NAMESPACES,
            steps.below(APPS),
        )?;
        for _ in 0..2 {
            let port = PORTS[steps.below(4) as usize];
            let team = steps.below(4);
            writeln!(
                text,
                "    - {peers}:\n        - namespaceSelector: {{matchLabels: {{team: t-{team}}}}}\n          \
                 podSelector: {{matchLabels: {{app: a-{}}}}}\n        - ipBlock: {{cidr: \
                 203.0.0.0/16, except: [203.0.{}.0/24]}}\n      ports: [{{port: {port}}}]",
                steps.below(APPS),
                112 + steps.below(4),
            )?;
        }
    }
    Ok(text)
}
