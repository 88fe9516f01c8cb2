//! `np-agent monitor`.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};

use crate::admin::events_socket;
use crate::args::{MonitorArgs, Output};
use crate::events::{Content, EndLine, EventLine, Line, MissLine, Suppressed, VERSION};

pub fn run(args: &MonitorArgs) -> anyhow::Result<ExitCode> {
    let filter = args.filter();
    filter.check()?;
    let mut agent = connect(&args.run_dir)?;
    let mut asked = serde_json::to_vec(&filter)?;
    asked.push(b'\n');
    agent.write_all(&asked).context("cannot ask the agent")?;
    let mut out = io::stdout().lock();
    for line in BufReader::new(agent).lines() {
        let line = line.context("cannot read the agent's lines")?;
        let text = match args.output {
            Output::Json => refused(&line)?.unwrap_or(line),
            Output::Table => render(&parsed(&line)?)?,
        };
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            // The reader has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
            written => written.context("cannot write to standard output")?,
        }
    }
    if args.follow {
        bail!("the agent has ended; follow the next one by the same command");
    }
    Ok(ExitCode::SUCCESS)
}

fn connect(run_dir: &Path) -> anyhow::Result<UnixStream> {
    let socket = events_socket(run_dir);
    UnixStream::connect(&socket).with_context(|| {
        format!(
            "no agent answers at {}: only a running agent has events, and only root may ask it; \
             --run-dir names its directory if it is another",
            socket.display()
        )
    })
}

fn parsed(line: &str) -> anyhow::Result<Line> {
    let line: Line = serde_json::from_str(line)
        .with_context(|| format!("the agent is of another version; it says {line}"))?;
    if line.version != VERSION {
        bail!("the agent's lines have version {}, and this np-agent knows {VERSION}", line.version);
    }
    Ok(line)
}

/// Fails if the line says that the agent cannot answer. JSON that this version does not know passes as it
/// is.
fn refused(line: &str) -> anyhow::Result<Option<String>> {
    match serde_json::from_str(line) {
        Ok(Line { content: Content::Error { error }, .. }) => bail!(error),
        _ => Ok(None),
    }
}

/// One line for a reader.
fn render(line: &Line) -> anyhow::Result<String> {
    Ok(match &line.content {
        Content::Event(event) => render_event(event),
        Content::Suppressed(suppressed) => render_suppressed(suppressed),
        Content::Lost { lines } => format!("({lines} lines lost: this monitor did not keep up)"),
        Content::Error { error } => bail!("{error}"),
    })
}

fn render_event(event: &EventLine) -> String {
    let EventLine { time, verdict, reason, protocol, src, dst, .. } = event;
    let protocol = protocol.as_deref().unwrap_or(&event.ethertype);
    let to = match dst.port {
        Some(port) => format!("{}:{port}", bracketed(dst)),
        None => name(dst),
    };
    let reply = if event.reply { " (reply)" } else { "" };
    let who = format!("{} -> {to} {protocol}{reply}", name(src));
    let line = format!("{time}  {verdict:<7}  {who:<44}  {reason:<14}  {}", why(event));
    line.trim_end().to_owned()
}

/// Which policies, and what would nearly have matched.
fn why(event: &EventLine) -> String {
    let mut parts = Vec::new();
    if event.verdict == "allowed" {
        let rules =
            event.allowed_by.iter().map(|rule| format!("{} {}", rule.policy, short(&rule.rule)));
        let rules: Vec<String> = rules.collect();
        if !rules.is_empty() {
            parts.push(format!("allowed by {}", rules.join(", ")));
        }
    } else if !event.isolated_by.is_empty() {
        parts.push(format!("isolated by {}", event.isolated_by.join(", ")));
    }
    if let Some(MissLine { policy, rule, wrong, wants }) = event.near.first() {
        parts.push(format!("nearest: {policy} {} wrong {wrong}, it allows {wants}", short(rule)));
    }
    if event.changed {
        parts.push("policy has changed since".to_owned());
    }
    if parts.is_empty() {
        let device = event.device.clone().unwrap_or_else(|| format!("device {}", event.ifindex));
        parts.push(format!("at {device}"));
    }
    parts.join("; ")
}

/// "egress[0]" of "spec.egress[0]".
fn short(rule: &str) -> &str {
    rule.strip_prefix("spec.").unwrap_or(rule)
}

/// A pod's name, a node's, or the address.
fn name(end: &EndLine) -> String {
    let node = || Some(format!("node:{}", end.node.as_ref()?));
    let named = end.pod_key().or_else(|| node().filter(|_| end.kind == "node"));
    named.or_else(|| end.ip.clone()).unwrap_or_else(|| "?".to_owned())
}

/// As [`name`], fit to be followed by a port.
fn bracketed(end: &EndLine) -> String {
    let name = name(end);
    let is_v6 = !name.contains('/') && !name.starts_with("node:") && name.contains(':');
    if is_v6 { format!("[{name}]") } else { name }
}

fn render_suppressed(Suppressed { time, pod, sends, events, .. }: &Suppressed) -> String {
    let whose = match (pod, sends) {
        (Some(pod), true) => format!("of what {pod} sent"),
        (Some(pod), false) => format!("of what {pod} received"),
        (None, _) => "about no pod of this node".to_owned(),
    };
    format!("{time}  ({events} more events {whose} were suppressed)")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENIED: &str = r#"{"version":1,"type":"event","time":"2026-11-29T07:12:14.123456Z",
        "node":"n1","verdict":"denied","reason":"egress-denied","hook":"to_pod",
        "direction":"egress","ifindex":7,"device":"veth1","generation":3,"protocol":"TCP",
        "ethertype":"0x0800","src":{"kind":"pod","ip":"10.1.0.1","port":40000,"namespace":"shop",
        "pod":"web-0","node":"n1"},"dst":{"kind":"pod","ip":"10.1.0.2","port":5432,
        "namespace":"shop","pod":"db-0","node":"n1"},"reply":false,"policies":["shop/default-deny"],
        "isolated_by":["shop/default-deny","shop/web-to-api"],"allowed_by":[],"near":[{"policy":
        "shop/web-to-api","rule":"spec.egress[0]","wrong":"port","wants":"TCP 3306"}],
        "changed":false}"#;

    fn event() -> EventLine {
        match parsed(DENIED).expect("it is a line").content {
            Content::Event(event) => *event,
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn an_event_is_one_line_with_its_policies_and_the_nearest_miss() {
        let line = render_event(&event());
        assert_eq!(
            line,
            "2026-11-29T07:12:14.123456Z  denied   shop/web-0 -> shop/db-0:5432 TCP              \
             egress-denied   isolated by shop/default-deny, shop/web-to-api; nearest: \
             shop/web-to-api egress[0] wrong port, it allows TCP 3306"
        );
    }

    #[test]
    fn what_is_not_known_is_not_invented() {
        let unknown = EndLine { kind: "unknown".into(), ..EndLine::default() };
        let event = EventLine {
            reason: "ethertype".into(),
            protocol: None,
            ethertype: "0x88cc".into(),
            dst: unknown,
            isolated_by: Vec::new(),
            near: Vec::new(),
            ..event()
        };
        let line = render_event(&event);
        assert!(line.contains("shop/web-0 -> ? 0x88cc"), "{line}");
        assert!(line.ends_with("at veth1"), "{line}");
    }

    #[test]
    fn addresses_nodes_and_replies_are_told_apart() {
        let outside = |ip: &str| EndLine {
            kind: "outside".into(),
            ip: Some(ip.into()),
            port: Some(443),
            ..EndLine::default()
        };
        let node = EndLine { kind: "node".into(), node: Some("n2".into()), ..outside("10.9.0.2") };
        let shown =
            |dst: &EndLine| render_event(&EventLine { dst: dst.clone(), reply: true, ..event() });
        assert!(shown(&outside("2001:db8::1")).contains("-> [2001:db8::1]:443 TCP (reply)"));
        assert!(shown(&outside("192.0.2.1")).contains("-> 192.0.2.1:443 TCP (reply)"));
        assert!(shown(&node).contains("-> node:n2:443 TCP (reply)"));
    }

    #[test]
    fn another_version_is_refused_and_an_error_of_the_agent_is_ours() {
        let later = DENIED.replace("\"version\":1", "\"version\":2");
        assert!(parsed(&later).is_err());
        assert!(refused(&later).expect("JSON passes").is_none());
        let error = r#"{"version":1,"type":"error","error":"too many"}"#;
        assert_eq!(refused(error).expect_err("it is one").to_string(), "too many");
        assert!(render(&parsed(error).expect("a line")).is_err());
    }
}
