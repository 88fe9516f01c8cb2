//! Fails when an import breaks the order of the layers. The order is in [`table`].

mod paths;
pub mod source;
mod table;

use std::fmt;
use std::fs;
use std::path::{Path as FilePath, PathBuf};

use anyhow::{Context as _, Result, bail};

use self::paths::Path;
use self::table::{
    ANYTHING, Kind, Layer, NOT_PURE, NP_AGENT, NP_COMMON_OPTIONAL, ONLY_IN, PACKAGES,
};
use crate::workspace::{self, Package, Workspace};

/// Check that no import breaks the order of the layers
///
/// Reads the `use` lines and inline paths of np-agent and np-common, and the dependencies of every
/// member. Tests inside a file are not held to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the order instead of checking it
    #[arg(long)]
    table: bool,
}

pub fn run(Args { table }: &Args) -> Result<()> {
    if *table {
        print!("{}", order());
        return Ok(());
    }
    check()
}

/// A name where it must not be.
#[derive(Debug, PartialEq, Eq)]
struct Breach {
    place: String,
    why: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.why)
    }
}

/// Checks the whole workspace.
///
/// # Errors
/// If an import or a dependency breaks the order, or a file cannot be read.
pub fn check() -> Result<()> {
    let root = workspace::root();
    let mut breaches = Vec::new();
    let mut count = 0;
    for file in rust_files(&root.join("np-agent/src"))? {
        let text = read(&file)?;
        breaches.extend(agent_file(&module_of(&file, &root.join("np-agent/src")), &text, &file));
        count += 1;
    }
    for file in rust_files(&root.join("np-common/src"))? {
        breaches.extend(common_file(&read(&file)?, &file));
        count += 1;
    }
    breaches.extend(packages(&Workspace::read(false)?.packages));
    for breach in &breaches {
        println!("{breach}");
    }
    if !breaches.is_empty() {
        bail!(
            "{} imports break the order of the layers (`cargo xtask layers --table` prints it)",
            breaches.len()
        );
    }
    println!("layers: {count} files in order");
    Ok(())
}

/// Every `.rs` file below a directory, tests left out, in order.
///
/// # Errors
/// If a directory cannot be read.
pub fn rust_files(dir: &FilePath) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("reading {}", dir.display()))?.path();
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() {
            if name != "tests" {
                files.extend(rust_files(&path)?);
            }
        } else if path.extension().is_some_and(|ext| ext == "rs") && name != "tests.rs" {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(file: &FilePath) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))
}

/// `plan/diff.rs` and `plan/diff/mod.rs` are both `plan::diff`.
fn module_of(file: &FilePath, src: &FilePath) -> Vec<String> {
    let relative = file.strip_prefix(src).unwrap_or(file).with_extension("");
    let mut module: Vec<String> =
        relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module.len() > 1 && module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    module
}

fn agent_file(module: &[String], text: &str, file: &FilePath) -> Vec<Breach> {
    let tokens = source::without_tests(source::tokens(text));
    // lib.rs and main.rs are the root itself.
    let root = matches!(module, [only] if only == "lib" || only == "main");
    let found = paths::paths(&tokens, if root { &[] } else { module });
    let Some(layer) =
        NP_AGENT.iter().find(|layer| Some(layer.module) == module.first().map(|m| &**m))
    else {
        let why = "this module has no row in xtask/src/layers/table.rs: add one".to_owned();
        return vec![Breach { place: file.display().to_string(), why }];
    };
    let breach = |path: &Path| {
        let why = layer.objection(&path.segments)?;
        Some(Breach { place: format!("{}:{}", file.display(), path.line), why })
    };
    found.iter().filter_map(breach).collect()
}

impl Layer {
    /// Why this layer must not name a path, if so.
    fn objection(&self, path: &[String]) -> Option<String> {
        let Layer { module, kind, may, np_common } = self;
        let name = path.join("::");
        let (first, rest) = path.split_first()?;
        if first == "crate" {
            let target = rest.first()?;
            // A file of the crate's root names its items by `crate::Name`.
            let is_module = NP_AGENT.iter().any(|layer| layer.module == target);
            let allowed = target == module
                || *may == ANYTHING
                || may.iter().any(|allowed| begins(rest, allowed))
                || (!is_module && target != "*");
            return (!allowed).then(|| format!("`{module}` must not import `{name}`"));
        }
        if first == "np_common" {
            let allowed =
                *np_common == ANYTHING || np_common.iter().any(|allowed| begins(rest, allowed));
            return (!allowed).then(|| format!("`{module}` must not import `{name}`"));
        }
        if *kind == Kind::Pure && NOT_PURE.iter().any(|banned| overlaps(path, banned)) {
            return Some(format!("`{module}` is pure and must not name `{name}`"));
        }
        let (_, homes) = ONLY_IN.iter().find(|(krate, _)| krate == first)?;
        let home = homes.contains(module);
        (!home).then(|| format!("`{name}` stops at {}, `{module}` is beyond", homes.join(" and ")))
    }
}

/// Whether a path lies below a prefix.
fn begins(path: &[String], prefix: &str) -> bool {
    let prefix: Vec<&str> = prefix.split("::").collect();
    path.len() >= prefix.len() && path.iter().zip(&prefix).all(|(a, b)| a == b)
}

/// Whether a path names what is banned or a module or glob through which that can be named.
fn overlaps(path: &[String], banned: &str) -> bool {
    let path = path.strip_suffix(&["*".to_owned()]).unwrap_or(path);
    path.iter().zip(banned.split("::")).all(|(a, b)| a == b)
}

fn common_file(text: &str, file: &FilePath) -> Vec<Breach> {
    let tokens = source::without_tests(source::tokens(text));
    let banned = ["std", "alloc", "np_agent", "tokio", "kube", "serde"];
    let found = paths::paths(&tokens, &["np-common".to_owned()]);
    found
        .into_iter()
        .filter(|path| banned.contains(&path.segments[0].as_str()))
        .map(|Path { segments, line }| Breach {
            place: format!("{}:{line}", file.display()),
            why: format!(
                "np-common runs in the kernel and must not name `{}`",
                segments.join("::")
            ),
        })
        .collect()
}

fn packages(packages: &[Package]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for Package { name, manifest, dependencies, targets: _ } in packages {
        let mut object = |why: String| {
            breaches.push(Breach { place: manifest.display().to_string(), why });
        };
        let Some((_, may)) = PACKAGES.iter().find(|(package, _)| package == name) else {
            object(format!("`{name}` has no row in xtask/src/layers/table.rs: add one"));
            continue;
        };
        for dependency in dependencies {
            let ours = PACKAGES.iter().any(|(package, _)| *package == dependency.name);
            if ours && !may.contains(&dependency.name.as_str()) {
                object(format!("`{name}` must not depend on `{}`", dependency.name));
            }
            let known = NP_COMMON_OPTIONAL.contains(&dependency.name.as_str());
            if name == "np-common" && !dependency.dev && !(known && dependency.optional) {
                object(format!("`np-common` must not depend on `{}`", dependency.name));
            }
        }
    }
    breaches
}

fn order() -> String {
    let mut text = format!("{:<10} {:<7} may import\n", "module", "kind");
    for Layer { module, kind, may, np_common } in NP_AGENT {
        let kind = match kind {
            Kind::Pure => "pure",
            Kind::Edge => "edge",
            Kind::Wiring => "wiring",
        };
        let mut names: Vec<String> = if *may == ANYTHING {
            vec!["everything".to_owned()]
        } else {
            may.iter().map(|name| (*name).to_owned()).collect()
        };
        match *np_common {
            ANYTHING if *may == ANYTHING => {}
            ANYTHING => names.push("np_common".to_owned()),
            some => names.extend(some.iter().map(|name| format!("np_common::{name}"))),
        }
        let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        text += &format!("{module:<10} {kind:<7} {names}\n");
    }
    text += &format!("\npure code must not name: {}\n", NOT_PURE.join(", "));
    for (krate, homes) in ONLY_IN {
        text += &format!("{krate} stops at {}\n", homes.join(" and "));
    }
    text += "\npackage    may depend on (of this workspace)\n";
    for (package, may) in PACKAGES {
        let may = if may.is_empty() { "nothing".to_owned() } else { may.join(", ") };
        text += &format!("{package:<10} {may}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    fn breaches(module: &str, text: &str) -> usize {
        let module: Vec<String> = module.split("::").map(str::to_owned).collect();
        agent_file(&module, text, FilePath::new("file.rs")).len()
    }

    #[test]
    fn a_layer_may_import_those_below_it() {
        assert_eq!(breaches("plan::diff", "use crate::{compile::A, model::B}; use super::C;"), 0);
        assert_eq!(breaches("index", "use crate::model::{PodKey, PodUid};"), 0);
        assert_eq!(breaches("plan", "use np_common::rules::Rule;"), 0);
        assert_eq!(breaches("links", "use crate::model::Change;"), 0);
    }

    #[test]
    fn a_layer_must_not_import_those_above_it() {
        assert_eq!(breaches("model", "use crate::index::Index;"), 1);
        assert_eq!(breaches("compile", "fn f(x: &crate::plan::Tables) {}"), 1);
        assert_eq!(breaches("index", "use super::compile;"), 1);
        assert_eq!(breaches("index", "use crate::*;"), 1);
        assert_eq!(breaches("compile", "use np_common::rules::Rule;"), 1);
        assert_eq!(breaches("model", "use np_common::{direction::Direction, maps::Map};"), 1);
    }

    #[test]
    fn edges_do_not_know_each_other_nor_the_wiring() {
        assert_eq!(breaches("source", "use crate::dataplane::apply;"), 1);
        assert_eq!(breaches("links::watch", "use crate::{source, app};"), 2);
        assert_eq!(breaches("links", "use crate::index::Change;"), 1);
        assert_eq!(breaches("links", "use crate::index;"), 1);
    }

    #[test]
    fn only_the_wiring_joins_everything() {
        assert_eq!(breaches("app", "use crate::{source, links, dataplane, args};"), 0);
        assert_eq!(breaches("main", "use np_agent::app;"), 0);
        assert_eq!(breaches("lib", "pub use self::model::PodKey;"), 0);
    }

    #[test]
    fn pure_code_does_no_io_and_reads_no_clock() {
        for bad in [
            "use tokio::sync::mpsc;",
            "use std::fs;",
            "use std::net::UdpSocket;",
            "use std::{net::{IpAddr, TcpStream}, fmt};",
            "use std::net;",
            "use std::net::*;",
            "let now = std::time::Instant::now();",
            "let e = ::aya::EbpfError;",
        ] {
            assert_eq!(breaches("compile", bad), 1, "{bad}");
        }
        for good in [
            "use std::net::IpAddr;",
            "use std::{collections::BTreeMap, fmt, time::Duration};",
            "// use std::fs;\nlet a = \"tokio::spawn\";",
            "#[cfg(test)]\nmod tests { use std::fs; }",
        ] {
            assert_eq!(breaches("compile", good), 0, "{good}");
        }
    }

    #[test]
    fn wire_types_stop_at_their_edge() {
        assert_eq!(breaches("dataplane", "use aya::maps::Array;"), 0);
        assert_eq!(breaches("links", "use aya::maps::Array;"), 1);
        assert_eq!(breaches("app", "use netlink_packet_route::link::LinkMessage;"), 1);
    }

    #[test]
    fn a_module_without_a_row_is_named() {
        assert_eq!(breaches("helpers", ""), 1);
    }

    #[test]
    fn a_file_s_module_follows_its_path() {
        let module = |path: &str| module_of(FilePath::new(path), FilePath::new("s")).join("::");
        assert_eq!(module("s/plan/diff.rs"), "plan::diff");
        assert_eq!(module("s/plan/mod.rs"), "plan");
        assert_eq!(module("s/main.rs"), "main");
    }

    #[test]
    fn np_common_needs_nothing_but_aya_on_demand() {
        let package = |name: &str, dependency: &str, optional, dev| {
            let dependency = Dependency { name: dependency.into(), optional, dev };
            let (name, manifest) = (name.to_owned(), PathBuf::new());
            packages(&[Package { name, manifest, dependencies: vec![dependency], targets: vec![] }])
                .len()
        };
        assert_eq!(package("np-common", "aya", true, false), 0);
        assert_eq!(package("np-common", "proptest", false, true), 0);
        assert_eq!(package("np-common", "aya", false, false), 1);
        assert_eq!(package("np-common", "serde", false, false), 1);
        assert_eq!(package("np-agent", "np-tests", false, true), 1);
        assert_eq!(package("np-ebpf", "np-agent", false, false), 1);
    }
}
