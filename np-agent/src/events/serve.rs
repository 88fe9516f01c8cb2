//! The agent's third socket: a client says in one line what it wants, and gets lines of JSON.

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, broadcast};
use tracing::{debug, warn};

use super::filter::Filter;
use super::hub::{Entry, Hub};
use super::line::{Content, Line};

/// So many clients at a time.
const CLIENTS: usize = 16;
/// How long a client may take to say what it wants. One that says nothing by then follows everything.
const PATIENCE: Duration = Duration::from_millis(250);
/// A longer line is not a filter.
const LONGEST: u64 = 4096;

/// Starts the thread, with a runtime of its own: the main loop does not wait for clients.
pub fn start(listener: StdListener, hub: Arc<Hub>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start a runtime for monitors")?;
    let run = move || {
        if let Err(error) = runtime.block_on(serve(listener, hub)) {
            warn!(%error, "nobody can monitor any more");
        }
    };
    let named = thread::Builder::new().name("monitor".to_owned());
    named.spawn(run).context("no thread for monitors; raise the limit on threads (pids.max)")?;
    Ok(())
}

async fn serve(listener: StdListener, hub: Arc<Hub>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let (client, _) = listener.accept().await?;
        let (places, hub) = (places.clone(), hub.clone());
        tokio::spawn(async move {
            let Ok(_place) = places.try_acquire() else {
                return refuse(client, "too many clients monitor this agent; end one of them")
                    .await;
            };
            if let Err(error) = answer(client, &hub).await {
                debug!(%error, "a monitor went away");
            }
        });
    }
}

async fn refuse(mut client: UnixStream, error: &str) {
    let line = Line::new(Content::Error { error: error.to_owned() });
    let text = serde_json::to_string(&line).unwrap_or_default() + "\n";
    // It may be gone already.
    client.write_all(text.as_bytes()).await.ok();
}

async fn answer(client: UnixStream, hub: &Hub) -> io::Result<()> {
    let (reader, mut writer) = client.into_split();
    let mut reader = BufReader::new(reader);
    let filter = match asked(&mut reader).await? {
        Ok(filter) => filter,
        Err(error) => {
            let client = reader.into_inner().reunite(writer).map_err(io::Error::other)?;
            refuse(client, &error).await;
            return Ok(());
        }
    };
    let (past, live) = hub.listen(filter.past());
    let _raised = filter.follow.then(|| hub.demand.raise(filter.needs()));
    for entry in past.iter().filter(|entry| filter.matches(&entry.line.content)) {
        writer.write_all(entry.text.as_bytes()).await?;
    }
    drop(past);
    if filter.follow {
        follow(&filter, live, &mut reader, &mut writer).await?;
    }
    writer.shutdown().await
}

/// Passes on the lines that come from now on, until the client has hung up.
async fn follow(
    filter: &Filter,
    mut live: broadcast::Receiver<Arc<Entry>>,
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
) -> io::Result<()> {
    loop {
        let next = tokio::select! {
            next = live.recv() => next,
            gone = gone(reader) => return gone,
        };
        match next {
            Ok(entry) if filter.matches(&entry.line.content) => {
                writer.write_all(entry.text.as_bytes()).await?;
            }
            Ok(_) => {}
            Err(RecvError::Lagged(lines)) => lost(writer, lines).await?,
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}

async fn lost(writer: &mut OwnedWriteHalf, lines: u64) -> io::Result<()> {
    let text = serde_json::to_string(&Line::new(Content::Lost { lines }))?;
    writer.write_all(text.as_bytes()).await?;
    writer.write_all(b"\n").await
}

/// What the client wants, or why that cannot be understood.
async fn asked(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Result<Filter, String>> {
    let mut line = String::new();
    let mut limited = reader.take(LONGEST);
    let read = tokio::time::timeout(PATIENCE, limited.read_line(&mut line)).await;
    read.unwrap_or(Ok(0))?;
    if line.trim().is_empty() {
        return Ok(Ok(Filter { follow: true, ..Filter::default() }));
    }
    let filter: Result<Filter, _> = serde_json::from_str(&line);
    Ok(filter
        .map_err(|error| format!("the filter is not understood: {error}"))
        .and_then(|filter| filter.check().map(|()| filter).map_err(|error| error.to_string())))
}

/// Waits until the client has ended its side. What it says besides is of no interest.
async fn gone(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<()> {
    let mut rest = [0; 64];
    while reader.read(&mut rest).await? > 0 {}
    Ok(())
}
