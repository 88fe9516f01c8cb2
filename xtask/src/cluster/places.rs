//! Where the cluster's files are. Everything lies below one directory, so that taking it down is
//! removing that.

use std::path::PathBuf;

use anyhow::Result;

use crate::workspace::Workspace;

#[derive(Clone, Debug)]
pub struct Places {
    root: PathBuf,
}

impl Places {
    pub fn find() -> Result<Self> {
        Ok(Self { root: Workspace::read(false)?.target_dir.join("cluster") })
    }

    pub fn root(&self) -> &PathBuf {
        &self.root
    }

    /// Built programs; they outlive a cluster.
    pub fn bin(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// A program as this machine runs it.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin().join(name)
    }

    /// Images made of the programs; they outlive a cluster too.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// What the programs print. It stays until the next cluster, to look into after a failure.
    pub fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// What one host has on its disk.
    pub fn host(&self, name: &str) -> PathBuf {
        self.root.join("hosts").join(name)
    }

    pub fn hosts(&self) -> PathBuf {
        self.root.join("hosts")
    }

    /// What kind of cluster it is.
    pub fn kind(&self) -> PathBuf {
        self.root.join("kind")
    }

    /// For the person, and for the tests: everything is allowed.
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }
}
