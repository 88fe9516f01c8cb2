//! Asks for one collection for as long as somebody listens: the requests and answers of which a
//! [`Reflector`] says when they are due.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use kube::api::{ListParams, WatchParams};
use kube::client::Body;
use kube::core::Request;
use tokio::sync::mpsc::Sender;
use tokio::time::timeout;

use super::connection::{Connection, chain};
use super::interner::Interner;
use super::merge::Event;
use super::read::{self, Read};
use super::reflector::{Failure, Reflector, Step};
use super::resource::Resource;
use super::timing::Timing;
use super::wire::{Line, Page, Status};
use np_policy::model::NodeName;

/// The state of a feed, shared with the status.
pub(super) type Shared = Arc<Mutex<Reflector>>;

pub(super) fn lock(reflector: &Shared) -> MutexGuard<'_, Reflector> {
    reflector.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct Fetch {
    pub resource: Resource,
    pub node: NodeName,
    pub timing: Timing,
    pub connection: Arc<Connection>,
    pub reflector: Shared,
    pub events: Sender<Event>,
}

/// More than a page of ordinary objects, and less than a node has to spare.
const LARGEST_PAGE: usize = 64 << 20;
/// An object is at most 1.5 MB in etcd.
const LONGEST_LINE: usize = 8 << 20;
const LONGEST_STATUS: usize = 64 << 10;

/// What the pages of a list have brought so far.
#[derive(Default)]
struct Listed {
    all: Vec<Read>,
    shared: Interner,
}

/// How a watch came to its end.
enum End {
    /// Nobody listens any more.
    Unheard,
    Server,
    /// What came made the reflector begin again.
    Relist,
}

impl Fetch {
    /// Runs until nobody listens any more.
    pub async fn run(self) {
        let mut listed = Listed::default();
        let mut told: Option<String> = None;
        while !self.events.is_closed() {
            let step = lock(&self.reflector).next(Instant::now());
            let result = match step {
                Step::Wait(pause) => {
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = self.events.closed() => {}
                    }
                    continue;
                }
                Step::List { token, limit } => {
                    if token.is_none() {
                        listed = Listed::default();
                    }
                    self.list(token, limit, &mut listed).await
                }
                Step::Look => self.look().await,
                Step::Watch { resource_version, timeout } => {
                    match self.watch(&resource_version, timeout).await {
                        Ok(End::Unheard) => return,
                        Ok(End::Server) => {
                            lock(&self.reflector).ended(Instant::now());
                            Ok(())
                        }
                        Ok(End::Relist) => Ok(()),
                        Err(failure) => Err(failure),
                    }
                }
            };
            match result {
                Ok(()) => {
                    if told.take().is_some() {
                        tracing::info!("{} come again from the API server", self.resource);
                    }
                }
                Err(failure) => self.failed(&failure, &mut told).await,
            }
        }
    }

    async fn failed(&self, failure: &Failure, told: &mut Option<String>) {
        lock(&self.reflector).failed(failure, Instant::now());
        if matches!(failure, Failure::Unreachable(_) | Failure::Status { code: 401, .. }) {
            self.connection.suspect().await;
        }
        if matches!(failure, Failure::Silent | Failure::Status { expired: true, .. }) {
            tracing::debug!("{}: {failure}", self.resource);
            return;
        }
        let text = failure.to_string();
        // Once for an outage, not once for a try.
        if told.as_ref() == Some(&text) {
            return;
        }
        match failure {
            Failure::Status { code: 403, .. } => tracing::error!(
                "{}: {failure}; nothing is taken for absent because of that: allow np-agent's \
                 ServiceAccount {}",
                self.resource,
                self.resource.rule()
            ),
            _ => tracing::warn!(
                "{}: {failure}; what is in force stays, and it is tried again",
                self.resource
            ),
        }
        *told = Some(text);
    }

    async fn list(
        &self,
        token: Option<String>,
        limit: u32,
        listed: &mut Listed,
    ) -> Result<(), Failure> {
        let bytes = self.page(token, limit).await?;
        let page = Page::read(&bytes).map_err(Failure::NotUnderstood)?;
        for item in &page.items {
            match read::read(self.resource, item.get()) {
                Ok(mut read) => {
                    if let Some(object) = &mut read.object {
                        listed.shared.share(object);
                    }
                    listed.all.push(read);
                }
                Err(nameless) => tracing::error!("{nameless}; it is passed over"),
            }
        }
        let (version, token) = (page.resource_version, page.token);
        if lock(&self.reflector).page(version, token, Instant::now()) {
            let all = std::mem::take(listed).all;
            tracing::info!(objects = all.len(), "listed {}", self.resource);
            // Whether anybody listens is asked before the next request.
            self.events.send(Event::Replace(self.resource, all)).await.ok();
        }
        Ok(())
    }

    /// Asks which version the collection has now, by a page of one object.
    async fn look(&self) -> Result<(), Failure> {
        let bytes = self.page(None, 1).await?;
        let page = Page::read(&bytes).map_err(Failure::NotUnderstood)?;
        lock(&self.reflector).looked(&page.resource_version, Instant::now());
        Ok(())
    }

    /// The text of a page.
    async fn page(&self, token: Option<String>, limit: u32) -> Result<Vec<u8>, Failure> {
        let plain = lock(&self.reflector).plain();
        let params = ListParams {
            field_selector: self.resource.fields(&self.node, plain),
            limit: Some(limit),
            continue_token: token,
            ..ListParams::default()
        };
        let request = Request::new(self.resource.path()).list(&params);
        let mut body = self.send(request.map_err(|error| broken(&error))?).await?;
        let mut bytes = Vec::new();
        while let Some(data) = self.frame(&mut body, self.timing.page).await.map_err(stopped)? {
            bytes.extend_from_slice(&data);
            if bytes.len() > LARGEST_PAGE {
                return Err(Failure::TooLarge);
            }
        }
        Ok(bytes)
    }

    async fn watch(&self, version: &str, lasting: Duration) -> Result<End, Failure> {
        let plain = lock(&self.reflector).plain();
        let params = WatchParams {
            field_selector: self.resource.fields(&self.node, plain),
            timeout: Some(u32::try_from(lasting.as_secs()).unwrap_or(u32::MAX).max(1)),
            bookmarks: true,
            ..WatchParams::default()
        };
        let request = Request::new(self.resource.path()).watch(&params, version);
        let mut request = request.map_err(|error| broken(&error))?;
        // Servers from 1.37 on compress each event by itself, and only the first would be unpacked.
        let identity = http::HeaderValue::from_static("identity");
        request.headers_mut().insert(http::header::ACCEPT_ENCODING, identity);
        let mut body = self.send(request).await?;
        lock(&self.reflector).answered(Instant::now());
        let mut pending: Vec<u8> = Vec::new();
        loop {
            let data = tokio::select! {
                data = self.frame(&mut body, self.timing.line) => data,
                () = self.events.closed() => return Ok(End::Unheard),
            };
            // What was cut off was not counted: it comes again after the version before it.
            let Some(data) = data? else { return Ok(End::Server) };
            lock(&self.reflector).received(Instant::now());
            let searched = pending.len();
            pending.extend_from_slice(&data);
            let mut start = 0;
            let mut from = searched;
            while let Some(length) = pending[from..].iter().position(|byte| *byte == b'\n') {
                let end = from + length;
                let line = pending[start..end].trim_ascii();
                if !line.is_empty() && self.line(line).await? {
                    return Ok(End::Relist);
                }
                (start, from) = (end + 1, end + 1);
            }
            pending.drain(..start);
            if pending.len() > LONGEST_LINE {
                return Err(Failure::NotUnderstood("a line without an end".to_owned()));
            }
        }
    }

    /// Takes a line in. True if everything is to be listed again because of it.
    async fn line(&self, line: &[u8]) -> Result<bool, Failure> {
        let (text, set) = match Line::read(line).map_err(Failure::NotUnderstood)? {
            Line::Bookmark(version) => {
                lock(&self.reflector).seen(&version);
                return Ok(false);
            }
            Line::Error(status) => return Err(refused(status, None)),
            Line::Set(object) => (object.get(), true),
            Line::Gone(object) => (object.get(), false),
        };
        let read = match read::read(self.resource, text) {
            Ok(read) => Box::new(read),
            Err(nameless) => {
                let again = lock(&self.reflector).nameless(Instant::now());
                tracing::error!(
                    "{nameless}; {}",
                    if again { "all are listed again" } else { "it is passed over" }
                );
                return Ok(again);
            }
        };
        let version = read.version;
        let event =
            if set { Event::Set(self.resource, read) } else { Event::Gone(self.resource, read) };
        // Whether anybody listens is asked before the next line.
        self.events.send(event).await.ok();
        if version > 0 {
            lock(&self.reflector).seen(&version.to_string());
        }
        Ok(false)
    }

    /// Sends a request and waits for the header of its answer.
    async fn send(&self, request: http::Request<Vec<u8>>) -> Result<Body, Failure> {
        let client = self.connection.client().await;
        let answer = timeout(self.timing.header, client.send(request.map(Body::from))).await;
        let answer = answer
            .map_err(|_| {
                Failure::Unreachable(format!("no answer within {:?}", self.timing.header))
            })?
            .map_err(|error| Failure::Unreachable(chain(&error)))?;
        if answer.status().is_success() {
            return Ok(answer.into_body());
        }
        let code = answer.status().as_u16();
        let seconds = answer.headers().get(http::header::RETRY_AFTER);
        let seconds = seconds.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let mut body = answer.into_body();
        let mut bytes = Vec::new();
        // The code says enough if no more comes.
        while let Ok(Some(data)) = self.frame(&mut body, self.timing.header).await {
            bytes.extend_from_slice(&data);
            if bytes.len() > LONGEST_STATUS {
                break;
            }
        }
        let status: Status = serde_json::from_slice(&bytes).unwrap_or_default();
        Err(refused(Status { code, ..status }, seconds.map(Duration::from_secs)))
    }

    /// Waits for the next bytes; none at the end.
    async fn frame(&self, body: &mut Body, patience: Duration) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            let frame = timeout(patience, body.frame()).await;
            match frame.map_err(|_| Failure::Silent)? {
                None => return Ok(None),
                Some(Err(error)) => return Err(Failure::Unreachable(chain(&error))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data.to_vec()));
                    }
                }
            }
        }
    }
}

/// A list, unlike a watch, has no reason to be silent.
fn stopped(failure: Failure) -> Failure {
    match failure {
        Failure::Silent => Failure::Unreachable("the answer has stopped coming".to_owned()),
        other => other,
    }
}

fn broken(error: &kube::core::request::Error) -> Failure {
    Failure::Unreachable(chain(error))
}

fn refused(status: Status, retry_after: Option<Duration>) -> Failure {
    let expired = status.expired();
    let Status { code, reason, message } = status;
    let message = if message.is_empty() { reason } else { message };
    Failure::Status { code, expired, message, retry_after }
}
