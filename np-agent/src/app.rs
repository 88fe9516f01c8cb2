//! The only file that knows every part: which tasks there are, what they send each other, and in
//! which order they start and stop.

use std::sync::mpsc as blocking;
use std::thread;

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::admin::{self, Admin};
use crate::advice;
use crate::agent::{Agent, Attach};
use crate::args::{Pending, PlaceArgs, RunArgs};
use crate::bind::Settings;
use crate::dataplane::{self, Attacher};
use crate::links::Monitor;
use crate::model::{DeviceChange, IfIndex, NodeName};
use crate::source::{self, Batch};

/// What the attaching thread is asked.
enum Request {
    Attach(Attach),
    Reap(IfIndex),
}

/// Runs the agent until it is told to stop.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    let RunArgs {
        node,
        manifests,
        place,
        uplink,
        tunnel_port,
        source_prefixes,
        pending,
        log: _,
        log_format: _,
    } = args;
    let PlaceArgs { pin_dir, run_dir } = place;
    let (Some(node), Some(manifests)) = (node, manifests) else {
        bail!("--node and --manifests are required");
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        node,
        manifests = %manifests.display(),
        pin_dir = %pin_dir.display(),
        run_dir = %run_dir.display(),
        ?uplink,
        ?tunnel_port,
        ?source_prefixes,
        ?pending,
        "starting"
    );

    let admin = Admin::open(&run_dir)?;
    let manifests =
        source::Manifests::open(&manifests)?.remember_in(run_dir.join("manifests.json"));
    let opened = dataplane::open(&dataplane::Options { pin_dir, mechanism: None })?;
    let dataplane::Opened { maps, attacher, tables, record, links } = opened;
    let mut monitor = Monitor::open()?;

    let (batch_sender, mut batches) = mpsc::channel(1);
    let mut watch = tokio::spawn(source::run(manifests, batch_sender));
    let (requests, mut results) = attaching_thread(attacher)?;

    let settings = Settings { uplinks: uplink, tunnel_ports: tunnel_port, source_prefixes };
    let mut agent =
        Agent::new(NodeName(node.into()), settings, pending == Pending::Allow, maps, tables);
    let devices = monitor.devices().context("cannot list the node's devices")?;
    agent.devices(devices.into_iter().map(DeviceChange::Seen).collect());
    // Nothing is judged by what is not known yet: without its objects a pod would be open.
    let first = batches.recv().await.context("the manifests could not be read")?;
    let advice = advice::thread()?;
    take(first, &mut agent, &advice);
    agent.warn_of_missing();
    agent.restore(record.as_deref(), &links)?;
    for severed in links.iter().filter(|link| link.severed) {
        requests.send(Request::Reap(severed.ifindex)).context("the attaching thread is gone")?;
    }

    let mut ready = false;
    let mut retry: Option<Instant> = Some(Instant::now());
    loop {
        let mut work = false;
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            changes = monitor.next() => {
                for gone in agent.devices(changes.context("cannot follow the node's devices")?) {
                    requests.send(Request::Reap(gone)).context("the attaching thread is gone")?;
                }
                work = true;
            }
            Some(batch) = batches.recv() => {
                take(batch, &mut agent, &advice);
                work = true;
            }
            Some((request, result)) = results.recv() => {
                if let Some(delay) = agent.attached(&request, result) {
                    retry = Some(sooner(retry, Instant::now() + delay));
                }
            }
            () = sleep_until(retry) => {
                retry = None;
                work = true;
            }
            Ok((client, _)) = admin.listener.accept() => admin::answer(client, &agent.status()),
            stopped = &mut watch => {
                stopped.context("the manifests are no longer watched")?
                    .context("the manifests are no longer watched")?;
                bail!("the manifests are no longer watched");
            }
        }
        if work {
            let (attach, delay) = agent.turn();
            for request in attach {
                requests.send(Request::Attach(request)).context("the attaching thread is gone")?;
            }
            if let Some(delay) = delay {
                retry = Some(sooner(retry, Instant::now() + delay));
            }
        }
        let now_ready = agent.ready();
        if now_ready != ready {
            ready = now_ready;
            if ready { info!("ready") } else { warn!("not ready") }
        }
    }
    info!("stopping; programs and maps stay in force");
    Ok(())
}

fn take(mut batch: Batch, agent: &mut Agent, advice: &std::sync::mpsc::Sender<advice::Read>) {
    let background = std::mem::take(&mut batch.background);
    let concerned = batch.changes.iter().any(advice::concerns);
    agent.objects(batch);
    if concerned && advice.send((agent.index().clone(), background)).is_err() {
        warn!("the thread for advice is gone: no more advice");
    }
}

fn sooner(one: Option<Instant>, other: Instant) -> Instant {
    one.map_or(other, |one| one.min(other))
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

type Attached = (Attach, Result<(), String>);

/// Attaching waits for an RCU grace period under the kernel's network lock (`tcx_entry_sync`,
/// kernel/bpf/tcx.c), 8 to 16 ms each: it has a thread of its own. The newest devices come first,
/// because their containers are about to start.
fn attaching_thread(
    mut attacher: Attacher,
) -> anyhow::Result<(blocking::Sender<Request>, mpsc::UnboundedReceiver<Attached>)> {
    let (requests, incoming) = blocking::channel();
    let (outgoing, results) = mpsc::unbounded_channel();
    let work = move || {
        let mut waiting: Vec<Attach> = Vec::new();
        loop {
            let first = if waiting.is_empty() { incoming.recv().ok() } else { None };
            if first.is_none() && waiting.is_empty() {
                return;
            }
            for request in first.into_iter().chain(incoming.try_iter()) {
                match request {
                    Request::Attach(attach) => waiting.push(attach),
                    Request::Reap(ifindex) => {
                        waiting.retain(|attach| attach.ifindex != ifindex);
                        if let Err(error) = attacher.reap(ifindex) {
                            warn!(%ifindex, %error, "cannot remove the pins of a device that is gone");
                        }
                    }
                }
            }
            let Some(attach) = waiting.pop() else { continue };
            let result =
                attacher.attach(attach.ifindex, attach.side).map_err(|error| error.to_string());
            if outgoing.send((attach, result)).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("attach".into()).spawn(work).context("cannot start a thread")?;
    Ok((requests, results))
}
