//! `kubectl np explain`: asks the agent that has the policies of the pod in question.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use crate::agents::{self, Node};
use crate::args::{AskedArgs, ExplainArgs};
use crate::ask;
use crate::ends::{End, PodName};
use crate::error::Error;
use crate::kubectl::Kubectl;

/// Runs the command and returns its exit code.
///
/// # Errors
/// If an end is not one, or kubectl does not find a pod or an agent.
pub fn run(kubectl: &Kubectl, args: &ExplainArgs) -> Result<u8, Error> {
    if let Some(file) = &args.probes {
        return probes(kubectl, args, file);
    }
    // clap has seen to it that both are there.
    let given = |end: &Option<String>| end.clone().unwrap_or_default();
    let to = End::parse("--to", &given(&args.to))?;
    let from = End::parse("--from", &given(&args.from))?;
    let free = args.on.node.is_none();
    let of_to = Place::of(kubectl, "--to", &to, free)?;
    let of_from = Place::of(kubectl, "--from", &from, free && !matches!(to, End::Pod(_)))?;
    let node = match (&args.on.node, &to, &from) {
        (Some(node), ..) => Some(node.clone()),
        (None, End::Pod(_), _) => of_to.node,
        (None, _, End::Pod(_)) => of_from.node,
        (None, ..) => of_to.node.or(of_from.node),
    };
    let node = whom(kubectl, node.as_deref())?;
    ask::pass_on(kubectl, &node, &words(&of_from.end, &of_to.end, args))
}

/// An end as np-agent is given it, and the node that it is on if that was looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    end: String,
    node: Option<String>,
}

impl Place {
    /// Asks kubectl only for what the name does not say: the namespace, or the node if it is wanted.
    fn of(kubectl: &Kubectl, field: &str, end: &End, wanted: bool) -> Result<Self, Error> {
        Ok(match end {
            End::Address(address) => Self { end: address.to_string(), node: None },
            End::Node(name) => Self { end: format!("node:{name}"), node: Some(name.clone()) },
            End::Pod(PodName { namespace: Some(namespace), name }) if !wanted => {
                Self { end: format!("{namespace}/{name}"), node: None }
            }
            End::Pod(named) => {
                let pod = named.find(kubectl, field)?;
                let node = if wanted { Some(pod.node()?) } else { None };
                Self { end: pod.key(), node }
            }
        })
    }
}

/// Where no pod says which agent to ask, any agent has the objects.
fn whom(kubectl: &Kubectl, node: Option<&str>) -> Result<Node, Error> {
    match node {
        Some(node) => agents::on(kubectl, node),
        None => agents::any(kubectl),
    }
}

/// Hands a file of probes to an agent, and its answers on as they come.
fn probes(kubectl: &Kubectl, args: &ExplainArgs, file: &Path) -> Result<u8, Error> {
    let input = if file == Path::new("-") {
        Stdio::inherit()
    } else {
        let opened = File::open(file);
        opened.map_err(|source| Error::Probes { path: file.to_owned(), source })?.into()
    };
    let node = whom(kubectl, args.on.node.as_deref())?;
    let pod = node.pod(&kubectl.agent_namespace).map_err(|silence| silence.on(&node))?;
    kubectl.stream(pod, &probes_words(args), input)
}

/// What np-agent is asked about one connection.
pub fn words(from: &str, to: &str, args: &ExplainArgs) -> Vec<String> {
    let AskedArgs { port, protocol, family, expect, output } = &args.asked;
    let (from, to) = (Some(from.to_owned()), Some(to.to_owned()));
    let flags = [
        ("from", &from),
        ("to", &to),
        ("port", port),
        ("protocol", protocol),
        ("family", family),
        ("expect", expect),
        ("output", output),
    ];
    with_flags(&flags, args)
}

/// What np-agent is asked about many.
pub fn probes_words(args: &ExplainArgs) -> Vec<String> {
    let stdin = Some("-".to_owned());
    with_flags(&[("probes", &stdin), ("expect", &args.asked.expect)], args)
}

fn with_flags(flags: &[(&str, &Option<String>)], args: &ExplainArgs) -> Vec<String> {
    let given = flags.iter().filter_map(|(flag, value)| Some((flag, value.as_ref()?)));
    let flags = given.map(|(flag, value)| format!("--{flag}={value}"));
    ["explain".to_owned()].into_iter().chain(flags).chain(args.on.further.clone()).collect()
}
