//! `np-agent lint`: findings about manifests, for people and for pipelines.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;

use super::out;
use super::table::table;
use crate::args::{FailOn, LintArgs, Output};
use crate::source::{self, Batch, Invalid};
use np_policy::index::{Index, Touched};
use np_policy::lint::{self, Code, Finding, Severity};

const FOUND: u8 = 1;
const UNREADABLE: u8 = 2;

pub fn run(args: LintArgs) -> anyhow::Result<ExitCode> {
    let LintArgs { paths, service_cidr, fail_on, output, codes, explain } = args;
    if codes {
        return print(&listed());
    }
    if let Some(code) = explain {
        return print(&explained(&code)?);
    }
    let batch = match source::read(&paths) {
        Ok(batch) => batch,
        Err(error) => {
            eprintln!("np-agent: {error}");
            return Ok(ExitCode::from(UNREADABLE));
        }
    };
    let Batch { changes, invalid, mut background, .. } = batch;
    let mut index = Index::default();
    let mut touched = Touched::default();
    for change in changes {
        index.apply(change, &mut touched);
    }
    background.service_ranges.extend(service_cidr.iter().map(ipnet::IpNet::trunc));
    let mut findings: Vec<Finding> = invalid.into_iter().map(refused).collect();
    findings.extend(lint::check(&index, &background));
    findings.sort();
    let text = match output {
        Output::Json => serde_json::to_string_pretty(&findings)? + "\n",
        Output::Table => {
            grouped(&findings, io::stdout().is_terminal())
                + &summary(&findings, index.policies().len())
        }
    };
    print(&text)?;
    let failed = threshold(fail_on)
        .is_some_and(|least| findings.iter().any(|finding| finding.severity >= least));
    Ok(if failed { ExitCode::from(FOUND) } else { ExitCode::SUCCESS })
}

fn print(text: &str) -> anyhow::Result<ExitCode> {
    out::show(text)?;
    Ok(ExitCode::SUCCESS)
}

fn refused(invalid: Invalid) -> Finding {
    let Invalid { file, line, column, object, field, value, problem, remedy } = invalid;
    Finding {
        file: Some(file),
        line,
        column,
        code: Code::Refused,
        severity: Severity::Error,
        object,
        field,
        message: if value.is_empty() { problem } else { format!("{value:?}: {problem}") },
        remedy,
    }
}

fn threshold(fail_on: FailOn) -> Option<Severity> {
    match fail_on {
        FailOn::Error => Some(Severity::Error),
        FailOn::Warning => Some(Severity::Warning),
        FailOn::Info => Some(Severity::Info),
        FailOn::Never => None,
    }
}

/// One paragraph a finding, under the name of its file.
fn grouped(findings: &[Finding], colour: bool) -> String {
    let mut text = String::new();
    let mut above: Option<&Path> = None;
    for finding in findings {
        let Finding { file, line, column, code, severity, object, field, message, remedy } =
            finding;
        let file = file.as_deref();
        if file != above {
            let name = file.map_or_else(String::new, |file| file.display().to_string());
            text.push_str(&format!("{}{name}\n", if above.is_some() { "\n" } else { "" }));
            above = file;
        }
        let place = if *line > 0 { format!("{line}:{column}") } else { "-".to_owned() };
        let about = [object.as_deref().unwrap_or_default(), field];
        let about: Vec<&str> = about.into_iter().filter(|part| !part.is_empty()).collect();
        let line = format!("  {place:<8}{} {code}  {}", shown(*severity, colour), about.join("  "));
        text.push_str(line.trim_end());
        text.push_str(&format!("\n          {message}\n          remedy: {remedy}\n"));
    }
    text
}

fn shown(severity: Severity, colour: bool) -> String {
    let padded = format!("{severity:<8}");
    let number = match severity {
        Severity::Error => 31,
        Severity::Warning => 33,
        Severity::Info => 36,
    };
    if colour { format!("\x1b[{number}m{padded}\x1b[0m") } else { padded }
}

fn summary(findings: &[Finding], policies: usize) -> String {
    let of = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let files: BTreeSet<_> = findings.iter().map(|finding| &finding.file).collect();
    let mut text = String::new();
    if !findings.is_empty() {
        text.push('\n');
    }
    let counted = |number: usize, one: &str, many: &str| {
        format!("{number} {}", if number == 1 { one } else { many })
    };
    let parts = [
        counted(of(Severity::Error), "error", "errors"),
        counted(of(Severity::Warning), "warning", "warnings"),
        format!("{} info", of(Severity::Info)),
        counted(files.len(), "file with findings", "files with findings"),
        counted(policies, "policy read", "policies read"),
    ];
    text.push_str(&parts.join(", "));
    if !findings.is_empty() {
        text.push_str("; `np-agent lint --explain CODE` says more");
    }
    text + "\n"
}

fn listed() -> String {
    let rows: Vec<[String; 4]> = Code::ALL
        .iter()
        .map(|code| {
            let entry = code.entry();
            let severity = entry.severity.to_string();
            [entry.id.to_owned(), entry.name.to_owned(), severity, entry.summary.to_owned()]
        })
        .collect();
    table(["CODE", "NAME", "AT MOST", "SUMMARY"], &rows)
}

fn explained(code: &str) -> anyhow::Result<String> {
    if code == "all" {
        return Ok(lint::document());
    }
    match Code::named(code) {
        Some(code) => Ok(lint::section(code)),
        None => bail!("--explain {code}: no such code; `np-agent lint --codes` lists them"),
    }
}
