//! NetworkPolicy: the whole object read strictly, into a [`Policy`] with defaults filled in.
//!
//! Source of the rules: `pkg/apis/networking/validation/validation.go` and
//! `pkg/apis/networking/v1/defaults.go` of kubernetes/kubernetes.

use super::fields::{At, Fields, Problems, Refused, all};
use super::hints;
use super::metadata::Metadata;
use super::objects;
use super::selector;
use super::tree::Value;
use crate::source::names;
use np_policy::model::{
    Direction, IpBlock, Peer, Policy, PolicyKey, PortMatch, Ports, Rule, Selector,
};

pub(super) fn read<'n>(
    object: &Fields<'n>,
    metadata: Metadata,
    problems: &mut Problems<'n>,
) -> Result<Policy, Refused> {
    // `status` is what old API servers served; it never said anything.
    let known = object.only(&["apiVersion", "kind", "metadata", "spec", "status"], problems);
    let key = PolicyKey::new(metadata.namespace, metadata.name);
    let Some(spec) = object.fields("spec", problems)? else {
        known?;
        let subjects = Selector::everything();
        return Ok(Policy { key, subjects, ingress: Some(Box::default()), egress: None });
    };
    let fields = spec.only(&["podSelector", "policyTypes", "ingress", "egress"], problems);
    let subjects = match spec.get("podSelector") {
        Some(at) => selector::read(&at, problems),
        None => Ok(Selector::everything()),
    };
    let ingress = rules(&spec, "ingress", "from", problems);
    let egress = rules(&spec, "egress", "to", problems);
    let types = types(&spec, problems);
    known?;
    fields?;
    let (subjects, ingress, egress, types) = (subjects?, ingress?, egress?, types?);
    let types = types.unwrap_or(Types { ingress: true, egress: !egress.is_empty() });
    Ok(Policy {
        key,
        subjects,
        ingress: types.ingress.then_some(ingress.into()),
        egress: types.egress.then_some(egress.into()),
    })
}

struct Types {
    ingress: bool,
    egress: bool,
}

/// The directions given; none when the list is absent or empty.
fn types<'n>(spec: &Fields<'n>, problems: &mut Problems<'n>) -> Result<Option<Types>, Refused> {
    let items = spec.items("policyTypes", problems)?;
    let types = all(items.iter().map(|at| match at.text(problems)? {
        "Ingress" => Ok(Direction::Ingress),
        "Egress" => Ok(Direction::Egress),
        other => {
            let remedy = match hints::nearest(other, ["Ingress", "Egress"]) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => "write Ingress or Egress".to_owned(),
            };
            Err(at.refuse(problems, "unknown policy type", remedy))
        }
    }))?;
    if let (true, Some(at)) = (types.len() > 2, spec.get("policyTypes")) {
        return Err(at.refuse(problems, "more than two policy types", "name each type once"));
    }
    Ok((!types.is_empty()).then(|| Types {
        ingress: types.contains(&Direction::Ingress),
        egress: types.contains(&Direction::Egress),
    }))
}

fn rules<'n>(
    spec: &Fields<'n>,
    list: &str,
    peers: &str,
    problems: &mut Problems<'n>,
) -> Result<Vec<Rule>, Refused> {
    let items = spec.items(list, problems)?;
    all(items.iter().map(|item| {
        let rule = item.fields(problems)?;
        let known = rule.only(&[peers, "ports"], problems);
        let peers = rule
            .items(peers, problems)
            .and_then(|items| all(items.iter().map(|item| peer(item, problems))));
        let ports = rule
            .items("ports", problems)
            .and_then(|items| all(items.iter().map(|item| port(item, problems))));
        known?;
        let (peers, ports) = (peers?, ports?);
        Ok(Rule {
            peers: (!peers.is_empty()).then_some(peers.into()),
            ports: (!ports.is_empty()).then_some(ports.into()),
        })
    }))
}

fn peer<'n>(at: &At<'n>, problems: &mut Problems<'n>) -> Result<Peer, Refused> {
    let fields = at.fields(problems)?;
    fields.only(&["podSelector", "namespaceSelector", "ipBlock"], problems)?;
    let pods = fields.get("podSelector");
    let namespaces = fields.get("namespaceSelector");
    let block = fields.get("ipBlock");
    match (pods, namespaces, block) {
        (None, None, None) => Err(at.refuse(
            problems,
            "an empty peer, which names nobody",
            "write ipBlock, podSelector or namespaceSelector; \"podSelector: {}\" means every pod \
             of the policy's namespace, \"namespaceSelector: {}\" every pod; without \"from\" or \
             \"to\" a rule is for everyone",
        )),
        (None, None, Some(block)) => ip_block(&block, problems).map(Peer::IpBlock),
        (_, _, Some(block)) => Err(block.refuse(
            problems,
            "ipBlock beside a selector in one item",
            "make two items, each with its own \"- \"",
        )),
        (pods, namespaces, None) => {
            let pods = pods.map(|at| selector::read(&at, problems)).transpose();
            let namespaces = namespaces.map(|at| selector::read(&at, problems)).transpose();
            Ok(Peer::Pods { pods: pods?.unwrap_or_default(), namespaces: namespaces? })
        }
    }
}

fn ip_block<'n>(at: &At<'n>, problems: &mut Problems<'n>) -> Result<IpBlock, Refused> {
    let fields = at.fields(problems)?;
    let known = fields.only(&["cidr", "except"], problems);
    let cidr = match fields.get("cidr") {
        Some(at) => objects::network(&at, problems),
        None => Err(fields.missing("cidr", problems, "name the block: \"cidr: 10.0.0.0/8\"")),
    };
    let items = fields.items("except", problems);
    known?;
    let cidr = cidr?;
    let mut except = all(items?.iter().map(|at| {
        let except = objects::network(at, problems)?;
        let family = cidr.addr().is_ipv4() == except.addr().is_ipv4();
        if family && cidr.contains(&except) && except.prefix_len() > cidr.prefix_len() {
            return Ok(except);
        }
        let (problem, remedy) = if !family {
            ("not of the same address family as cidr", "use an ipBlock for each family")
        } else if except == cidr {
            ("the same block as cidr, so nothing is left", "remove this ipBlock")
        } else {
            ("not inside cidr", "except only cuts its own cidr: name a smaller block inside it")
        };
        let problem = format!("{problem} ({cidr})");
        Err(at.refuse(problems, problem, remedy))
    }))?;
    except.sort();
    except.dedup();
    Ok(IpBlock { cidr, except: except.into() })
}

fn port<'n>(at: &At<'n>, problems: &mut Problems<'n>) -> Result<PortMatch, Refused> {
    let fields = at.fields(problems)?;
    let known = fields.only(&["protocol", "port", "endPort"], problems);
    let protocol = objects::protocol(&fields, problems);
    let ports = match fields.get("port") {
        Some(at) => one_port(&at, problems),
        None => Ok(Ports::All),
    };
    let ports = ports.and_then(|ports| match fields.get("endPort") {
        Some(end) => range(ports, &end, problems),
        None => Ok(ports),
    });
    known?;
    Ok(PortMatch { protocol: protocol?, ports: ports? })
}

fn one_port<'n>(at: &At<'n>, problems: &mut Problems<'n>) -> Result<Ports, Refused> {
    if !matches!(at.node.value, Value::Text(_)) {
        return objects::port_number(at, problems).map(|port| Ports::Range(port, port));
    }
    let name = at.text(problems)?;
    if names::port_name(name) {
        return Ok(Ports::Named(name.to_owned()));
    }
    let lower = name.to_ascii_lowercase();
    let digits = name.bytes().all(|c| c.is_ascii_digit()) && !name.is_empty();
    let (problem, remedy) = if digits {
        (
            "a number in quotes is taken as a name, and names need a letter",
            format!("write it without quotes: {name}"),
        )
    } else if name.contains(['-', ':'])
        && name.bytes().all(|c| c.is_ascii_digit() || matches!(c, b'-' | b':'))
    {
        ("not a port", "for a range write \"port: 8000\" and \"endPort: 8080\"".to_owned())
    } else if names::port_name(&lower) {
        ("not a valid port name", format!("write it in lower case: \"{lower}\""))
    } else {
        ("not a valid port name", names::PORT_NAME.to_owned())
    };
    Err(at.refuse(problems, problem, remedy))
}

fn range<'n>(ports: Ports, end: &At<'n>, problems: &mut Problems<'n>) -> Result<Ports, Refused> {
    let last = objects::port_number(end, problems)?;
    match ports {
        Ports::Range(first, _) if last >= first => Ok(Ports::Range(first, last)),
        Ports::Range(first, _) => {
            let problem = format!("endPort is below port ({first})");
            Err(end.refuse(problems, problem, format!("give a port from {first} to 65535")))
        }
        Ports::All => Err(end.refuse(
            problems,
            "endPort without port",
            "add \"port:\", the first port of the range",
        )),
        Ports::Named(name) => {
            let problem = format!("endPort beside a named port (\"{name}\")");
            Err(end.refuse(problems, problem, "remove endPort, or give port as a number"))
        }
    }
}
