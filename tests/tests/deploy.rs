//! deploy/ says what the agent is and needs: no manifest there may drift from the code.

use std::collections::BTreeSet;
use std::fs;
use std::iter;
use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, Parser as _};
use np_agent::args::{Cli, PlaceArgs};
use np_agent::dataplane::capabilities::NEEDED;
use np_tests::chart;
use serde_json::{Value, json};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// The objects of a file.
fn objects(file: &str) -> Vec<Value> {
    let path = deploy().join(file);
    let text = fs::read_to_string(&path).expect(file);
    serde_saphyr::from_multiple(&text).expect(file)
}

/// The pod of the DaemonSet in a file.
fn pod(file: &str) -> Value {
    let objects = objects(file);
    let daemon_set = objects.iter().find(|object| object["kind"] == "DaemonSet").expect(file);
    daemon_set["spec"]["template"]["spec"].clone()
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn texts(value: &Value) -> Vec<String> {
    list(value).iter().map(|text| text.as_str().expect("a string").to_owned()).collect()
}

/// The container that runs the agent's image for as long as the pod lives, or once.
fn container(pod: &Value, name: &str) -> Value {
    let containers = [list(&pod["containers"]), list(&pod["initContainers"])].concat();
    containers.into_iter().find(|container| container["name"] == name).expect(name)
}

/// (file, container): all that run the agent's image.
const OURS: [(&str, &str); 4] = [
    ("base/daemonset.yaml", "np-agent"),
    ("np-agent.yaml", "np-agent"),
    ("cleanup.yaml", "cleanup"),
    ("components/mount-bpffs/daemonset.yaml", "mount-bpffs"),
];

/// Those that need no privileges.
const UNPRIVILEGED: [(&str, &str); 3] = [OURS[0], OURS[1], OURS[2]];

#[test]
fn capabilities_are_those_that_the_agent_asks_for_and_no_others() {
    let needed: BTreeSet<String> =
        NEEDED.iter().map(|(name, _)| name.trim_start_matches("CAP_").to_owned()).collect();
    for (file, name) in UNPRIVILEGED {
        let context = &container(&pod(file), name)["securityContext"];
        let added = texts(&context["capabilities"]["add"]);
        assert_eq!(BTreeSet::from_iter(added), needed, "{file}");
        assert_eq!(texts(&context["capabilities"]["drop"]), ["ALL"], "{file}");
        assert_eq!(context["privileged"], false, "{file}");
        assert_eq!(context["allowPrivilegeEscalation"], false, "{file}");
        assert_eq!(context["readOnlyRootFilesystem"], true, "{file}");
    }
}

#[test]
fn the_unit_of_a_bare_node_names_the_same_capabilities() {
    let install = fs::read_to_string(deploy().join("../docs/INSTALL.md")).expect("INSTALL.md");
    let set = install.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let named: BTreeSet<&str> = set.expect("the unit has a set").split(' ').collect();
    assert_eq!(named, NEEDED.iter().map(|(name, _)| *name).collect());
}

#[test]
fn the_image_is_that_of_this_version() {
    let image = format!("localhost/np-agent:{}", env!("CARGO_PKG_VERSION"));
    for (file, name) in OURS {
        assert_eq!(container(&pod(file), name)["image"], image, "{file}");
    }
}

#[test]
fn every_command_line_is_one_that_the_agent_takes() {
    for (file, name) in OURS {
        let container = container(&pod(file), name);
        let mut commands = vec![texts(&container["args"])];
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let command = texts(&container[probe]["exec"]["command"]);
            if let Some((program, arguments)) = command.split_first() {
                assert_eq!(program, "/usr/bin/np-agent", "{file}: where the image has it");
                commands.push(arguments.to_vec());
            }
        }
        for arguments in commands.into_iter().filter(|arguments| !arguments.is_empty()) {
            let words = ["np-agent".to_owned()].into_iter().chain(arguments);
            Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{file}: {error}"));
        }
    }
}

#[test]
fn variables_are_those_that_the_agent_reads() {
    let command = Cli::command();
    let known: BTreeSet<String> = command
        .get_arguments()
        .filter_map(|argument| Some(argument.get_env()?.to_string_lossy().into_owned()))
        .collect();
    for file in ["base/daemonset.yaml", "overlays/local/daemonset.yaml"] {
        for variable in list(&container(&pod(file), "np-agent")["env"]) {
            let name = variable["name"].as_str().expect("a name");
            assert!(known.contains(name), "{file}: {name} is none of {known:?}");
        }
    }
}

#[test]
fn what_outlives_the_agent_is_on_the_node() {
    let Cli { run, .. } = Cli::parse_from(["np-agent", "--node", "n", "--manifests", "m"]);
    let PlaceArgs { pin_dir, run_dir } = run.place;
    for (file, name) in UNPRIVILEGED {
        let pod = pod(file);
        let mounts = list(&container(&pod, name)["volumeMounts"]);
        for place in [&pin_dir, &run_dir] {
            let mount = mounts
                .iter()
                .find(|mount| place.starts_with(mount["mountPath"].as_str().expect("a path")))
                .unwrap_or_else(|| panic!("{file}: no volume for {}", place.display()));
            let volumes = list(&pod["volumes"]);
            let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]);
            let host = &volume.expect("the volume is there")["hostPath"]["path"];
            assert_eq!(
                *host, mount["mountPath"],
                "{file}: a bare np-agent has it in the same place"
            );
        }
    }
}

/// An agent that the API server does not answer continues; kubelet must not end it.
#[test]
fn no_probe_asks_anybody_but_the_agent() {
    let container = container(&pod("base/daemonset.yaml"), "np-agent");
    for (probe, asks) in
        [("startupProbe", "live"), ("livenessProbe", "live"), ("readinessProbe", "ready")]
    {
        let command = texts(&container[probe]["exec"]["command"]);
        assert_eq!(command[1..], ["status", "--probe", asks], "{probe}");
    }
}

#[test]
fn the_api_server_is_only_read() {
    let role = &objects("base/clusterrole.yaml")[0];
    let mut resources = BTreeSet::new();
    for rule in list(&role["rules"]) {
        assert_eq!(texts(&rule["verbs"]), ["list", "watch"]);
        resources.extend(texts(&rule["resources"]));
    }
    let read = ["namespaces", "networkpolicies", "nodes", "pods"].map(str::to_owned);
    assert_eq!(resources, BTreeSet::from(read));
}

/// The one exception is by choice, and it is to nodes alone.
#[test]
fn the_startup_taint_brings_the_right_to_change_nodes_and_an_argument_that_is_one() {
    let component = "components/startup-taint";
    let role = &objects(&format!("{component}/clusterrole.yaml"))[0];
    let rules = list(&role["rules"]);
    let [rule] = rules.as_slice() else { panic!("one rule: {rules:?}") };
    assert_eq!(texts(&rule["resources"]), ["nodes"]);
    assert_eq!(texts(&rule["verbs"]), ["get", "patch"]);
    let binding = &objects(&format!("{component}/clusterrolebinding.yaml"))[0];
    assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
    let arguments =
        texts(&container(&pod(&format!("{component}/daemonset.yaml")), "np-agent")["args"]);
    let Cli { run, .. } = Cli::parse_from(
        ["np-agent", "--node", "n"].map(str::to_owned).into_iter().chain(arguments),
    );
    assert_eq!(run.startup_taint.as_deref(), Some("np-agent.io/agent-not-ready"));
}

/// It is what `kubectl kustomize deploy/base` prints; the cluster tier compares the text.
#[test]
fn the_rendered_manifest_is_the_base() {
    let base = texts(&objects("base/kustomization.yaml")[0]["resources"]);
    let mut want: Vec<String> = base
        .iter()
        .flat_map(|file| objects(&format!("base/{file}")))
        .map(|object| object.to_string())
        .collect();
    let mut rendered: Vec<String> =
        objects("np-agent.yaml").iter().map(ToString::to_string).collect();
    want.sort();
    rendered.sort();
    assert_eq!(rendered, want);
}

#[test]
fn every_overlay_names_what_there_is() {
    let mut seen = 0;
    for directory in ["components", "overlays"] {
        for entry in fs::read_dir(deploy().join(directory)).expect(directory) {
            let path = entry.expect("an entry").path();
            let file = path.join("kustomization.yaml");
            let kustomization = &objects(&file.display().to_string())[0];
            let patches = list(&kustomization["patches"]);
            let patches = patches.iter().map(|patch| patch["path"].as_str().expect("a path"));
            let named = [texts(&kustomization["resources"]), texts(&kustomization["components"])];
            for name in named.concat().iter().map(String::as_str).chain(patches) {
                assert!(path.join(name).exists(), "{}: {name}", file.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 0);
}

#[test]
fn the_chart_is_of_this_version_and_installs_it() {
    let chart = chart::file("Chart.yaml").expect("the chart is there");
    for field in ["version", "appVersion"] {
        assert_eq!(chart[field], env!("CARGO_PKG_VERSION"), "{field}");
    }
}

/// Compares a level of values with its schema; types of Kubernetes are definitions, and end it.
fn same_keys(place: &str, schema: &Value, values: &Value) {
    let Some(properties) = schema["properties"].as_object() else { return };
    assert_eq!(schema["additionalProperties"], false, "values{place}: a misspelt key passes");
    let keys = |value: &Value| -> BTreeSet<String> {
        value.as_object().into_iter().flat_map(|object| object.keys().cloned()).collect()
    };
    assert_eq!(keys(&schema["properties"]), keys(values), "values{place}");
    for (key, schema) in properties {
        same_keys(&format!("{place}.{key}"), schema, &values[key]);
    }
}

#[test]
fn the_chart_s_schema_knows_exactly_its_values() {
    let schema = chart::file("values.schema.json").expect("the schema is there");
    same_keys("", &schema, &chart::file("values.yaml").expect("the values are there"));
}

#[test]
fn every_value_of_the_chart_has_a_comment() {
    let text = fs::read_to_string(chart::dir().join("values.yaml")).expect("it is there");
    let schema = chart::file("values.schema.json").expect("the schema is there");
    for pointer in chart::own_values(&schema) {
        let keys: Vec<&str> = pointer.trim_start_matches('/').split('/').collect();
        let mut lines = iter::once("").chain(text.lines()).zip(text.lines());
        let mut described = false;
        for (depth, key) in keys.iter().enumerate() {
            let start = format!("{}{key}:", "  ".repeat(depth));
            let found = lines.find(|(_, line)| line.starts_with(&start));
            let (above, _) = found.unwrap_or_else(|| panic!("values.yaml has no {pointer}"));
            described = above.trim_start().starts_with("# ");
        }
        assert!(described, "{pointer} has no comment");
    }
}

/// (option, value): what an operator sets.
const VALUES: [(&str, &str); 10] = [
    ("uplink", "uplinks"),
    ("foreign", "foreign"),
    ("tunnel-port", "tunnelPorts"),
    ("source-prefixes", "sourcePrefixes"),
    ("pending", "pending"),
    ("check-every", "checkEvery"),
    ("startup-taint", "startupTaint"),
    ("events", "events"),
    ("log", "log"),
    ("log-format", "logFormat"),
];

/// The node's name comes by a variable; objects come by the ServiceAccount; where things are is known to
/// volumes, to probes and to deploy/cleanup.yaml; the last one is for tests.
const NO_VALUES: [&str; 6] = ["node", "kubeconfig", "manifests", "pin-dir", "run-dir", "abi"];

#[test]
fn an_option_is_a_value_of_the_chart_or_is_known_not_to_be() {
    let values = chart::file("values.yaml").expect("the values are there");
    let text = fs::read_to_string(chart::dir().join("values.yaml")).expect("it is there");
    for (option, value) in VALUES {
        assert!(!values[value].is_null(), "{value}");
        assert!(text.contains(&format!("\n# --{option}: ")), "{value} does not name --{option}");
    }
    let command = Cli::command();
    let options = command.get_arguments().filter_map(|argument| argument.get_long());
    let options: BTreeSet<&str> =
        options.filter(|name| !["help", "version"].contains(name)).collect();
    let known: BTreeSet<&str> = VALUES.iter().map(|(option, _)| *option).chain(NO_VALUES).collect();
    assert_eq!(options, known);
}

#[test]
fn the_chart_s_values_are_the_agent_s_own_where_it_has_some() {
    let values = chart::file("values.yaml").expect("the values are there");
    let command = Cli::command();
    for (option, value) in VALUES {
        let argument = command.get_arguments().find(|argument| argument.get_long() == Some(option));
        let defaults = argument.expect(option).get_default_values();
        let defaults: Vec<&str> = defaults.iter().filter_map(|text| text.to_str()).collect();
        match (&values[value], defaults.as_slice()) {
            (Value::String(text), [default]) => assert_eq!(text, default, "{value}"),
            (Value::Number(number), [default]) => {
                assert_eq!(number.to_string(), *default, "{value}");
            }
            (none, defaults) => {
                assert!(*none == json!("") || *none == json!([]), "{value}: {none}");
                assert!(defaults.is_empty(), "{value}: {defaults:?}");
            }
        }
    }
}
