//! Edits on disk become batches, one for each burst.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use np_agent::source::{Batch, Manifests, SourceError, run};
use tokio::sync::mpsc::{self, Receiver};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::{Dir, changes, namespace};

struct Running {
    batches: Receiver<Batch>,
    task: JoinHandle<Result<(), SourceError>>,
}

impl Running {
    async fn start(manifests: Manifests, first: &[&str]) -> Self {
        let (sender, batches) = mpsc::channel(16);
        let mut running = Self { batches, task: tokio::spawn(run(manifests, sender)) };
        assert_eq!(changes(&running.next().await), first);
        running
    }

    async fn next(&mut self) -> Batch {
        timeout(Duration::from_secs(10), self.batches.recv()).await.unwrap().unwrap()
    }

    /// The next batch, which also has to be the only one.
    async fn one(&mut self) -> Vec<String> {
        let batch = self.next().await;
        self.quiet().await;
        changes(&batch)
    }

    async fn quiet(&mut self) {
        let more = timeout(Duration::from_millis(250), self.batches.recv()).await;
        assert!(more.is_err(), "a batch too many: {more:?}");
    }

    async fn stop(self) {
        drop(self.batches);
        timeout(Duration::from_secs(10), self.task).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn edits_of_every_kind_are_noticed() {
    let dir = Dir::with("a.yaml", namespace("a", ""));
    let mut running = Running::start(dir.open(), &["+Namespace a"]).await;

    dir.write("a.yaml", namespace("a", "x: z"));
    assert_eq!(running.one().await, ["+Namespace a"]);

    dir.write("b.yaml.tmp", namespace("b", ""));
    running.quiet().await;
    fs::rename(dir.path("b.yaml.tmp"), dir.path("b.yaml")).unwrap();
    assert_eq!(running.one().await, ["+Namespace b"]);

    fs::remove_file(dir.path("b.yaml")).unwrap();
    assert_eq!(running.one().await, ["-Namespace b"]);

    // Nothing changed: still a batch, so that an edit can be waited for.
    dir.write("a.yaml", namespace("a", "x: z"));
    assert_eq!(running.one().await, [""; 0]);

    dir.write("a.yaml", "{{{{");
    let batch = running.next().await;
    assert_eq!((changes(&batch), batch.invalid.len()), (vec![], 1));

    dir.write(".a.yaml.swp", "draft");
    dir.write("notes.txt", "text");
    running.quiet().await;
    running.stop().await;
}

#[tokio::test]
async fn new_directories_are_followed() {
    let dir = Dir::new();
    let mut running = Running::start(dir.open(), &[]).await;
    dir.write("x/y/a.yaml", namespace("a", ""));
    // The files may come after the directory's own batch, never not at all.
    let mut seen = Vec::new();
    while seen.is_empty() {
        seen = changes(&running.next().await);
    }
    assert_eq!(seen, ["+Namespace a"]);
    dir.write("x/y/b.yaml", namespace("b", ""));
    assert_eq!(running.one().await, ["+Namespace b"]);
    fs::remove_dir_all(dir.path("x")).unwrap();
    let mut gone = Vec::new();
    while gone.len() < 2 {
        gone.extend(changes(&running.next().await));
    }
    assert_eq!(gone, ["-Namespace a", "-Namespace b"]);
    running.stop().await;
}

/// As the kubelet updates a mounted ConfigMap: a new directory, then one link is renamed.
#[tokio::test]
async fn a_swapped_link_is_one_change() {
    let dir = Dir::new();
    dir.write("..1/a.yaml", namespace("a", ""));
    dir.write("..1/b.yaml", namespace("b", ""));
    symlink("..1", dir.path("..data")).unwrap();
    symlink("..data/a.yaml", dir.path("a.yaml")).unwrap();
    symlink("..data/b.yaml", dir.path("b.yaml")).unwrap();
    let mut running = Running::start(dir.open(), &["+Namespace a", "+Namespace b"]).await;
    for version in 2..5 {
        let label = format!("v: v{version}");
        dir.write(&format!("..{version}/a.yaml"), namespace("a", &label));
        dir.write(&format!("..{version}/b.yaml"), namespace("b", &label));
        symlink(format!("..{version}"), dir.path("..data_tmp")).unwrap();
        running.quiet().await;
        fs::rename(dir.path("..data_tmp"), dir.path("..data")).unwrap();
        assert_eq!(running.one().await, ["+Namespace a", "+Namespace b"]);
        fs::remove_dir_all(dir.path(&format!("..{}", version - 1))).unwrap();
        running.quiet().await;
    }
    running.stop().await;
}

#[tokio::test]
async fn targets_of_links_are_watched() {
    let target = Dir::with("real.yaml", namespace("a", ""));
    let dir = Dir::new();
    symlink(target.path("real.yaml"), dir.path("a.yaml")).unwrap();
    let mut running = Running::start(dir.open(), &["+Namespace a"]).await;
    target.write("real.yaml", namespace("a", "x: z"));
    assert_eq!(running.one().await, ["+Namespace a"]);
    target.write("other.yaml", namespace("b", ""));
    running.quiet().await;
    running.stop().await;
}

#[tokio::test]
async fn a_directory_that_vanishes_and_returns_is_followed() {
    let dir = Dir::with("m/a.yaml", namespace("a", ""));
    let manifests = Manifests::open(dir.path("m")).unwrap();
    let mut running = Running::start(manifests, &["+Namespace a"]).await;
    fs::rename(dir.path("m"), dir.path("n")).unwrap();
    let batch = running.next().await;
    assert_eq!((changes(&batch), batch.invalid.len()), (vec![], 1));
    dir.write("n/b.yaml", namespace("b", ""));
    running.quiet().await;
    fs::rename(dir.path("n"), dir.path("m")).unwrap();
    assert_eq!(running.one().await, ["+Namespace b"]);
    running.stop().await;
}

/// A writer that takes its time is waited for: the half file says less than the whole.
#[tokio::test]
async fn a_file_is_read_when_it_is_closed() {
    use std::io::Write;
    let dir = Dir::with("a.yaml", namespace("a", ""));
    let mut running = Running::start(dir.open(), &["+Namespace a"]).await;
    let mut file = fs::File::create(dir.path("a.yaml")).unwrap();
    tokio::time::sleep(Duration::from_millis(30)).await;
    file.write_all(namespace("a", "x: z").as_bytes()).unwrap();
    drop(file);
    assert_eq!(running.one().await, ["+Namespace a"]);
    running.stop().await;
}
