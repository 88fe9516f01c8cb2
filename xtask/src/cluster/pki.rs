//! Who is who: a certificate authority, the API server's certificates, and a token for each user.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::addresses::node_name;
use super::config;
use super::flannel;
use super::options::Options;
use super::places::Places;
use crate::shell;

/// (file name, user, groups)
const USERS: [(&str, &str, &str); 5] = [
    ("admin", "admin", "system:masters"),
    ("controller-manager", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("proxy", "system:kube-proxy", ""),
    ("flannel", flannel::USER, ""),
];

/// Makes all keys, certificates, tokens and kubeconfigs of a new cluster.
pub fn make(places: &Places, options: &Options) -> Result<()> {
    let dir = places.pki();
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    let keys = Keys { dir: &dir };
    keys.certificates(options)?;
    let server = options.family.server();
    let authority = shell::capture(
        Command::new("openssl").args(["base64", "-A", "-in"]).arg(dir.join("ca.crt")),
    )?;
    let nodes: Vec<(String, String)> = (1..=options.nodes)
        .map(node_name)
        .map(|node| (node.clone(), format!("system:node:{node}")))
        .collect();
    let users = USERS
        .into_iter()
        .chain(nodes.iter().map(|(file, user)| (file.as_str(), user.as_str(), "system:nodes")));
    let mut tokens = String::new();
    for (file, user, groups) in users {
        let token = shell::capture(Command::new("openssl").args(["rand", "-hex", "16"]))?;
        let token = token.trim();
        writeln!(tokens, "{token},{user},{file},\"{groups}\"").context("listing tokens")?;
        let kubeconfig = config::kubeconfig(&server, authority.trim(), token);
        let path =
            if file == "admin" { places.kubeconfig() } else { dir.join(format!("{file}.conf")) };
        private(&path, &kubeconfig.to_string())?;
    }
    private(&dir.join("tokens.csv"), &tokens)
}

struct Keys<'a> {
    dir: &'a Path,
}

impl Keys<'_> {
    fn certificates(&self, options: &Options) -> Result<()> {
        // The machine's own configuration would add extensions of its own.
        private(&self.file("openssl.cnf"), "[req]\ndistinguished_name = name\n[name]\n")?;
        self.certificate("ca", "/CN=np-cluster", &["basicConstraints=critical,CA:TRUE"], None)?;
        let mut names: String =
            "subjectAltName=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,\
             DNS:localhost,IP:127.0.0.1"
                .to_owned();
        for plan in options.family.plans() {
            write!(names, ",IP:{},IP:{}", plan.control(), plan.api_service())
                .context("listing names")?;
        }
        let leaf = "basicConstraints=critical,CA:FALSE";
        self.certificate("api-server", "/CN=kube-apiserver", &[leaf, &names], Some("ca"))?;
        let masters = "/O=system:masters/CN=kube-apiserver";
        self.certificate("kubelet-client", masters, &[leaf], Some("ca"))?;
        let mut command = Command::new("openssl");
        command.args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out"]);
        shell::capture(command.arg(self.file("service-accounts.key"))).map(drop)
    }

    fn certificate(
        &self,
        name: &str,
        subject: &str,
        extensions: &[&str],
        issuer: Option<&str>,
    ) -> Result<()> {
        let mut command = Command::new("openssl");
        command
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-noenc", "-days", "365", "-subj", subject, "-config"])
            .arg(self.file("openssl.cnf"))
            .arg("-keyout")
            .arg(self.file(&format!("{name}.key")))
            .arg("-out")
            .arg(self.file(&format!("{name}.crt")));
        for extension in extensions {
            command.args(["-addext", extension]);
        }
        if let Some(issuer) = issuer {
            command.arg("-CA").arg(self.file(&format!("{issuer}.crt")));
            command.arg("-CAkey").arg(self.file(&format!("{issuer}.key")));
        }
        shell::capture(&mut command).map(drop)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// Writes a file that only its owner reads.
fn private(path: &Path, text: &str) -> Result<()> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    let file = options.open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("writing {}", path.display()))
}
