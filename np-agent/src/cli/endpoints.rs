//! `np-agent endpoints`.

use std::process::ExitCode;

use super::out;
use super::status::read;
use super::table::table;
use crate::args::{Output, ShowArgs};
use np_policy::plan::record::{EndpointRecord, SideRecord};

pub fn run(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let endpoints = read(&args.place)?.endpoints;
    match args.output {
        Output::Json => out::line(serde_json::to_string_pretty(&endpoints)?)?,
        Output::Table => out::show(&render(&endpoints))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn render(endpoints: &[EndpointRecord]) -> String {
    let side = |side: &SideRecord| {
        if side.isolated {
            side.policies.iter().map(|key| key.name.as_ref()).collect::<Vec<_>>().join(",")
        } else {
            "-".to_owned()
        }
    };
    let rows: Vec<_> = endpoints
        .iter()
        .map(|endpoint| {
            let further = endpoint.source_prefixes.iter().map(ToString::to_string);
            let addresses: Vec<String> =
                endpoint.addresses.iter().map(ToString::to_string).chain(further).collect();
            [
                endpoint.id.to_string(),
                endpoint.pod.namespace.to_string(),
                endpoint.pod.name.to_string(),
                addresses.join(","),
                endpoint.device.clone(),
                side(&endpoint.ingress),
                side(&endpoint.egress),
            ]
        })
        .collect();
    let header =
        ["ID", "NAMESPACE", "POD", "ADDRESSES", "DEVICE", "INGRESS POLICIES", "EGRESS POLICIES"];
    table(header, &rows)
}
