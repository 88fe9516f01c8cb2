//! The demo: every story for a reader, on the terminal and as one HTML page.

pub mod html;
pub mod interrupt;
pub mod terminal;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::proxy::Mode;
use crate::story::edit::{self, Fact};
use crate::story::malformed::{self, PlayedMistake};
use crate::story::{self, Played, Stage, Story};
use terminal::Terminal;

/// What to play and where to write it.
#[derive(Clone, Debug)]
pub struct Config {
    pub proxy: Mode,
    pub html: PathBuf,
    /// Ids of stories, "edit" and "malformed"; empty for all.
    pub only: Vec<String>,
    pub terminal: Terminal,
}

/// Everything that was played.
#[derive(Debug)]
pub struct Show {
    pub proxy: Mode,
    pub stories: Vec<Played>,
    pub edit: Vec<Fact>,
    pub malformed: Vec<PlayedMistake>,
    pub took: Duration,
}

impl Show {
    pub fn checks(&self) -> usize {
        self.stories.iter().map(Played::checks).sum::<usize>()
            + self.edit.len()
            + self.malformed.iter().map(PlayedMistake::checks).sum::<usize>()
    }

    pub fn differing(&self) -> usize {
        self.stories.iter().map(Played::differing).sum::<usize>()
            + self.edit.iter().filter(|fact| !fact.agrees).count()
            + self.malformed.iter().map(PlayedMistake::differing).sum::<usize>()
    }

    pub fn summary(&self) -> String {
        let plural = |count: usize, one: &str, many: &str| {
            format!("{count} {}", if count == 1 { one } else { many })
        };
        format!(
            "{}, {} checked, {} differ; kube-proxy in {} mode, {:.0} s",
            plural(self.acts(), "story", "stories"),
            plural(self.checks(), "cell", "cells"),
            self.differing(),
            self.proxy,
            self.took.as_secs_f64()
        )
    }

    /// Stories, the edit and the malformed manifests among them.
    fn acts(&self) -> usize {
        self.stories.len()
            + usize::from(!self.edit.is_empty())
            + usize::from(!self.malformed.is_empty())
    }
}

/// Builds the cluster, plays, prints, writes the page. Returns what was played.
pub fn run(config: &Config) -> Result<Show> {
    let Config { proxy, html, only, terminal } = config;
    let wanted = Wanted::new(only)?;
    let start = Instant::now();
    let spec = story::cluster::spec();
    println!(
        "{} nodes, {} pods, {} hosts outside, as network namespaces …",
        spec.nodes.len(),
        spec.pods.len(),
        spec.outside.len()
    );
    let mut stage = Stage::set_up(*proxy)?;
    println!(
        "… up after {:.1} s: kube-proxy's rules in {proxy} mode, one np-agent per node",
        start.elapsed().as_secs_f64()
    );
    println!(
        "In each cell one mark for IPv4 and one for IPv6: ✓ answered, ✗ timed out, · not tried"
    );

    let mut show = Show {
        proxy: *proxy,
        stories: Vec::new(),
        edit: Vec::new(),
        malformed: Vec::new(),
        took: Duration::ZERO,
    };
    for story in &wanted.stories {
        interrupt::check()?;
        let played = stage.play(story)?;
        println!("{}", terminal.story(&played).trim_end());
        show.stories.push(played);
    }
    if wanted.edit {
        interrupt::check()?;
        println!("{}", terminal.heading("A policy edited on disk, under traffic").trim_end());
        show.edit = edit::play(&mut stage)?;
        print!("{}", terminal.facts(&show.edit));
    }
    if wanted.malformed {
        interrupt::check()?;
        let title = "Malformed manifests: what a user is told, and that nothing changes";
        println!("{}", terminal.heading(title).trim_end());
        show.malformed = malformed::play(&mut stage, |played| {
            println!("{}", terminal.mistake(played).trim_end());
        })?;
    }
    drop(stage);
    show.took = start.elapsed();

    if let Some(directory) = html.parent() {
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    }
    fs::write(html, html::page(&show, &spec))
        .with_context(|| format!("write {}", html.display()))?;
    println!("\n{}", terminal.summary(&show));
    println!("{} shows it all on one page", html.display());
    Ok(show)
}

struct Wanted {
    stories: Vec<&'static Story>,
    edit: bool,
    malformed: bool,
}

impl Wanted {
    fn new(only: &[String]) -> Result<Self> {
        let asked = |id: &str| only.is_empty() || only.iter().any(|o| o.eq_ignore_ascii_case(id));
        for id in only {
            let known = story::all().any(|story| story.id.eq_ignore_ascii_case(id))
                || ["edit", "malformed"].contains(&id.to_lowercase().as_str());
            ensure!(known, "no story is named {id}: there are A1…A13, B1…B8, edit and malformed");
        }
        let stories: Vec<_> = story::all().filter(|story| asked(story.id)).collect();
        let (edit, malformed) = (asked("edit"), asked("malformed"));
        if stories.is_empty() && !edit && !malformed {
            bail!("nothing to play");
        }
        Ok(Self { stories, edit, malformed })
    }
}
