//! A judgement for a reader.

use std::fmt::Write;

use np_policy::explain::{
    End, Judgement, Miss, PeerList, PortList, Probe, Protocol, Side, Standing, Unless, Wrong,
};

/// More rules than this are only counted.
const MOST: usize = 10;

pub fn render(
    probe: &Probe<'_>,
    judgement: &Judgement<'_>,
    unless: Option<Unless<'_>>,
    notes: &[String],
) -> String {
    let Probe { from, to, protocol, port } = probe;
    let port = match protocol {
        Protocol::Icmp => "ICMP echo".to_owned(),
        Protocol::Tcp | Protocol::Udp | Protocol::Sctp => format!("{protocol} {port}"),
    };
    let reason = match judgement.reason {
        Some(reason) => reason.name(),
        None => "no pod at either end",
    };
    let verdict = judgement.verdict().to_uppercase();
    let unless = unless.map_or(String::new(), |Unless { address, node }| {
        format!(", unless {address} is node {node}'s own")
    });
    let mut text = format!("{from} -> {to}, {port}: {verdict} ({reason}){unless}\n");
    side(&mut text, "Egress", from, to, &judgement.egress);
    side(&mut text, "Ingress", to, from, &judgement.ingress);
    let hops: Vec<String> = judgement
        .hops
        .iter()
        .map(|hop| {
            let end = if hop.at_sender { "sender's node" } else { "receiver's node" };
            format!("{} {} ({end})", hop.hook.name(), hop.reason.name())
        })
        .collect();
    if !hops.is_empty() {
        line(&mut text, "\nHooks:  ", &hops.join(", "));
    }
    for note in notes {
        line(&mut text, "\nNote: ", note);
    }
    text
}

fn side(text: &mut String, name: &str, own: &End<'_>, other: &End<'_>, side: &Side<'_>) {
    let Side { standing, isolated_by, allowed_by, near } = side;
    let pod = match own {
        End::Pod { subject, .. } => subject.pod.key.to_string(),
        end => end.to_string(),
    };
    let says = match standing {
        Standing::NotSubject => "no pod that policy applies to",
        Standing::SamePod => "allowed, a pod is never kept from itself",
        Standing::OwnNode => "allowed, as all traffic between a pod and its own node",
        Standing::NotIsolated => "allowed, no policy isolates this direction",
        Standing::Allowed => "allowed",
        Standing::Denied => "DENIED, no rule allows it",
    };
    line(text, "\n", &format!("{name} of {pod}: {says}"));
    if !isolated_by.is_empty() {
        let names: Vec<String> =
            isolated_by.iter().take(MOST).map(|policy| policy.key.to_string()).collect();
        line(text, "  isolated by  ", &(names.join(", ") + &more(isolated_by.len())));
    }
    for rule in allowed_by.iter().take(MOST) {
        let (peers, ports) = (PeerList(*rule), PortList(*rule));
        let rule = format!("{} {rule}: {peers}, {ports}", rule.policy.key);
        line(text, "  allowed by   ", &rule);
    }
    if allowed_by.len() > MOST {
        line(text, "              ", &more(allowed_by.len()));
    }
    for Miss { rule, wrong } in near.iter().take(MOST) {
        let wants = match wrong {
            Wrong::Port => format!("right peer, wrong port: it allows {}", PortList(*rule)),
            Wrong::Peer => {
                format!("right port, wrong peer: {} is not {}", short(other), PeerList(*rule))
            }
        };
        line(text, "  nearly       ", &format!("{} {rule}: {wants}", rule.policy.key));
    }
    if near.len() > MOST {
        line(text, "              ", &more(near.len()));
    }
    if *standing == Standing::Denied && near.is_empty() {
        line(text, "  ", "no rule is near: none has this peer, none this port");
    }
}

fn short(end: &End<'_>) -> String {
    match end {
        End::Pod { subject, .. } => subject.pod.key.to_string(),
        end => end.address().to_string(),
    }
}

fn more(count: usize) -> String {
    match count.checked_sub(MOST) {
        Some(more) if more > 0 => format!(" and {more} more (-o json lists all)"),
        _ => String::new(),
    }
}

/// Writing to a String cannot fail.
fn line(text: &mut String, label: &str, value: &str) {
    writeln!(text, "{label}{value}").ok();
}
