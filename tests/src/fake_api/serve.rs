//! One connection: requests in, chunked answers out, and the faults between.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Change, Fault, NODES, Request, Shared, lock, matches};

/// Answers until the client goes away.
pub(super) fn connection(shared: &Shared, stream: TcpStream) {
    let Ok(reading) = stream.try_clone() else { return };
    let mut reading = BufReader::new(reading);
    let mut out = stream;
    while let Ok(Some(request)) = read(&mut reading) {
        let fault = fault_for(shared, &request);
        if answer(shared, &request, fault, &mut out).is_err() {
            return;
        }
    }
}

fn read(reading: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reading.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if reading.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = Vec::new();
    reading.take(length).read_to_end(&mut body)?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let query = query.split('&').filter_map(|pair| pair.split_once('='));
    let query = query.map(|(name, value)| (decoded(name), decoded(value))).collect();
    let (at, path) = (Instant::now(), path.to_owned());
    Ok(Some(Request { at, method, path, query, headers, body }))
}

/// A text without `%21` and `+`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match (first, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => bytes.push(b' '),
            (other, _) => bytes.push(*other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Notes the request, and takes the fault that is to be played to it.
fn fault_for(shared: &Shared, request: &Request) -> Option<Fault> {
    let mut state = lock(shared);
    state.requests.push(request.clone());
    let place = state.faults.iter().position(|(on, _, _)| on.fits(request))?;
    let (_, fault, times) = &mut state.faults[place];
    let fault = fault.clone();
    if *times != super::ALWAYS {
        *times -= 1;
        if *times == 0 {
            state.faults.remove(place);
        }
    }
    Some(fault)
}

fn answer(
    shared: &Shared,
    request: &Request,
    fault: Option<Fault>,
    out: &mut TcpStream,
) -> io::Result<()> {
    match &fault {
        Some(Fault::BlackHole) => return hold(shared, out),
        Some(Fault::Delay(delay)) => thread::sleep(*delay),
        Some(Fault::Status(code, message)) => return status(out, *code, message, None),
        Some(Fault::RetryAfter(code, after)) => return status(out, *code, "later", Some(*after)),
        _ => {}
    }
    {
        let state = lock(shared);
        let bearer = request.headers.get("authorization");
        let known = |token: &String| bearer.is_none_or(|b| *b != format!("Bearer {token}"));
        if state.token.as_ref().is_some_and(known) {
            drop(state);
            return status(out, 401, "Unauthorized", None);
        }
        let selector = request.query.get("fieldSelector").cloned().unwrap_or_default();
        if state.unknown_field.as_ref().is_some_and(|field| selector.contains(field.as_str())) {
            drop(state);
            return status(out, 400, "field label not supported", None);
        }
    }
    if let Some((path, name)) = request.path.rsplit_once('/')
        && path == NODES
    {
        one(shared, request, name, out)
    } else if request.watch() {
        watch(shared, request, fault, out)
    } else {
        list(shared, request, fault, out)
    }
}

/// One node: gets it, or changes it by a JSON patch of tests and replacements.
fn one(shared: &Shared, request: &Request, name: &str, out: &mut TcpStream) -> io::Result<()> {
    let mut state = lock(shared);
    state.version += 1;
    let version = state.version;
    let Some(node) = state.objects.get_mut(&(NODES.to_owned(), name.to_owned())) else {
        drop(state);
        return status(out, 404, "nodes not found", None);
    };
    if request.method == "PATCH" {
        let patch: Vec<Value> = serde_json::from_slice(&request.body).unwrap_or_default();
        let mut changed = node.clone();
        for step in patch {
            let at = changed.pointer_mut(step["path"].as_str().unwrap_or_default());
            match (step["op"].as_str(), at) {
                (Some("test"), Some(value)) if *value == step["value"] => {}
                (Some("replace"), Some(value)) => *value = step["value"].clone(),
                _ => {
                    drop(state);
                    return status(out, 422, "the patch does not apply", None);
                }
            }
        }
        changed["metadata"]["resourceVersion"] = version.to_string().into();
        *node = changed;
    }
    let body = node.to_string();
    drop(state);
    write!(out, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Keeps the connection and says nothing, until the fault or the server ends.
fn hold(shared: &Shared, out: &TcpStream) -> io::Result<()> {
    loop {
        let state = lock(shared);
        let (state, _) = shared
            .changed
            .wait_timeout(state, Duration::from_millis(50))
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if state.stopped {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        drop(state);
        // A client that has gone is not waited for.
        out.set_nonblocking(true)?;
        let gone = matches!(out.peek(&mut [0]), Ok(0));
        out.set_nonblocking(false)?;
        if gone {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
    }
}

fn status(out: &mut TcpStream, code: u16, message: &str, after: Option<u64>) -> io::Result<()> {
    let reason = if code == 410 { "Expired" } else { "Failure" };
    let body = json!({"kind": "Status", "code": code, "reason": reason, "message": message});
    let body = body.to_string();
    let after = after.map(|after| format!("Retry-After: {after}\r\n")).unwrap_or_default();
    write!(out, "HTTP/1.1 {code} X\r\n{after}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn header(out: &mut TcpStream) -> io::Result<()> {
    out.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
    )
}

fn chunk(out: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    write!(out, "{:x}\r\n", bytes.len())?;
    out.write_all(bytes)?;
    out.write_all(b"\r\n")?;
    out.flush()
}

fn end(out: &mut TcpStream) -> io::Result<()> {
    out.write_all(b"0\r\n\r\n")?;
    out.flush()
}

fn list(
    shared: &Shared,
    request: &Request,
    fault: Option<Fault>,
    out: &mut TcpStream,
) -> io::Result<()> {
    let selector = request.query.get("fieldSelector").cloned().unwrap_or_default();
    let limit = request.query.get("limit").and_then(|limit| limit.parse().ok());
    // A token is the version and the last name so far: all pages are of one version.
    let token = request.query.get("continue").and_then(|token| token.split_once(' '));
    let (body, delay) = {
        let state = lock(shared);
        let version = match token {
            None => state.version,
            Some((version, _)) => {
                let version = version.parse().unwrap_or(0);
                if version < state.oldest {
                    drop(state);
                    return status(out, 410, "The provided continue parameter is too old", None);
                }
                version
            }
        };
        let after = token.map(|(_, name)| name.to_owned());
        let of = state.objects.iter().filter(|((path, name), object)| {
            *path == request.path
                && after.as_ref().is_none_or(|after| name > after)
                && matches(&selector, object)
        });
        let size = limit.unwrap_or(usize::MAX).min(state.page);
        let mut page: Vec<(&str, &Value)> =
            of.map(|((_, name), object)| (name.as_str(), object)).take(size + 1).collect();
        let more = page.len() > size;
        page.truncate(size);
        let last = page.last().map_or("", |(name, _)| *name);
        let token = if more { format!("{version} {last}") } else { String::new() };
        let items: Vec<&Value> = page.iter().map(|(_, object)| *object).collect();
        let metadata = json!({"resourceVersion": version.to_string(), "continue": token});
        (json!({"metadata": metadata, "items": items}).to_string(), state.page_delay)
    };
    thread::sleep(delay);
    let body = match &fault {
        Some(Fault::Text(text)) => text.clone(),
        _ => body,
    };
    header(out)?;
    match fault {
        Some(Fault::Stall) => {
            chunk(out, &body.as_bytes()[..body.len() / 2])?;
            hold(shared, out)
        }
        Some(Fault::Cut(bytes)) => {
            chunk(out, &body.as_bytes()[..bytes.min(body.len())])?;
            Err(io::ErrorKind::ConnectionAborted.into())
        }
        Some(Fault::Empty) => end(out),
        _ => {
            for part in body.as_bytes().chunks(64 << 10) {
                chunk(out, part)?;
            }
            end(out)
        }
    }
}

fn watch(
    shared: &Shared,
    request: &Request,
    fault: Option<Fault>,
    out: &mut TcpStream,
) -> io::Result<()> {
    let number = |name: &str| request.query.get(name).and_then(|text| text.parse::<u64>().ok());
    let selector = request.query.get("fieldSelector").cloned().unwrap_or_default();
    let mut seen = number("resourceVersion").unwrap_or(0);
    let lasting = Duration::from_secs(number("timeoutSeconds").unwrap_or(300));
    let until = Instant::now() + lasting;
    if seen < lock(shared).oldest {
        return status(out, 410, "too old resource version", None);
    }
    header(out)?;
    match fault {
        Some(Fault::Silence | Fault::Stall) => return hold(shared, out),
        Some(Fault::Empty) => return end(out),
        Some(Fault::Cut(bytes)) => {
            let line = r#"{"type":"ADDED","object":{"metadata":{"name":"cut-off"}}}"#;
            chunk(out, &line.as_bytes()[..bytes.min(line.len())])?;
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Some(Fault::Lines(lines)) => {
            for line in lines {
                chunk(out, format!("{line}\n").as_bytes())?;
            }
        }
        _ => {}
    }
    let mut told = Instant::now();
    loop {
        let (events, version, bookmarks) = {
            let state = lock(shared);
            let (state, _) = shared
                .changed
                .wait_timeout(state, Duration::from_millis(10))
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            if state.stopped {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            let new = state.history.iter();
            let new = new.filter(|change| change.path == request.path && change.version > seen);
            let events: Vec<String> = new.filter_map(|change| event(change, &selector)).collect();
            let late = state.late.as_ref().filter(|(begin, _)| selector.starts_with(begin));
            let late = late.filter(|_| !events.is_empty()).map(|(_, late)| *late);
            let told = (events, state.version, state.bookmarks);
            drop(state);
            thread::sleep(late.unwrap_or_default());
            told
        };
        for event in &events {
            chunk(out, format!("{event}\n").as_bytes())?;
        }
        // A version from the future gets neither events nor bookmarks until it is passed.
        if told.elapsed() >= bookmarks && version >= seen {
            told = Instant::now();
            let metadata = json!({"resourceVersion": version.to_string()});
            let bookmark = json!({"type": "BOOKMARK", "object": {"metadata": metadata}});
            chunk(out, format!("{bookmark}\n").as_bytes())?;
        }
        seen = seen.max(version);
        if Instant::now() > until {
            return end(out);
        }
    }
}

/// What a watch with a selector sees of a change.
fn event(change: &Change, selector: &str) -> Option<String> {
    let fits =
        |object: &Option<Value>| object.as_ref().is_some_and(|object| matches(selector, object));
    let (kind, object) = match (fits(&change.before), fits(&change.after)) {
        (false, true) => ("ADDED", change.after.clone()),
        (true, true) => ("MODIFIED", change.after.clone()),
        // With its old content and the new version.
        (true, false) => ("DELETED", change.before.clone()),
        (false, false) => return None,
    };
    let mut object = object?;
    object["metadata"]["resourceVersion"] = change.version.to_string().into();
    Some(json!({"type": kind, "object": object}).to_string())
}
