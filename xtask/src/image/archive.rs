//! An image as one tar that every loader reads: an OCI layout, and next to it the manifest.json of
//! `docker save`, over the same blobs. What goes in decides every byte, so a rebuild is the same image.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// What an image holds and how it is run.
#[derive(Debug, Default)]
pub struct Image {
    /// Full references, such as `registry.k8s.io/pause:3.10.1`.
    pub names: Vec<String>,
    /// As Go says it: amd64, arm64.
    pub architecture: String,
    /// When, in RFC 3339.
    pub created: String,
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub entries: Vec<Entry>,
}

/// A path in the image, without a slash in front.
#[derive(Debug)]
pub struct Entry {
    pub path: String,
    pub kind: Kind,
}

#[derive(Debug)]
pub enum Kind {
    Directory { mode: u32 },
    Program(PathBuf),
    Link(String),
}

impl Entry {
    pub fn directory(path: &str, mode: u32) -> Self {
        Self { path: path.to_owned(), kind: Kind::Directory { mode } }
    }

    pub fn program(path: &str, file: impl Into<PathBuf>) -> Self {
        Self { path: path.to_owned(), kind: Kind::Program(file.into()) }
    }

    pub fn link(path: &str, target: &str) -> Self {
        Self { path: path.to_owned(), kind: Kind::Link(target.to_owned()) }
    }
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Writes the archive and returns its size in bytes.
///
/// # Errors
/// If a file cannot be read or the archive cannot be written.
pub fn write(image: &Image, archive: &Path) -> Result<u64> {
    // Never half an archive under its name.
    let part = archive.with_extension("tar.part");
    let file = File::create(&part).with_context(|| format!("making {}", part.display()))?;
    let mut builder = Builder::new(file);
    for (path, bytes) in contents(image)? {
        append(&mut builder, &path, EntryType::Regular, 0o644, &bytes)?;
    }
    builder.into_inner().and_then(|file| file.sync_all()).context("writing the archive")?;
    fs::rename(&part, archive).with_context(|| format!("making {}", archive.display()))?;
    Ok(fs::metadata(archive)?.len())
}

/// The files of the archive.
fn contents(image: &Image) -> Result<Vec<(String, Vec<u8>)>> {
    let unpacked = layer(&image.entries)?;
    let config = config(image, &digest(&unpacked));
    let layer = compressed(&unpacked)?;
    let manifest = bytes(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &layer)],
    }));
    let index = bytes(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": image.names.iter().map(|name| named(name, image, &manifest)).collect::<Vec<_>>(),
    }));
    let docker = bytes(&json!([{
        "Config": blob(&digest(&config)),
        "RepoTags": image.names,
        "Layers": [blob(&digest(&layer))],
    }]));
    let blobs = [config, layer, manifest].map(|bytes| (blob(&digest(&bytes)), bytes));
    let layout = bytes(&json!({"imageLayoutVersion": "1.0.0"}));
    let mut files = vec![
        ("oci-layout".to_owned(), layout),
        ("index.json".to_owned(), index),
        ("manifest.json".to_owned(), docker),
    ];
    files.extend(blobs);
    Ok(files)
}

/// By gzip, with nothing in its header that tells of time or place.
fn compressed(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).context("compressing a layer")?;
    encoder.finish().context("compressing a layer")
}

fn config(image: &Image, layer: &str) -> Vec<u8> {
    bytes(&json!({
        "architecture": image.architecture,
        "os": "linux",
        "created": image.created,
        "config": {
            "Entrypoint": image.entrypoint,
            "Cmd": image.command,
            "Env": [PATH],
            "Labels": image.labels,
        },
        "rootfs": {"type": "layers", "diff_ids": [layer]},
        "history": [{"created": image.created, "created_by": "cargo xtask image"}],
    }))
}

/// A manifest under one of its names: containerd reads the first annotation, others the second.
fn named(name: &str, image: &Image, manifest: &[u8]) -> Value {
    let mut value = descriptor("application/vnd.oci.image.manifest.v1+json", manifest);
    let tag = name.rsplit_once(':').map_or(name, |(_, tag)| tag);
    value["platform"] = json!({"architecture": image.architecture, "os": "linux"});
    value["annotations"] = json!({
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": tag,
    });
    value
}

fn layer(entries: &[Entry]) -> Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    for Entry { path, kind } in entries {
        match kind {
            Kind::Directory { mode } => {
                append(&mut builder, path, EntryType::Directory, *mode, &[])?;
            }
            Kind::Program(file) => {
                let bytes =
                    fs::read(file).with_context(|| format!("reading {}", file.display()))?;
                append(&mut builder, path, EntryType::Regular, 0o755, &bytes)?;
            }
            Kind::Link(target) => {
                let mut header = header(EntryType::Symlink, 0o777, 0);
                builder.append_link(&mut header, path, target).context("packing a link")?;
            }
        }
    }
    builder.into_inner().context("packing a layer")
}

fn append<W: std::io::Write>(
    builder: &mut Builder<W>,
    path: &str,
    kind: EntryType,
    mode: u32,
    bytes: &[u8],
) -> Result<()> {
    let mut header = header(kind, mode, bytes.len());
    builder.append_data(&mut header, path, bytes).with_context(|| format!("packing {path}"))
}

/// Everything is root's and of the same time, no matter who builds it and when.
fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(u64::try_from(size).unwrap_or(u64::MAX));
    header
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}

fn blob(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

fn bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn image() -> Image {
        Image {
            names: vec!["registry.example/a/b:1".to_owned(), "registry.example/a/b:2".to_owned()],
            architecture: "amd64".to_owned(),
            entries: vec![
                Entry::directory("tmp", 0o1777),
                Entry::program("bin/self", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")),
                Entry::link("bin/sh", "self"),
            ],
            ..Image::default()
        }
    }

    fn read(files: &[(String, Vec<u8>)], path: &str) -> Value {
        let (_, bytes) = files.iter().find(|(name, _)| name == path).expect(path);
        serde_json::from_slice(bytes).expect("it is JSON")
    }

    #[test]
    fn both_indexes_lead_to_the_same_blobs() {
        let files = contents(&image()).expect("it is packed");
        let named = |value: &Value| blob(value["digest"].as_str().expect("a digest"));
        let index = read(&files, "index.json");
        assert_eq!(index["manifests"].as_array().expect("a list").len(), 2);
        assert_eq!(
            index["manifests"][1]["annotations"]["io.containerd.image.name"],
            "registry.example/a/b:2"
        );
        let manifest = read(&files, &named(&index["manifests"][0]));
        let docker = read(&files, "manifest.json");
        assert_eq!(docker[0]["Config"], named(&manifest["config"]));
        assert_eq!(docker[0]["Layers"][0], named(&manifest["layers"][0]));
        assert_eq!(docker[0]["RepoTags"][0], "registry.example/a/b:1");
        let config = read(&files, &named(&manifest["config"]));
        // The configuration names the layer as it unpacks.
        let path = named(&manifest["layers"][0]);
        let (_, layer) = files.iter().find(|(name, _)| *name == path).expect("the layer");
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&layer[..]).read_to_end(&mut unpacked).expect("it is gzip");
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(&unpacked));
    }

    #[test]
    fn every_blob_bears_its_digest() {
        for (path, bytes) in contents(&image()).expect("it is packed") {
            if path.starts_with("blobs/") {
                assert_eq!(path, blob(&digest(&bytes)));
            }
        }
    }

    #[test]
    fn the_same_files_make_the_same_image() {
        assert_eq!(contents(&image()).expect("once"), contents(&image()).expect("twice"));
    }

    #[test]
    fn a_digest_is_sha256_in_hex() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(b""), empty);
    }
}
