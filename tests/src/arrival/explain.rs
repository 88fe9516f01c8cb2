//! Why something may have arrived. What no rule here explains is a hole.
//!
//! An arrival is explained by the one who really sent it, which its mark tells, never by what its
//! headers say. Each end's node is a gate of its own: it lets a packet through because policy allows it
//! as it is, or because it answers what that node has let through in the other direction.
//!
//! ```text
//!   sender's node:    egress(sender → receiver)   or  the sender got it,   ingress(sender ← as seen)
//!   receiver's node:  ingress(receiver ← seen)    or  the receiver asked,  egress(receiver → sender)
//! ```
//!
//! On one node both gates are one: both must be passed for the same reason.

use std::fmt;
use std::net::IpAddr;

use super::chronicle::{Chronicle, Sent};
use super::gates::{Case, Emitter};
use super::host::Kind;
use super::mark::Mark;
use super::seen::{Flow, Form, ICMPV6, Ip, Seen};
use super::tap::{Frame, SECOND};

/// Why something may arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Policy allows it as it is.
    Allowed,
    /// It answers what the receiver asked, or is an error about that.
    Reply,
    /// The receiver's own payload comes back.
    Own,
    /// A process of the receiver's node sent it.
    OwnNode,
    /// The receiver's device had no program yet.
    Window,
    /// Kernels talk to their neighbours, with nothing of the adversary's in it.
    Kernel,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Allowed => "allowed",
            Why::Reply => "reply",
            Why::Own => "own payload",
            Why::OwnNode => "own node",
            Why::Window => "no program yet",
            Why::Kernel => "kernels' own",
        })
    }
}

/// Explains a frame.
///
/// # Errors
/// Why it cannot be explained.
pub fn explain(chronicle: &Chronicle, frame: &Frame) -> Result<Why, String> {
    let marks = Mark::find(&frame.bytes);
    let Some(seen) = Seen::read(&frame.bytes) else { return Ok(Why::Kernel) };
    if marks.is_empty() {
        return unmarked(chronicle, frame, &seen);
    }
    let mut why = Why::Kernel;
    for mark in marks {
        let sent = chronicle.sent.get(&mark).ok_or("nobody has sent this mark")?;
        why = marked(chronicle, frame, &seen, mark, sent)?;
    }
    Ok(why)
}

fn marked(
    chronicle: &Chronicle,
    frame: &Frame,
    seen: &Seen,
    mark: Mark,
    sent: &Sent,
) -> Result<Why, String> {
    let receiver = chronicle.host(frame.host);
    let author = chronicle.host(sent.author);
    if sent.author == frame.host {
        return Ok(Why::Own);
    }
    if receiver.unattached(frame.time) {
        return Ok(Why::Window);
    }
    if author.kind == Kind::Node && author.node == receiver.node && receiver.kind == Kind::Pod {
        return Ok(Why::OwnNode);
    }
    let Some(ip) = seen.ip else { return beside_ip(chronicle, frame, sent) };
    let case = Case::new(chronicle, frame, ip, sent.flow, sent.form);
    let carried = chronicle.carried.get(&mark).map(Vec::as_slice).unwrap_or_default();
    let comes_back = carried.iter().any(|one| {
        one.host == frame.host && same(one.form, ip.form) && one.flow.dst == ip.flow.dst
    });
    if comes_back {
        return Ok(Why::Own);
    }
    if carried.iter().all(|one| one.host == sent.author)
        && is_the_nodes_answer(chronicle, frame, ip, sent)
    {
        return Ok(Why::OwnNode);
    }
    case.is_addressed()?;
    if let (Some(flow), Some(form)) = (sent.flow, sent.form)
        && same(form, ip.form)
    {
        let pod = (author.kind == Kind::Pod).then_some(sent.author);
        return case.explain(Emitter { pod, flow, form, time: sent.time });
    }
    // Somebody's kernel has answered with it or quoted it: that one sent what arrived.
    let mut refused = String::new();
    for one in carried.iter().filter(|one| one.host != frame.host && same(one.form, ip.form)) {
        let pod = (chronicle.host(one.host).kind == Kind::Pod).then_some(one.host);
        match case.explain(Emitter { pod, flow: one.flow, form: one.form, time: one.time }) {
            Ok(why) => return Ok(why),
            Err(error) => {
                refused += &format!("; handed on by {}: {error}", chronicle.host(one.host).name);
            }
        }
    }
    if refused.is_empty() && case.is_the_nodes_to_an_unknown_pod() {
        return Ok(Why::OwnNode);
    }
    if refused.is_empty() {
        // A node or the network between them.
        return case
            .explain(Emitter { pod: None, flow: ip.flow, form: ip.form, time: sent.time })
            .map_err(|error| format!("handed on by a node or the network: {error}"));
    }
    Err(refused)
}

/// A node answers a pod of its own, or tells it what became of its packet; or so it answers what somebody
/// outside has sent in the name of a pod that nobody isolates. A bridge takes it to whoever has claimed
/// that pod's hardware address since: it is the node's, whoever gets it.
fn is_the_nodes_answer(chronicle: &Chronicle, frame: &Frame, ip: Ip, sent: &Sent) -> bool {
    let Some(flow) = sent.flow else { return false };
    let answers = match ip.form {
        Form::Error(Some(quoted)) => quoted == flow,
        Form::EchoReply => ip.flow.reversed() == flow,
        _ => false,
    };
    let (receiver, author) = (chronicle.host(frame.host), chronicle.host(sent.author));
    let own = author.kind == Kind::Pod && author.node == receiver.node && author.has(flow.src);
    let open = |host| {
        let frame = Frame { host, ..frame.clone() };
        Case::new(chronicle, &frame, ip, None, None).is_open()
    };
    let mut owners = chronicle.owners(flow.src, frame.time);
    answers
        && ip.flow.dst == flow.src
        && chronicle.can_be_the_nodes(ip.flow.src, receiver.node)
        && (own || author.kind == Kind::Outside && owners.all(|(id, _)| open(id)))
}

/// What no kernel but a neighbour's can have sent, without a mark.
fn unmarked(chronicle: &Chronicle, frame: &Frame, seen: &Seen) -> Result<Why, String> {
    let receiver = chronicle.host(frame.host);
    let Some(ip) = seen.ip else { return Ok(Why::Kernel) };
    let neighbourly = match (ip.flow.protocol, ip.form) {
        (ICMPV6, Form::Message(message)) => matches!(message, 130..=137 | 143),
        (protocol, _) => protocol == 2,
    };
    // By its address, or by a gateway's if it answers what the pod has sent there.
    let own_node = chronicle.node(ip.flow.src) == Some(receiver.node)
        || chronicle.can_be_the_nodes(ip.flow.src, receiver.node)
            && chronicle.opened(frame.host, &ip.flow.reversed(), frame.time);
    if neighbourly || own_node || receiver.kind != Kind::Pod || receiver.unattached(frame.time) {
        return Ok(Why::Kernel);
    }
    if ip.form == Form::Later
        && let Some(why) = piece(chronicle, frame, ip)
    {
        return Ok(why);
    }
    let case = Case::new(chronicle, frame, ip, None, None);
    case.is_addressed()?;
    let pod = chronicle.owners(ip.flow.src, frame.time).next().map(|(id, _)| id);
    case.explain(Emitter { pod, flow: ip.flow, form: ip.form, time: frame.time })
        .map_err(|error| format!("no mark: {error}"))
}

/// A piece that a node has cut may be too small for a mark: then it is of a datagram that was sent just
/// now between the same two.
fn piece(chronicle: &Chronicle, frame: &Frame, ip: Ip) -> Option<Why> {
    let late = |sent: &&Sent| sent.time + 3 * SECOND > frame.time;
    chronicle.sent.values().rev().take_while(late).find_map(|sent| {
        let flow = sent.flow.filter(|flow| {
            (flow.src, flow.dst, flow.protocol) == (ip.flow.src, ip.flow.dst, ip.flow.protocol)
        })?;
        let case = Case::new(chronicle, frame, ip, Some(flow), sent.form);
        case.is_addressed().ok()?;
        let author = chronicle.host(sent.author);
        let pod = (author.kind == Kind::Pod).then_some(sent.author);
        case.explain(Emitter { pod, flow, form: ip.form, time: sent.time }).ok()
    })
}

/// ARP and whatever else is not IP: nothing of it has room for a mark as it should be sent. Between
/// two that may say anything to each other it does no harm.
fn beside_ip(chronicle: &Chronicle, frame: &Frame, sent: &Sent) -> Result<Why, String> {
    let (receiver, author) = (chronicle.host(frame.host), chronicle.host(sent.author));
    let address = IpAddr::V4(receiver.v4);
    let ip = Ip {
        flow: Flow { src: author.v4.into(), dst: address, protocol: 255, sport: 0, dport: 0 },
        form: Form::Other,
        hop_limit: 1,
    };
    let case = Case::new(chronicle, frame, ip, None, None);
    let pod = (author.kind == Kind::Pod).then_some(sent.author);
    case.explain(Emitter { pod, flow: ip.flow, form: ip.form, time: sent.time })
        .map_err(|error| format!("not IP, and with room for a message: {error}"))
}

fn same(one: Form, other: Form) -> bool {
    match (one, other) {
        (Form::Error(_), Form::Error(_)) => true,
        // Nodes put pieces together and take them apart.
        (Form::Later | Form::Ported | Form::Other, Form::Later | Form::Ported | Form::Other) => {
            true
        }
        _ => one == other,
    }
}

#[cfg(test)]
mod tests;
