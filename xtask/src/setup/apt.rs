//! What apt-get must be given where packages of more than one release are installed.
//!
//! Packages of one source need each other in exactly one version. Where one of them was installed
//! from a newer release, apt-get refuses the others of this one ("unmet dependencies") and does not
//! go back by itself. So it is given the version that each of them is to have, and the permission.

use anyhow::Result;

/// Never in exchange for something the machine's owner has installed.
pub(super) const OPTIONS: [&str; 3] =
    ["--no-install-recommends", "--no-remove", "--allow-downgrades"];

/// More would not be siblings any more.
const ROUNDS: usize = 16;

/// What is to be installed besides, as `NAME=VERSION`, so that apt-get does what it is asked; none
/// if it does so anyway, or if that does not help. `simulate` returns what it says when it refuses.
pub(super) fn siblings_of_one_release(
    mut packages: Vec<String>,
    simulate: impl Fn(&[String]) -> Result<Option<String>>,
) -> Result<Vec<String>> {
    let asked = packages.len();
    for _ in 0..ROUNDS {
        let Some(said) = simulate(&packages)? else { return Ok(packages.split_off(asked)) };
        let mut wanted = exact(&said);
        wanted.retain(|sibling| !packages.contains(sibling));
        if wanted.is_empty() {
            break;
        }
        packages.extend(wanted);
    }
    // The real call says in full why not.
    Ok(Vec::new())
}

/// The versions that others are installed in the place of.
fn exact(said: &str) -> Vec<String> {
    let mut wanted = Vec::new();
    for line in said.lines() {
        // "Depends: libslirp0 (= 4.7.0-1) but 4.8.0-1 is to be installed"
        let Some((_, dependency)) = line.split_once("Depends: ") else { continue };
        let Some((name, rest)) = dependency.split_once(" (= ") else { continue };
        let Some((version, rest)) = rest.split_once(") but ") else { continue };
        if rest.ends_with("is to be installed") && !rest.starts_with("it is not") {
            let sibling = format!("{name}={version}");
            if !wanted.contains(&sibling) {
                wanted.push(sibling);
            }
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: &str = "\
The following packages have unmet dependencies:
 libc6-dev : Depends: libc6 (= 2.36-9+deb12u13) but 2.41-12 is to be installed
             Depends: libc-dev-bin (= 2.36-9+deb12u13) but 2.41-12 is to be installed
 qemu-system-x86 : Depends: libfdt1 (>= 1.6.0) but it is not installable
                   Depends: seabios (= 1) but it is not going to be installed
E: Unable to correct problems, you have held broken packages.
";

    #[test]
    fn only_versions_that_others_stand_in_for_are_named() {
        let wanted = ["libc6=2.36-9+deb12u13", "libc-dev-bin=2.36-9+deb12u13"];
        assert_eq!(exact(REFUSED), wanted);
        assert!(exact("E: Unable to locate package x").is_empty());
    }

    #[test]
    fn siblings_are_added_until_apt_agrees_or_nothing_is_left_to_add() {
        let asked = || vec!["qemu-system-x86".to_owned()];
        let needs = |packages: &[String]| -> Result<Option<String>> {
            Ok(packages.iter().all(|p| !p.starts_with("libc6=")).then(|| REFUSED.to_owned()))
        };
        let siblings = siblings_of_one_release(asked(), needs).expect("it is asked");
        assert_eq!(siblings, exact(REFUSED));
        let never = |_: &[String]| Ok(Some(REFUSED.to_owned()));
        assert!(siblings_of_one_release(asked(), never).expect("it is asked").is_empty());
        let always = |_: &[String]| Ok(None);
        assert!(siblings_of_one_release(asked(), always).expect("it is asked").is_empty());
    }
}
