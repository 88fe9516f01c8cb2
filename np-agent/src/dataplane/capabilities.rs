//! The capabilities that the agent needs, in the one place that everything else names them from.

use std::fs;

use super::error::DataplaneError;

/// Name and number, see include/uapi/linux/capability.h.
pub const NEEDED: [(&str, u32); 4] = [
    // Maps and programs.
    ("CAP_BPF", 39),
    // Devices.
    ("CAP_NET_ADMIN", 12),
    // To hear of addresses in pods' namespaces.
    ("CAP_NET_BROADCAST", 11),
    // Without it the verifier refuses to read a stack slot that not every path has written, which
    // compilers do freely, and adds a speculation barrier to stack writes.
    ("CAP_PERFMON", 38),
];

pub(super) fn names() -> String {
    NEEDED.map(|(name, _)| name).join(", ")
}

/// Names what the process lacks, so that the user need not guess from EPERM.
pub fn require() -> Result<(), DataplaneError> {
    let path = "/proc/thread-self/status";
    let status = fs::read_to_string(path)
        .map_err(DataplaneError::file("read capabilities in", path.as_ref()))?;
    let missing = missing(&status);
    if missing.is_empty() { Ok(()) } else { Err(DataplaneError::Capabilities(missing)) }
}

fn missing(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    NEEDED
        .into_iter()
        .filter(|(_, bit)| effective & (1 << bit) == 0)
        .map(|(name, _)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let all = NEEDED.iter().fold(0u64, |mask, (_, bit)| mask | 1 << bit);
        assert!(missing(&format!("Name:\tx\nCapEff:\t{all:016x}\n")).is_empty());
        for (name, bit) in NEEDED {
            let status = format!("CapEff:\t{:016x}\n", all & !(1 << bit));
            assert_eq!(missing(&status), [name]);
        }
        assert_eq!(missing("").len(), NEEDED.len());
    }

    /// A document that names one of them names them all, and no other.
    #[test]
    fn the_documents_name_exactly_these() {
        let needed: BTreeSet<&str> = NEEDED.iter().map(|(name, _)| *name).collect();
        for document in ["README.md", "SECURITY.md", "KERNELS.md"] {
            let path = format!("{}/../{document}", env!("CARGO_MANIFEST_DIR"));
            let text = fs::read_to_string(&path).expect("the document is there");
            let words = text.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
            let named: BTreeSet<&str> = words.filter(|word| word.starts_with("CAP_")).collect();
            assert_eq!(named, needed, "{document}");
        }
    }
}
