//! The demo as one self-contained page: no script, no font, nothing from elsewhere.

mod picture;

use std::fmt::Write;

use super::Show;
use super::terminal::{agreed, difference, said};
use crate::address::Family;
use crate::probe::Outcome;
use crate::story::edit::{self, Fact};
use crate::story::malformed::{GOOD, PlayedMistake};
use crate::story::matrix::{Cell, Expected, Matrix};
use crate::story::{Played, PlayedStep};
use crate::topology::Spec;

/// Renders the page.
pub fn page(show: &Show, spec: &Spec) -> String {
    let verdict = if show.differing() == 0 { "good" } else { "bad" };
    let mut body = format!(
        "<header>\n<h1>np-agent, story by story</h1>\n\
         <p>Every cell below is real traffic between network namespaces, judged by one np-agent per \
         node, behind rules as kube-proxy writes them.</p>\n\
         <p class=\"summary {verdict}\">{}</p>\n</header>\n",
        escape(&show.summary())
    );
    body += &contents(show);
    body += &format!(
        "<section id=\"topology\">\n<h2>The cluster</h2>\n{}\n\
         <p>Nodes, pods and hosts outside are network namespaces joined by veths. Services exist only \
         as kube-proxy's rules on each node: svc-b 100.64.5.20:443 leads to port 8443 of the pods \
         pod-b-1, pod-b-2 and pod-b-3, from outside through NodePort 30443; svc-b-local is the same \
         with externalTrafficPolicy Local and NodePort 30444. Port 8444 of node-2 is a host port of \
         pod-b-1. host-a and host-b have their nodes' network. Each IPv4 address has an IPv6 twin \
         that reads alike: 100.68.1.10 is fd00:100:68:1::10.</p>\n</section>\n",
        picture::svg(spec)
    );
    body += "<section class=\"legend\">\n<p>One mark for IPv4, one for IPv6. \
        <span class=\"cell yes\">✓</span> answered, as expected. \
        <span class=\"cell no\">✗</span> timed out, as expected. \
        <span class=\"cell bad\">differs</span> not as expected. \
        <span class=\"cell none\">·</span> not tried. \
        The name below a mark is whose address the server saw.</p>\n</section>\n";
    for played in &show.stories {
        body += &story(played, spec);
    }
    if !show.edit.is_empty() {
        body += &edited(&show.edit);
    }
    if !show.malformed.is_empty() {
        body += &malformed(&show.malformed);
    }
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>np-agent, story by story</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
}

const STYLE: &str = include_str!("html/style.css");

fn contents(show: &Show) -> String {
    let mut out = String::from("<nav aria-label=\"Stories\">\n<ol>\n");
    let mut entry = |id: &str, label: &str, title: &str, differing: usize| {
        let mark = if differing == 0 { "good" } else { "bad" };
        let title = escape(title);
        put(
            &mut out,
            format_args!("<li class=\"{mark}\"><a href=\"#{id}\"><b>{label}</b> {title}</a></li>"),
        );
    };
    for played in &show.stories {
        entry(played.story.id, played.story.id, played.story.title, played.differing());
    }
    if !show.edit.is_empty() {
        let differing = show.edit.iter().filter(|fact| !fact.agrees).count();
        entry("edit", "Edit", "A policy edited under traffic", differing);
    }
    if !show.malformed.is_empty() {
        let differing = show.malformed.iter().map(PlayedMistake::differing).sum();
        entry("malformed", "C", "Malformed manifests", differing);
    }
    out + "</ol>\n</nav>\n"
}

fn story(played: &Played, spec: &Spec) -> String {
    let (id, title) = (played.story.id, escape(played.story.title));
    let mut out = format!("<section id=\"{id}\">\n<h2><span>{id}</span> {title}</h2>\n");
    for step in &played.steps {
        out += &one_step(step, spec);
    }
    out + "</section>\n"
}

fn one_step(played: &PlayedStep, spec: &Spec) -> String {
    let step = played.step;
    let mut out = format!("<div class=\"step\">\n<p class=\"says\">{}</p>\n", escape(step.says));
    out += &matrix(&played.matrix, spec);
    if let Some(side) = &played.side {
        let class = if side.agrees() { "good" } else { "bad" };
        put(
            &mut out,
            format_args!(
                "<p class=\"side {class}\">Refused by the <b>{}</b> side. Packets dropped for ingress: {}, for egress: {}.</p>",
                side.expected.name(),
                side.ingress,
                side.egress
            ),
        );
    }
    for (namespace, label) in step.unlabel {
        put(
            &mut out,
            format_args!(
                "<p>For this step the Namespace {namespace} is without its label <code>{label}</code>.</p>"
            ),
        );
    }
    if step.policy.is_empty() {
        out += "<p class=\"quiet\">No policy.</p>\n";
    } else {
        let note = if step.names_addresses() {
            " <span class=\"quiet\">(played in IPv6 with the blocks’ twins)</span>"
        } else {
            ""
        };
        put(
            &mut out,
            format_args!(
                "<details open><summary>Policy{note}</summary>\n<pre>{}</pre></details>",
                escape(step.policy)
            ),
        );
    }
    out + "</div>\n"
}

fn matrix(matrix: &Matrix, spec: &Spec) -> String {
    let mut out = String::from("<div class=\"wide\"><table>\n<tr><td></td>");
    for target in &matrix.targets {
        let place = place(&target.name, spec);
        let text = escape(&target.text);
        out += &format!("<th scope=\"col\">{text}<small>{place}</small></th>");
    }
    out += "</tr>\n";
    for (from, cells) in &matrix.rows {
        out += &format!("<tr><th scope=\"row\">{from}<small>{}</small></th>", place(from, spec));
        for cell in cells {
            out += &one_cell(cell.as_ref());
        }
        out += "</tr>\n";
    }
    out + "</table></div>\n"
}

fn one_cell(cell: Option<&Cell>) -> String {
    let Some(cell) = cell else { return "<td class=\"none\">·</td>".into() };
    let seen = |source: &str| format!("<small>{source}</small>");
    if cell.agrees() {
        return match &cell.expected {
            Expected::No => format!("<td class=\"no\">{}</td>", agreed(cell)),
            Expected::Yes(None) => format!("<td class=\"yes\">{}</td>", agreed(cell)),
            Expected::Yes(Some(source)) => {
                format!("<td class=\"yes\">{}{}</td>", agreed(cell), seen(source))
            }
        };
    }
    let lines: Vec<String> = cell
        .observed
        .iter()
        .map(|observed| match observed.agrees {
            true => {
                let reply = observed.outcomes.iter().all(Outcome::replied);
                format!("{} {}", observed.family.name(), if reply { "✓" } else { "✗" })
            }
            false => escape(&difference(cell, observed)),
        })
        .collect();
    format!("<td class=\"bad\">{}</td>", lines.join("<br>"))
}

/// Where something is: its namespace and node, or its IPv4 address.
fn place(name: &str, spec: &Spec) -> String {
    if let Some(pod) = spec.pod(name) {
        return format!("{} · {}", pod.namespace, pod.node);
    }
    let address = spec.address(name).map(|v4| Family::V4.address(v4).to_string());
    match address {
        Some(address) if address != name => address,
        _ => "outside".into(),
    }
}

fn edited(facts: &[Fact]) -> String {
    let mut out = String::from(
        "<section id=\"edit\">\n<h2><span>Edit</span> A policy edited on disk, under traffic</h2>\n\
         <p class=\"says\">Two connections of pod-a talk without pause while the file is replaced.</p>\n<ul class=\"facts\">\n",
    );
    for Fact { says, observed, agrees } in facts {
        let class = if *agrees { "good" } else { "bad" };
        put(
            &mut out,
            format_args!(
                "<li class=\"{class}\">{}: <b>{}</b></li>",
                escape(says),
                escape(observed)
            ),
        );
    }
    put(
        &mut out,
        format_args!(
            "</ul>\n<div class=\"pair\"><div><p>Before</p><pre>{}</pre></div><div><p>After</p><pre>{}</pre></div></div>\n</section>",
            escape(edit::BEFORE),
            escape(edit::AFTER)
        ),
    );
    out
}

fn malformed(played: &[PlayedMistake]) -> String {
    let mut out = format!(
        "<section id=\"malformed\">\n<h2><span>C</span> Malformed manifests</h2>\n\
         <p class=\"says\">What people really paste, what they are told, and that the policy in force \
         stays in force. Each file is put beside a good one:</p>\n<details><summary>The policy in force</summary><pre>{}</pre></details>\n",
        escape(GOOD)
    );
    for one in played {
        let class = if one.differing() == 0 { "good" } else { "bad" };
        put(
            &mut out,
            format_args!(
                "<article class=\"mistake {class}\">\n<h3>{}</h3>\n<pre>{}</pre>",
                escape(one.mistake.title),
                marked(one)
            ),
        );
        for message in &one.messages {
            put(&mut out, format_args!("<p class=\"message\">{}</p>", escape(&said(message))));
        }
        if !one.explained {
            out += "<p class=\"side bad\">Differs: no message points to the fault, names it and tells the remedy.</p>\n";
        }
        let unchanged = if one.matrix.differing() == 0 {
            "Enforcement did not change."
        } else {
            "Differs: enforcement changed."
        };
        put(&mut out, format_args!("<p class=\"quiet\">{unchanged}</p>\n</article>"));
    }
    out + "</section>\n"
}

/// A malformed file with line numbers; the lines the messages point to are marked.
fn marked(played: &PlayedMistake) -> String {
    let mut out = String::new();
    for (number, line) in (1_u32..).zip(played.mistake.text.lines()) {
        let text = format!("<i>{number:>2}</i>  {}", escape(line));
        if played.messages.iter().any(|message| message.line == number) {
            put(&mut out, format_args!("<mark>{text}</mark>"));
        } else {
            put(&mut out, format_args!("{text}"));
        }
    }
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Appends one line. Writing to a string cannot fail.
fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(out, "{line}").expect("a string takes every write");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proxy::Mode;
    use crate::story::cluster;
    use crate::story::matrix::{Observed, Table};

    fn shown(outcome: Outcome) -> (String, Show) {
        let story = crate::story::all().next().unwrap();
        let table = Table::parse("pod-b-1:8443\npod-a no").unwrap();
        let agrees = outcome == Outcome::Timeout;
        let observed =
            vec![Observed { family: Family::V4, outcomes: vec![outcome], source: None, agrees }];
        let cell = Cell { expected: Expected::No, observed };
        let matrix =
            Matrix { targets: table.targets, rows: vec![("pod-a".into(), vec![Some(cell)])] };
        let step =
            PlayedStep { step: &story.steps[0], matrix, side: None, applied: Duration::ZERO };
        let show = Show {
            proxy: Mode::Iptables,
            stories: vec![Played { story, steps: vec![step] }],
            edit: Vec::new(),
            malformed: Vec::new(),
            took: Duration::ZERO,
        };
        (page(&show, &cluster::spec()), show)
    }

    #[test]
    fn a_differing_cell_shows_what_was_expected_and_what_came() {
        let (page, show) = shown(Outcome::Refused);
        assert_eq!((show.checks(), show.differing()), (1, 1));
        assert!(page.contains("expected a time-out, observed refused"), "{page}");
        assert!(page.contains("1 story, 1 cell checked, 1 differ"), "{page}");
        let plain = crate::demo::terminal::Terminal { colour: false };
        let text = plain.story(&show.stories[0]);
        assert!(text.contains("DIFFERS"), "{text}");
        assert!(text.contains("IPv4 expected a time-out, observed refused"), "{text}");
    }

    /// The page may be mailed around: it must not fetch anything, nor break its own markup.
    #[test]
    fn the_page_needs_no_other_file() {
        let (page, show) = shown(Outcome::Timeout);
        assert_eq!(show.differing(), 0);
        for word in ["http:", "https:", "<script", "url(", "@import", " src="] {
            assert!(!page.contains(word), "{word}");
        }
        for tag in ["section", "table", "div", "pre", "svg", "small"] {
            let opened = page.matches(&format!("<{tag}")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }
}
