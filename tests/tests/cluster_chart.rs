//! The Helm chart says what deploy/np-agent.yaml says, and takes the values that it names and no others.
//!
//! Needs Helm and no cluster. Run by `cargo xtask chart` alone, and with the tier cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;
use np_agent::args::Cli;
use np_tests::chart::{self, Helm};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a chart's labels add to the manifest.
const ADDED: [(&str, &str); 4] = [
    ("app.kubernetes.io/instance", "np-agent"),
    ("app.kubernetes.io/managed-by", "Helm"),
    ("app.kubernetes.io/version", VERSION),
    ("helm.sh/chart", concat!("np-agent-", env!("CARGO_PKG_VERSION"))),
];

const KINDS: [&str; 4] = ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "DaemonSet"];

/// What differs, by its place, and what the second has there; null if nothing.
type Changes = BTreeMap<String, Value>;

fn changes(first: &Value, second: &Value) -> Changes {
    let mut found = Changes::new();
    compare("", first, second, &mut found);
    found
}

fn compare(place: &str, first: &Value, second: &Value, found: &mut Changes) {
    let (Some(one), Some(two)) = (members(first), members(second)) else {
        if first != second {
            found.insert(place.to_owned(), second.clone());
        }
        return;
    };
    for key in one.keys().chain(two.keys()).collect::<BTreeSet<_>>() {
        let place = if place.is_empty() { key.clone() } else { format!("{place}/{key}") };
        let of = |members: &BTreeMap<String, &Value>| {
            members.get(key).map_or(Value::Null, |value| (*value).clone())
        };
        compare(&place, &of(&one), &of(&two), found);
    }
}

/// What an object or a list consists of.
fn members(value: &Value) -> Option<BTreeMap<String, &Value>> {
    match value {
        Value::Object(object) => Some(object.iter().map(|(key, at)| (key.clone(), at)).collect()),
        Value::Array(list) => {
            Some(list.iter().enumerate().map(|(index, at)| (index.to_string(), at)).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// Objects by their kinds.
fn by_kind(manifest: &str) -> Result<Value> {
    let objects: Vec<Value> = serde_saphyr::from_multiple(manifest).context("objects in YAML")?;
    let mut kinds = BTreeMap::new();
    for object in objects {
        let kind = object["kind"].as_str().context("an object has a kind")?.to_owned();
        ensure!(kinds.insert(kind, object).is_none(), "two objects of a kind");
    }
    Ok(json!(kinds))
}

/// The chart's objects.
fn render(helm: &Helm, values: &Value) -> Result<Value> {
    let words = "template np-agent . --namespace kube-system --values -";
    by_kind(&helm.run(&chart::dir(), words, &values.to_string())?)
}

fn deployed(file: &str) -> Result<Value> {
    let path = chart::dir().join("../..").join(file);
    by_kind(&fs::read_to_string(&path).with_context(|| path.display().to_string())?)
}

#[test]
fn lint_finds_nothing() -> Result<()> {
    let said = Helm::find()?.run(&chart::dir(), "lint --strict --quiet .", "")?;
    assert_eq!(said, "");
    Ok(())
}

#[test]
fn without_values_the_chart_is_the_rendered_manifest() -> Result<()> {
    let rendered = render(&Helm::find()?, &json!({}))?;
    let labels = KINDS.iter().flat_map(|kind| {
        ADDED.map(|(label, value)| (format!("{kind}/metadata/labels/{label}"), json!(value)))
    });
    let mut allowed: Changes = labels.collect();
    // A pod has none that change with the version.
    let (instance, release) = ADDED[0];
    let pod = format!("DaemonSet/spec/template/metadata/labels/{instance}");
    allowed.insert(pod, json!(release));
    assert_eq!(changes(&deployed("np-agent.yaml")?, &rendered), allowed);
    Ok(())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    values: Value,
    changes: Changes,
}

const VALUES: &str = include_str!("../fixtures/chart/values.yaml");

/// The rows of the table, with places and values in full.
fn rows() -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = serde_saphyr::from_str(&VALUES.replace("VERSION", VERSION))?;
    let mount = deployed("components/mount-bpffs/daemonset.yaml")?;
    let taint = deployed("components/startup-taint/clusterrole.yaml")?;
    let components = [
        ("mount-bpffs", &mount["DaemonSet"]["spec"]["template"]["spec"]["initContainers"][0]),
        ("startup-taint", &taint["ClusterRole"]["rules"][0]),
    ];
    for Row { changes, .. } in &mut rows {
        let short = std::mem::take(changes).into_iter();
        let full = short.map(|(short, value)| (place(&short), in_full(value, &components)));
        *changes = full.collect();
    }
    Ok(rows)
}

/// A value in which no component is left as its name.
fn in_full(value: Value, components: &[(&str, &Value)]) -> Value {
    match value {
        Value::Array(list) => list.into_iter().map(|value| in_full(value, components)).collect(),
        other => match components.iter().find(|(name, _)| other == *name) {
            Some((_, added)) => (*added).clone(),
            None => other,
        },
    }
}

fn place(short: &str) -> String {
    const POD: &str = "DaemonSet/spec/template/spec";
    match short.split_once('/') {
        Some(("pod", rest)) => format!("{POD}/{rest}"),
        Some(("agent", rest)) => format!("{POD}/containers/0/{rest}"),
        Some(_) | None => short.to_owned(),
    }
}

#[test]
fn every_value_reaches_its_field_and_no_other() -> Result<()> {
    let helm = Helm::find()?;
    let default = render(&helm, &json!({}))?;
    for Row { values, changes: want } in rows()? {
        let rendered = render(&helm, &values).with_context(|| values.to_string())?;
        assert_eq!(changes(&default, &rendered), want, "{values}");
        the_agent_takes(&rendered).with_context(|| values.to_string())?;
    }
    Ok(())
}

/// The command line has only options that there are.
fn the_agent_takes(rendered: &Value) -> Result<()> {
    let container = &rendered["DaemonSet"]["spec"]["template"]["spec"]["containers"][0];
    let arguments: Vec<String> = serde_json::from_value(match &container["args"] {
        Value::Null => json!([]),
        arguments => arguments.clone(),
    })?;
    let words = ["np-agent", "--node", "here"].map(str::to_owned).into_iter().chain(arguments);
    Cli::try_parse_from(words)?;
    Ok(())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refused {
    values: Value,
    says: String,
}

const REFUSED: &str = include_str!("../fixtures/chart/refused.yaml");

#[test]
fn what_is_misspelt_or_of_a_wrong_type_is_refused_and_named() -> Result<()> {
    let helm = Helm::find()?;
    for Refused { values, says } in serde_saphyr::from_str::<Vec<Refused>>(REFUSED)? {
        let refusal = render(&helm, &values).err().with_context(|| format!("took {values}"))?;
        assert!(refusal.to_string().contains(&says), "{values}: {refusal}");
    }
    Ok(())
}

#[test]
fn the_tables_know_every_value() -> Result<()> {
    let schema = chart::file("values.schema.json")?;
    let rows = rows()?.into_iter().map(|row| row.values).collect();
    let refused = serde_saphyr::from_str::<Vec<Refused>>(REFUSED)?;
    let refused: Vec<Value> = refused.into_iter().map(|refused| refused.values).collect();
    for (table, values) in [("values", rows), ("refused", refused)] {
        for pointer in chart::own_values(&schema) {
            let known = |values: &Value| values.pointer(&pointer).is_some();
            assert!(values.iter().any(known), "fixtures/chart/{table}.yaml has no {pointer}");
        }
    }
    Ok(())
}

/// `helm --set KEY=null`, or a key in a file of values with nothing behind it.
#[test]
fn a_value_that_is_taken_away_is_none_or_missing() -> Result<()> {
    let helm = Helm::find()?;
    for pointer in chart::own_values(&chart::file("values.schema.json")?) {
        let keys = pointer.trim_start_matches('/').rsplit('/');
        let values = keys.fold(Value::Null, |value, key| json!({ key: value }));
        match render(&helm, &values) {
            Ok(rendered) => {
                the_agent_takes(&rendered).with_context(|| values.to_string())?;
                // What Go prints for a value that is not there.
                assert!(!rendered.to_string().contains("<nil>"), "{values}: {rendered}");
            }
            Err(refusal) => {
                let refusal = refusal.to_string();
                assert!(refusal.contains("missing property"), "{values}: {refusal}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_cluster_that_does_not_know_a_field_is_refused() -> Result<()> {
    let helm = Helm::find()?;
    let for_version = |version: &str| {
        helm.run(&chart::dir(), &format!("template . --kube-version {version}"), "")
    };
    let refusal = for_version("1.29.14").err().context("1.29 was taken")?;
    assert!(refusal.to_string().contains("requires kubeVersion: >=1.30.0-0"), "{refusal}");
    for version in ["1.30.0", "1.30.4-gke.100", "1.36.3"] {
        for_version(version)?;
    }
    Ok(())
}

#[test]
fn another_chart_may_depend_on_it() -> Result<()> {
    let parent = TempDir::new().context("making a directory")?;
    let dependency = json!({
        "name": "np-agent", "version": "*", "condition": "np-agent.enabled", "repository": "",
    });
    let chart = json!({
        "apiVersion": "v2", "name": "parent", "version": "1.0.0", "dependencies": [dependency],
    });
    fs::write(parent.path().join("Chart.yaml"), chart.to_string())?;
    fs::create_dir(parent.path().join("charts"))?;
    symlink(fs::canonicalize(chart::dir())?, parent.path().join("charts/np-agent"))?;
    let helm = Helm::find()?;
    let render = |enabled: bool| {
        let values = json!({"np-agent": {"enabled": enabled}, "global": {"team": "network"}});
        let words = "template np-agent . --namespace kube-system --values -";
        by_kind(&helm.run(parent.path(), words, &values.to_string())?)
    };
    assert_eq!(render(true)?, self::render(&helm, &json!({}))?);
    assert_eq!(render(false)?, json!({}));
    Ok(())
}

#[test]
fn the_notes_say_how_to_see_that_it_works_and_what_uninstall_leaves() -> Result<()> {
    let words = "install policy . --namespace nodes --dry-run=client --values -";
    let values = json!({"image": {"tag": "edge"}});
    let said = Helm::find()?.run(&chart::dir(), words, &values.to_string())?;
    let (_, notes) = said.split_once("\nNOTES:\n").context("there are notes")?;
    for part in [
        "localhost/np-agent:edge",
        "kubectl --namespace nodes rollout status daemonset/policy-np-agent",
        "`helm uninstall` does NOT end enforcement",
        "until deploy/cleanup.yaml is applied",
        "docs/INSTALL.md, \"Removing\"",
    ] {
        assert!(notes.contains(part), "{part:?} is not in\n{notes}");
    }
    let mut commands = 0;
    for line in notes.lines().filter(|line| line.contains(" exec ")) {
        let (kubectl, command) = line.split_once(" -- ").context("a command after kubectl's")?;
        assert_eq!(kubectl.trim(), "kubectl --namespace nodes exec daemonset/policy-np-agent");
        Cli::try_parse_from(command.split(' '))?;
        commands += 1;
    }
    assert_eq!(commands, 2);
    let repository = chart::dir().join("../../..");
    ensure!(repository.join("deploy/cleanup.yaml").exists());
    ensure!(fs::read_to_string(repository.join("docs/INSTALL.md"))?.contains("\n## Removing\n"));
    Ok(())
}
