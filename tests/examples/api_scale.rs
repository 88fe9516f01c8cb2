//! Measures what a large cluster costs an agent that follows an API server: memory, and the time from
//! the last page to the first plan.
//!
//! ```text
//! cargo run --release -p np-tests --example api_scale -- [PODS] [POLICIES]
//! ```
//!
//! The server is a process of its own. Pods are of 9 KB each, most of it what policy does not read.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, process};

use anyhow::{Context as _, Result, bail};
use np_agent::source::api::{Access, Source, Timing};
use np_policy::bind::Settings;
use np_policy::model::{NodeName, Object};
use np_policy::plan::Tables;
use np_policy::reconcile::Reconciler;
use np_tests::fake_api::{FakeApi, NAMESPACES, PODS, POLICIES, from_model};
use np_tests::scale::{NODE, Scale};
use tokio::sync::mpsc::channel;

const LOCAL: usize = 110;
const PADDING: usize = 8 << 10;

fn main() -> Result<()> {
    let mut args = env::args().skip(1).peekable();
    let serves = args.next_if(|arg| arg == "serve").is_some();
    let mut number = |default: usize| args.next().map_or(Ok(default), |text| text.parse());
    let scale = Scale { pods: number(50_000)?, policies: number(5_000)?, local: LOCAL };
    if serves {
        return serve(scale);
    }
    let mut server = Command::new(env::current_exe()?)
        .args(["serve", &scale.pods.to_string(), &scale.policies.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start the server")?;
    let mut url = String::new();
    BufReader::new(server.stdout.take().context("its output")?).read_line(&mut url)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let measured = runtime.block_on(follow(url.trim(), scale));
    // It ends with its input.
    drop(server.stdin.take());
    server.wait()?;
    measured
}

fn serve(scale: Scale) -> Result<()> {
    let api = FakeApi::start()?;
    let padding = "x".repeat(PADDING);
    for change in scale.changes() {
        let np_policy::model::Change::Apply(object) = change else { bail!("nothing goes") };
        let path = match &object {
            Object::Pod(_) => PODS,
            Object::Namespace(_) => NAMESPACES,
            Object::Policy(_) => POLICIES,
            Object::Node(_) => bail!("no node is made"),
        };
        let mut json = from_model(&object);
        if path == PODS {
            json["metadata"]["managedFields"] = padding.as_str().into();
        }
        api.apply(path, json);
    }
    println!("{}", api.url());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

async fn follow(url: &str, scale: Scale) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("kubeconfig");
    fs::write(&file, np_tests::fake_api::kubeconfig(url, &serde_json::json!({})))?;
    let node = NodeName(NODE.into());
    let before = memory()?;
    let source = Source::open(Access::Kubeconfig(file), node.clone(), Timing::default()).await?;
    let (sender, mut batches) = channel(1);
    let start = Instant::now();
    tokio::spawn(source.run(sender));
    let mut reconciler = Reconciler::new(node, Settings::default(), false, Tables::default());
    for device in scale.devices() {
        reconciler.device(np_policy::model::DeviceChange::Seen(device));
    }
    loop {
        let batch = batches.recv().await.context("the source ended")?;
        let whole = batch.missing.is_empty();
        if !batch.narrowed.is_empty() {
            bail!("not understood: {:?}", batch.narrowed[0]);
        }
        let last = Instant::now();
        reconciler.objects(batch.changes);
        if !whole {
            continue;
        }
        let listed = last.duration_since(start);
        let plan = reconciler.plan();
        let planned = last.elapsed();
        for op in &plan.ops {
            reconciler.written(op);
        }
        reconciler.finished();
        let pods = reconciler.index().pods().len();
        let Scale { policies, .. } = scale;
        println!("{pods} pods, {policies} policies, {} writes", plan.ops.len());
        println!(
            "everything listed after {listed:.1?}, first plan {planned:.1?} after the last page"
        );
        drop(plan);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let after = memory()?;
        println!(
            "memory before {:.1} MiB, after {:.1} MiB, most {:.1} MiB",
            before.0, after.0, after.1
        );
        return Ok(());
    }
}

/// What this process has in memory, and the most it ever had, in MiB.
fn memory() -> Result<(f64, f64)> {
    let status = fs::read_to_string(format!("/proc/{}/status", process::id()))?;
    let of = |name: &str| -> Result<f64> {
        let line = status.lines().find(|line| line.starts_with(name)).context("no such line")?;
        let kib: f64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
        Ok(kib / 1024.0)
    };
    Ok((of("VmRSS:")?, of("VmHWM:")?))
}
