//! Embeds the object that `cargo xtask build-ebpf` made. Without it the agent still builds, so that
//! editors and `cargo check` need no eBPF toolchain, and says what is missing when it is to load
//! programs.

use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    // The directory is always there: cargo takes a path that is absent for one that has changed, and
    // would build the agent again each time.
    println!("cargo::rerun-if-changed=object");
    let bytes = match fs::read("object/np-ebpf.o") {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            println!(
                "cargo::warning=this np-agent has no eBPF programs inside: `cargo xtask build-ebpf` \
                 makes them"
            );
            Vec::new()
        }
        Err(error) => return Err(error),
    };
    let target = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    fs::write(target.join("np-ebpf.o"), bytes)
}
