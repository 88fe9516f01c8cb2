//! The images that a cluster needs before it can pull any: the one that holds a pod's namespaces open,
//! and the one that Kubernetes' tests talk to.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::config::PAUSE_IMAGE;
use super::places::Places;
use crate::image::archive::{self, Entry, Image};
use crate::shell::step;

/// In the version that Kubernetes' tests of go.mod's version ask for.
pub const AGNHOST_IMAGE: &str = "registry.k8s.io/e2e-test-images/agnhost:2.63.0";

const SHELL: &str = "/bin/busybox";

/// What a person expects in a test pod.
const APPLETS: &[&str] =
    &["sh", "cat", "ip", "ls", "nc", "nslookup", "ping", "ps", "sleep", "wget"];

/// Makes the images, and returns their archives.
pub fn make(places: &Places) -> Result<Vec<PathBuf>> {
    step("packing images", || {
        let dir = places.images();
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let mut archives = Vec::new();
        for (name, image) in [("pause", pause(places)), ("agnhost", agnhost(places))] {
            let archive = dir.join(format!("{name}.tar"));
            archive::write(&image, &archive)?;
            archives.push(archive);
        }
        Ok(archives)
    })
}

fn pause(places: &Places) -> Image {
    Image {
        entrypoint: vec!["/pause".to_owned()],
        entries: vec![Entry::program("pause", places.program("pause"))],
        ..image(PAUSE_IMAGE)
    }
}

fn agnhost(places: &Places) -> Image {
    let mut entries = vec![
        Entry::directory("bin", 0o755),
        Entry::directory("tmp", 0o1777),
        Entry::program("agnhost", places.program("agnhost")),
        Entry::program("bin/busybox", SHELL),
    ];
    entries.extend(APPLETS.iter().map(|applet| Entry::link(&format!("bin/{applet}"), "busybox")));
    Image {
        entrypoint: vec!["/agnhost".to_owned()],
        command: vec!["pause".to_owned()],
        entries,
        ..image(AGNHOST_IMAGE)
    }
}

fn image(name: &str) -> Image {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Image {
        names: vec![name.to_owned()],
        architecture: architecture.to_owned(),
        created: "1970-01-01T00:00:00Z".to_owned(),
        ..Image::default()
    }
}
