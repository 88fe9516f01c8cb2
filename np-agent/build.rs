//! Embeds the object that `cargo xtask build-ebpf` made. Without it the agent still builds, and
//! says what is missing when it is to load programs.

use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let source = "object/np-ebpf.o";
    println!("cargo::rerun-if-changed={source}");
    let bytes = match fs::read(source) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let target = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    fs::write(target.join("np-ebpf.o"), bytes)
}
