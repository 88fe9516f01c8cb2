//! The only file that knows every part: which tasks there are, what they send each other, and in
//! which order they start and stop.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::admin::{self, Admin};
use crate::advice::{self, Advice};
use crate::agent::Agent;
use crate::args::{Pending, PlaceArgs, RunArgs};
use crate::attaching::{self, Request};
use crate::dataplane::{self, NamespaceLock};
use crate::doorkeeper::Doorkeeper;
use crate::events;
use crate::inspector::{self, Ask, Inspected, Next};
use crate::message::Message;
use crate::origin::{self, Origin};
use crate::source::api::Health;
use crate::status::Status;
use np_policy::bind::Settings;
use np_policy::model::NodeName;

/// Runs the agent until it is told to stop.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    let RunArgs {
        node,
        kubeconfig,
        manifests,
        place,
        uplink,
        foreign,
        tunnel_port,
        source_prefixes,
        pending,
        check_every,
        startup_taint,
        events: always,
        abi,
        log: _,
        log_format: _,
    } = args;
    let PlaceArgs { pin_dir, run_dir } = place;
    let Some(node) = node else { bail!("--node is required") };
    let node = NodeName(node.into());
    let origin = Origin::of(manifests, kubeconfig)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        %node,
        ?origin,
        pin_dir = %pin_dir.display(),
        run_dir = %run_dir.display(),
        ?uplink,
        ?foreign,
        ?tunnel_port,
        ?source_prefixes,
        ?pending,
        events = ?always,
        "starting"
    );

    let admin = Admin::open(&run_dir)?;
    let origin = origin.open(&run_dir)?;
    let options = dataplane::Options { pin_dir, mechanism: None };
    dataplane::require(&options)?;
    let _lock = NamespaceLock::take()?;
    let opened = dataplane::open_version(&options, abi)?;
    let dataplane::Opened {
        maps,
        attacher,
        tables,
        record,
        links,
        doors,
        reader,
        events: made,
        reporting,
        inherits,
    } = opened;

    let untouched = links.is_empty() && !inherits;
    let spare_present = untouched && matches!(origin, origin::Opened::Server(_));
    let mut feed = origin.follow(node.clone(), &run_dir, !untouched, startup_taint)?;
    let (out, mut messages) = mpsc::unbounded_channel();
    let check_every = Duration::from_secs(check_every);
    let requests = attaching::start(attacher, check_every, out.clone())?;
    let asks = inspector::start(reader, out.clone())?;
    let listener = admin.events.try_clone().context("cannot keep the socket for events")?;
    let (mut wanted_names, changes) = events::start(made, reporting, always.report(), listener)?;

    let uplinks = uplink.clone();
    let settings =
        Settings { uplinks: uplink, foreign, tunnel_ports: tunnel_port, source_prefixes };
    let mut agent =
        Agent::new(node, settings, pending == Pending::Allow, maps, doors.unheard(), tables);
    if inherits {
        agent.withhold();
    }
    agent.adopt(&links)?;
    agent.recall(record.as_deref());
    // From here on, a pod that started while no agent ran is closed until it is known whose it is.
    Doorkeeper { doors, uplinks, spare_present, requests: requests.clone(), out }.start()?;
    let first = messages.recv().await.context("the thread for devices is gone")?;
    receive(first, &mut agent, &asks);
    let mut advice = Advice::start(feed.health.is_some())?;
    let request = |request: Request| requests.send(request).context("the attaching thread is gone");

    // Nothing is judged by what is not known yet: without its objects a pod would be open.
    let mut known = false;
    let mut inspect: Option<Instant> = Some(Instant::now() + check_every);
    let mut ready = false;
    let mut retry: Option<Instant> = Some(Instant::now());
    loop {
        let mut work = false;
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            Some(message) = messages.recv() => {
                let received = receive(message, &mut agent, &asks);
                work |= received.work;
                if let Some(delay) = received.again {
                    retry = Some(sooner(retry, Instant::now() + delay));
                }
                inspect = received.inspect.map(|delay| Instant::now() + delay).or(inspect);
            }
            batch = feed.batches.recv() => {
                let Some(mut batch) = batch else { return Err(feed.ended()) };
                let whole = batch.missing.is_empty();
                let concerned = whole && (!known || batch.changes.iter().any(advice::concerns));
                let background = std::mem::take(&mut batch.background);
                agent.objects(batch);
                if concerned {
                    advice.ask(background, agent.index());
                }
                if whole && !known {
                    known = true;
                    agent.warn_of_missing();
                    agent.restore(record.as_deref());
                    for severed in links.iter().filter(|link| link.severed) {
                        request(Request::Reap(severed.ifindex))?;
                    }
                }
                work = true;
            }
            () = sleep_until(advice.due()) => advice.give(agent.index()),
            () = sleep_until(inspect) => {
                inspect = Some(Instant::now() + check_every);
                if agent.begin_inspection() {
                    asks.send(Ask::Dump).context("the inspecting thread is gone")?;
                }
            }
            () = sleep_until(retry) => {
                retry = None;
                work = true;
            }
            Ok((client, _)) = admin.listener.accept() => {
                let api = feed.health.as_ref().map(Health::status).unwrap_or_default();
                admin::answer(client, &Status { api, ..agent.status() });
            }
            Ok((client, _)) = admin.objects.accept() => {
                admin::answer_objects(client, agent.index().clone());
            }
            Some(ask) = wanted_names.recv(), if known => {
                // Who asked may have gone.
                ask.send(agent.snapshot(changes.counted())).ok();
            }
        }
        if work {
            changes.count();
        }
        if work && known {
            let (wanted, delay) = agent.turn();
            wanted.into_iter().try_for_each(request)?;
            if let Some(delay) = delay {
                retry = Some(sooner(retry, Instant::now() + delay));
            }
        }
        if agent.has_just_started() {
            request(Request::Retire)?;
            // If nobody listens, there is no taint to take away.
            feed.started.take().map(|started| started.send(()));
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

/// What a message asks of the loop.
#[derive(Default)]
struct Received {
    work: bool,
    /// After how long to work again.
    again: Option<Duration>,
    /// After how long to look at the maps again.
    inspect: Option<Duration>,
}

/// How soon a difference in the maps is looked at again.
const SUSPICION: Duration = Duration::from_millis(100);

fn receive(message: Message, agent: &mut Agent, asks: &std::sync::mpsc::Sender<Ask>) -> Received {
    let mut received = Received::default();
    match message {
        Message::Devices(heard) => {
            agent.devices(heard);
            received.work = true;
        }
        Message::Blind(problem) => agent.blind(problem),
        Message::Attachment(report) => received.again = agent.attachment(report),
        Message::Dump(dump) => {
            let Inspected { unused, next } = agent.inspect(dump);
            // If the thread has ended, the loop ends when it next asks for a dump.
            unused.map(|tables| asks.send(Ask::Drop(tables)));
            received.work = next == Next::Turn;
            received.inspect = (next == Next::LookAgain).then_some(SUSPICION);
        }
    }
    received
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
