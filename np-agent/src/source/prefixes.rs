//! The annotation by which a pod that forwards for others names what it sends from. Each entry is
//! taken or refused for itself, and what is refused puts neither the pod nor other entries in doubt.

use std::net::IpAddr;

use ipnet::IpNet;

use super::invalid::shortened;
use np_policy::model::{MOST_SOURCES, RefusedPrefix, SourcePrefixes};

/// More than a user reads about one pod.
const MOST_REFUSED: usize = 8;

/// Reads the annotation's value; none when it says nothing.
pub(super) fn read(text: &str) -> Option<Box<SourcePrefixes>> {
    if text.trim().is_empty() {
        return None;
    }
    let mut read = SourcePrefixes::default();
    for entry in text.split(',').map(str::trim) {
        if let Err(refused) = take(entry, &mut read.prefixes)
            && read.refused.len() < MOST_REFUSED
        {
            read.refused.push(refused);
        }
    }
    read.prefixes.sort_unstable();
    Some(Box::new(read))
}

fn take(entry: &str, prefixes: &mut Vec<IpNet>) -> Result<(), RefusedPrefix> {
    let refused = |(problem, remedy)| RefusedPrefix { value: shortened(entry), problem, remedy };
    let prefix = prefix(entry).map_err(refused)?;
    if prefixes.contains(&prefix) {
        return Ok(());
    }
    if prefixes.len() == MOST_SOURCES {
        let problem = format!("one more than the {MOST_SOURCES} that a pod may have");
        return Err(refused((problem, "write fewer and wider prefixes".to_owned())));
    }
    prefixes.push(prefix);
    Ok(())
}

/// Reads a prefix, or one address. In error, the problem and the remedy.
///
/// Stricter than an ipBlock is read: what is misspelt must not widen what a pod may do.
pub fn prefix(text: &str) -> Result<IpNet, (String, String)> {
    let remedy = "write address/length, such as \"10.8.0.0/24\" or \"fd00:8::/64\"".to_owned();
    let Some(prefix) = written(text) else {
        return Err(("neither a CIDR nor an address".to_owned(), remedy));
    };
    if prefix.trunc() != prefix {
        let (one, all) = (prefix.addr(), prefix.trunc());
        let problem = "bits are set behind the prefix".to_owned();
        return Err((problem, format!("write \"{one}\" or \"{all}\", whichever is meant")));
    }
    match prefix {
        IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some() => {
            let problem = "IPv4 in IPv6 notation".to_owned();
            Err((problem, "write it as IPv4, such as \"10.8.0.0/24\"".to_owned()))
        }
        IpNet::V4(_) | IpNet::V6(_) => Ok(prefix),
    }
}

/// Without leading zeros, which some read as octal.
fn written(text: &str) -> Option<IpNet> {
    let Some((address, length)) = text.split_once('/') else {
        return text.parse::<IpAddr>().ok().map(IpNet::from);
    };
    let bits: u8 = length.parse().ok()?;
    let plain = bits.to_string() == length;
    IpNet::new(address.parse().ok()?, bits).ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(text: &str) -> Vec<String> {
        let read = read(text).expect("it says something");
        assert_eq!(read.refused, [], "{text}");
        read.prefixes.iter().map(IpNet::to_string).collect()
    }

    #[test]
    fn prefixes_and_addresses_are_read() {
        assert_eq!(prefixes("10.8.0.0/24, fd00:8::/64"), ["10.8.0.0/24", "fd00:8::/64"]);
        assert_eq!(prefixes("fd00:8::1,10.8.0.1"), ["10.8.0.1/32", "fd00:8::1/128"]);
        assert_eq!(prefixes("10.8.0.0/24,10.8.0.0/24"), ["10.8.0.0/24"]);
        assert_eq!(prefixes("0.0.0.0/0,::/0"), ["0.0.0.0/0", "::/0"]);
        for nothing in ["", "  "] {
            assert_eq!(read(nothing), None);
        }
    }

    #[test]
    fn an_entry_that_is_no_prefix_is_refused_alone() {
        for text in [
            "",
            "ten",
            "10.8.0.0/33",
            "10.8.0.0/-1",
            "10.8.0.0/",
            "/24",
            "10.8.0/24",
            "fd00::/129",
            "10.8.0.5/24",
            "fd00:8::1/64",
            "010.8.0.0/24",
            "10.8.0.0/024",
            "10.8.0.0 /24",
            "::ffff:10.8.0.0/120",
            "::ffff:10.8.0.1",
            "fd00:8::1%eth0",
            "10.8.0.0/24;10.9.0.0/24",
        ] {
            let read = read(&format!("10.7.0.0/16, {text},fd00:7::/64")).expect("says something");
            let taken: Vec<String> = read.prefixes.iter().map(IpNet::to_string).collect();
            assert_eq!(taken, ["10.7.0.0/16", "fd00:7::/64"], "{text}");
            let [refused] = &read.refused[..] else { panic!("{text}: {:?}", read.refused) };
            assert_eq!(refused.value, text);
        }
        let refused = &read("10.8.0.5/24").expect("says something").refused[0];
        assert_eq!(
            refused.to_string(),
            "\"10.8.0.5/24\": bits are set behind the prefix; write \"10.8.0.5\" or \
             \"10.8.0.0/24\", whichever is meant"
        );
    }

    #[test]
    fn what_is_kept_of_a_pod_is_bounded() {
        let many = |count: usize| {
            let all: Vec<String> = (0..count).map(|i| format!("10.8.{i}.0/24")).collect();
            read(&all.join(",")).expect("says something")
        };
        assert_eq!(many(MOST_SOURCES).refused, []);
        let read_all = many(MOST_SOURCES + 1);
        assert_eq!(read_all.prefixes, many(MOST_SOURCES).prefixes);
        assert_eq!(read_all.refused[0].value, format!("10.8.{MOST_SOURCES}.0/24"));
        assert_eq!(many(200).prefixes.len(), MOST_SOURCES);
        assert_eq!(many(200).refused.len(), MOST_REFUSED);
        let long = "x".repeat(100_000);
        assert!(read(&long).expect("says something").refused[0].value.len() < 100);
    }
}
