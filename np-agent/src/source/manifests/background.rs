//! Services, their ranges and the templates of workloads: read for advice about policies.
//!
//! What is read of a Service is read strictly; its other fields, and all that is wrong with a
//! workload, are passed over.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::fields::{At, Fields, Problems, Refused, all};
use super::tree::{Entry, Value};
use super::{metadata, objects};
use crate::source::kind::Kind;
use crate::source::names;
use np_policy::model::{DeclaredPort, Endpoints, Service, ServicePort, TargetPort, Workload};

pub(super) fn service<'n>(
    object: &Fields<'n>,
    problems: &mut Problems<'n>,
) -> Result<Service, Refused> {
    object.no_duplicates(problems)?;
    // Names and namespaces of Services follow the rules of pods.
    let metadata = metadata::read(object, Kind::Pod, problems)?;
    let mut service = Service {
        namespace: metadata.namespace,
        name: metadata.name,
        addresses: Vec::new(),
        selector: None,
        ports: Vec::new(),
    };
    let Some(spec) = object.fields("spec", problems)? else { return Ok(service) };
    let addresses = addresses(&spec, problems);
    let selector = spec.texts("selector", problems);
    let ports = spec
        .items("ports", problems)
        .and_then(|items| all(items.iter().map(|item| port(item, problems))));
    service.addresses = addresses?;
    let selector: BTreeMap<_, _> = selector?
        .into_iter()
        .map(|(entry, _, value)| (entry.key.clone(), value.to_owned()))
        .collect();
    service.selector = (!selector.is_empty()).then_some(selector);
    service.ports = ports?;
    Ok(service)
}

/// `clusterIPs`, or else the one `clusterIP`; none for headless ones and ones without address.
fn addresses<'n>(spec: &Fields<'n>, problems: &mut Problems<'n>) -> Result<Vec<IpAddr>, Refused> {
    let mut places = spec.items("clusterIPs", problems)?;
    if places.is_empty() {
        places.extend(spec.get("clusterIP"));
    }
    let set = |at: &&At<'_>| !matches!(&at.node.value, Value::Text(text) if text.is_empty() || text == "None");
    all(places.iter().filter(set).map(|at| objects::address(at, problems)))
}

fn port<'n>(item: &At<'n>, problems: &mut Problems<'n>) -> Result<ServicePort, Refused> {
    let fields = item.fields(problems)?;
    let name = fields.text("name", problems);
    let protocol = objects::protocol(&fields, problems);
    let port = match fields.get("port") {
        Some(at) => objects::port_number(&at, problems),
        None => Err(fields.missing("port", problems, "give the Service's port: \"port: 80\"")),
    };
    let target = fields.get("targetPort").map(|at| target(&at, problems)).transpose();
    let (name, protocol, port, target) = (name?, protocol?, port?, target?);
    Ok(ServicePort {
        name: name.filter(|name| !name.is_empty()).map(str::to_owned),
        protocol,
        port,
        // "If this is not specified, the value of the port field is used."
        target: target.flatten().unwrap_or(TargetPort::Number(port)),
    })
}

/// None for 0 and "", which mean that it is not given.
fn target<'n>(at: &At<'n>, problems: &mut Problems<'n>) -> Result<Option<TargetPort>, Refused> {
    match &at.node.value {
        Value::Integer(0) => Ok(None),
        Value::Text(name) if name.is_empty() => Ok(None),
        Value::Text(name) if names::port_name(name) => Ok(Some(TargetPort::Named(name.clone()))),
        Value::Text(_) => Err(at.refuse(problems, "not a valid port name", names::PORT_NAME)),
        _ => objects::port_number(at, problems).map(|port| Some(TargetPort::Number(port))),
    }
}

pub(super) fn service_ranges<'n>(
    object: &Fields<'n>,
    problems: &mut Problems<'n>,
) -> Result<Vec<IpNet>, Refused> {
    let Some(spec) = object.fields("spec", problems)? else { return Ok(Vec::new()) };
    let items = spec.items("cidrs", problems)?;
    all(items.iter().map(|at| objects::network(at, problems)))
}

/// The template of a workload; none when it has none, or none that can be understood.
pub(super) fn workload(object: &Fields<'_>) -> Option<Workload> {
    let mut scratch = Problems::new("");
    let metadata = object.fields("metadata", &mut scratch).ok()??;
    let namespace = metadata.text("namespace", &mut scratch).ok()?.unwrap_or("default").to_owned();
    let mut spec = object.fields("spec", &mut scratch).ok()??;
    if let Some(job) = spec.fields("jobTemplate", &mut scratch).ok()? {
        spec = job.fields("spec", &mut scratch).ok()??;
    }
    let template = spec.fields("template", &mut scratch).ok()??;
    let labels = match template.fields("metadata", &mut scratch).ok()? {
        Some(metadata) => metadata.texts("labels", &mut scratch).ok()?,
        None => Vec::new(),
    };
    let pod = template.fields("spec", &mut scratch).ok()?;
    let host_network = pod.as_ref().and_then(|pod| pod.get("hostNetwork")?.bool(&mut scratch).ok());
    Some(Workload {
        namespace,
        labels: labels
            .into_iter()
            .map(|(entry, _, value)| (entry.key.clone(), value.to_owned()))
            .collect(),
        ports: pod_ports(&template),
        host_network: host_network.unwrap_or(false),
    })
}

/// What stands behind a Service by an Endpoints object or an EndpointSlice; none when it does not
/// say which Service.
pub(super) fn endpoints(object: &Fields<'_>) -> Option<Endpoints> {
    let mut scratch = Problems::new("");
    let metadata = object.fields("metadata", &mut scratch).ok()??;
    let namespace = metadata.text("namespace", &mut scratch).ok()?.unwrap_or("default").to_owned();
    let sliced = object.get("kind").is_some_and(
        |kind| matches!(&kind.node.value, Value::Text(kind) if kind == "EndpointSlice"),
    ) || object.get("addressType").is_some();
    let service = if sliced {
        let labels = metadata.texts("labels", &mut scratch).ok()?;
        let name = |(entry, _, _): &(&Entry, _, _)| entry.key == "kubernetes.io/service-name";
        labels.into_iter().find(name).map(|(_, _, name)| name)?
    } else {
        metadata.text("name", &mut scratch).ok()??
    };
    let mut endpoints = Endpoints {
        namespace,
        service: service.to_owned(),
        addresses: Vec::new(),
        ports: Vec::new(),
    };
    let subsets = if sliced { vec![object.clone()] } else { groups(object, "subsets") };
    for subset in subsets {
        for port in groups(&subset, "ports") {
            let at = port.get("port");
            endpoints.ports.extend(at.and_then(|at| objects::port_number(&at, &mut scratch).ok()));
        }
        if sliced {
            for endpoint in groups(&subset, "endpoints") {
                let items = endpoint.items("addresses", &mut scratch).unwrap_or_default();
                let address = |at: &At<'_>| objects::address(at, &mut Problems::new("")).ok();
                endpoints.addresses.extend(items.iter().filter_map(address));
            }
        } else {
            for address in groups(&subset, "addresses") {
                let at = address.get("ip");
                let address = at.and_then(|at| objects::address(&at, &mut Problems::new("")).ok());
                endpoints.addresses.extend(address);
            }
        }
    }
    Some(endpoints)
}

/// Those items of a list that have fields.
fn groups<'n>(object: &Fields<'n>, list: &str) -> Vec<Fields<'n>> {
    let mut scratch = Problems::new("");
    let items = object.items(list, &mut scratch).unwrap_or_default();
    items.iter().filter_map(|item| item.fields(&mut scratch).ok()).collect()
}

/// All ports of a pod, or of a template of one, that can be understood.
pub(super) fn pod_ports(pod: &Fields<'_>) -> Vec<DeclaredPort> {
    let mut scratch = Problems::new("");
    let Ok(Some(spec)) = pod.fields("spec", &mut scratch) else { return Vec::new() };
    let mut ports = Vec::new();
    for list in ["containers", "initContainers"] {
        for item in spec.items(list, &mut scratch).unwrap_or_default() {
            let Ok(container) = item.fields(&mut scratch) else { continue };
            // Of the init containers only sidecars go on running.
            let restart = container.text("restartPolicy", &mut scratch).ok().flatten();
            if list == "initContainers" && restart != Some("Always") {
                continue;
            }
            for item in container.items("ports", &mut scratch).unwrap_or_default() {
                ports.extend(declared(&item));
            }
        }
    }
    ports
}

fn declared(item: &At<'_>) -> Option<DeclaredPort> {
    let mut scratch = Problems::new("");
    let fields = item.fields(&mut scratch).ok()?;
    let name = fields.text("name", &mut scratch).ok()?.filter(|name| !name.is_empty());
    Some(DeclaredPort {
        name: name.map(str::to_owned),
        protocol: objects::protocol(&fields, &mut scratch).ok()?,
        port: objects::port_number(&fields.get("containerPort")?, &mut scratch).ok()?,
    })
}
