//! Running other programs: what runs is shown, long steps are timed, a failure names its command.

use std::env;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

/// Announces a step, runs it, and tells how long it took.
pub fn step<T>(what: &str, body: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("==> {what}");
    flush();
    let start = Instant::now();
    let result = body();
    let seconds = start.elapsed().as_secs_f32();
    match &result {
        Ok(_) => println!("    {what}: done in {seconds:.1} s"),
        Err(_) => println!("    {what}: failed after {seconds:.1} s"),
    }
    flush();
    result
}

/// Shows and runs a command with our output.
///
/// # Errors
/// If it cannot be started or does not exit with 0.
pub fn run(command: &mut Command) -> Result<()> {
    let line = line(command);
    println!("    $ {line}");
    flush();
    let status =
        command.stdin(Stdio::null()).status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// Runs a command quietly and returns what it printed.
///
/// # Errors
/// If it cannot be started or does not exit with 0; its stderr is in the message then.
pub fn capture(command: &mut Command) -> Result<String> {
    let line = line(command);
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` failed ({}): {}", output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Writes a file of the repository and says so.
pub fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}

/// The cargo that runs us, so that a `+toolchain` stays in force.
///
/// What cargo says of the package that it runs is ours, not the next cargo's: build scripts that watch
/// these variables would run again, here and by hand in turn.
pub fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let about_us =
            |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if name.to_str().is_some_and(about_us) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Finds a program as a shell would; also where root's tools are, which a user's PATH may lack.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|program| is_executable(program))
}

pub fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.mode() & 0o111 != 0)
}

/// Whether this process has the effective user id 0.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// A command run as root: as it is when we are root, else by sudo.
///
/// # Errors
/// If we are not root and there is no sudo; `why` says what root is needed for.
pub fn as_root(program: impl AsRef<Path>, why: &str) -> Result<Command> {
    let program = program.as_ref();
    if is_root() {
        return Ok(Command::new(program));
    }
    let Some(sudo) = find_program("sudo") else {
        bail!("{why} needs root, and there is no sudo: run this command as root");
    };
    println!("    {why} needs root: using sudo");
    let mut command = Command::new(sudo);
    command.arg(program);
    Ok(command)
}

/// The command as a person would type it: our own cargo by its name, any other by its path.
pub fn line(command: &Command) -> String {
    let program = command.get_program();
    let program = if program == cargo().get_program() { "cargo".as_ref() } else { program };
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Our lines and those of the programs we run go to one pipe: keep their order.
pub fn flush() {
    if io::stdout().flush().is_err() {
        // Nobody reads our output any more; what we run still counts.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_names_itself() {
        let error = capture(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("sh -c") && text.contains("why") && text.contains('3'), "{text}");
    }

    #[test]
    fn a_missing_program_is_not_found() {
        assert_eq!(find_program("no-such-program-anywhere"), None);
        assert!(find_program("sh").is_some());
    }
}
