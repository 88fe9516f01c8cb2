//! The images that a cluster needs before it can pull any: the one that holds a pod's namespaces open,
//! its DNS, and the one that Kubernetes' tests talk to.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::config::PAUSE_IMAGE;
use super::places::Places;
use super::{dns, linked, programs};
use crate::image::archive::{self, Entry, Image};
use crate::shell::step;

/// In the version that Kubernetes' tests of go.mod's version ask for.
pub const AGNHOST_IMAGE: &str = "registry.k8s.io/e2e-test-images/agnhost:2.63.0";

/// In which those tests ask the DNS from glibc's programs. One image is both: the programs in ours are
/// Debian's, as they are in this one.
const GLIBC_IMAGE: &str = "registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0";

const BUSYBOX: &str = "/bin/busybox";

/// What a person, and a script of the tests, expects in a test pod.
const APPLETS: &[&str] = &[
    "cat", "date", "echo", "env", "grep", "hostname", "ip", "ls", "mkdir", "nslookup", "ping",
    "ps", "sed", "seq", "sleep", "test", "timeout", "true", "wget",
];

/// What the tests call and busybox lacks, or has with other options. Busybox's own shell would call its
/// applets and not these.
const PROGRAMS: &[(&str, &str)] = &[
    ("bash", "bash"),
    ("curl", "curl"),
    ("dig", "dig"),
    ("dash", "sh"),
    ("getent", "getent"),
    ("nc.openbsd", "nc"),
];

/// Makes the images, and returns their archives.
pub fn make(places: &Places) -> Result<Vec<PathBuf>> {
    step("packing images", || {
        let dir = places.images();
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let mut archives = Vec::new();
        let images = [
            ("pause", pause(places)),
            ("agnhost", agnhost(places)?),
            ("coredns", coredns(places)?),
        ];
        for (name, image) in images {
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

fn coredns(places: &Places) -> Result<Image> {
    Ok(Image {
        entrypoint: vec!["/coredns".to_owned()],
        entries: vec![Entry::program("coredns", places.program("coredns"))],
        ..image(&dns::image()?)
    })
}

fn agnhost(places: &Places) -> Result<Image> {
    // With which it serves TLS.
    let certificate = programs::agnhost_source(places)?.join("porter");
    let mut entries = vec![
        Entry::directory("bin", 0o755),
        Entry::directory("tmp", 0o1777),
        Entry::program("agnhost", places.program("agnhost")),
        Entry::program("localhost.crt", certificate.join("localhost.crt")),
        Entry::program("localhost.key", certificate.join("localhost.key")),
        Entry::program("bin/busybox", BUSYBOX),
    ];
    entries.extend(APPLETS.iter().map(|applet| Entry::link(&format!("bin/{applet}"), "busybox")));
    entries.extend(linked::entries(PROGRAMS)?);
    Ok(Image {
        names: vec![AGNHOST_IMAGE.to_owned(), GLIBC_IMAGE.to_owned()],
        entrypoint: vec!["/agnhost".to_owned()],
        command: vec!["pause".to_owned()],
        entries,
        ..image(AGNHOST_IMAGE)
    })
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
