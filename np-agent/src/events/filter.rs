//! Which lines a client wants: one JSON object, the first line that it sends.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use np_common::event::Report;
use np_common::verdict::{Action, Reason, posture};
use serde::{Deserialize, Serialize};

use super::line::{Content, EndLine, EventLine};

/// What a client asks. Every condition that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// A pod at either end.
    pub pod: Option<Party>,
    /// Who opens the connection.
    pub from: Option<Party>,
    /// Who answers.
    pub to: Option<Party>,
    pub verdict: Option<Verdict>,
    pub reason: Option<String>,
    /// A policy that the verdict rests on, as "namespace/name".
    pub policy: Option<String>,
    /// The lines of so many seconds up to now; without it all that are remembered, or if `follow` is
    /// set, none.
    pub last: Option<u64>,
    /// Go on with what happens from now on.
    pub follow: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Denied,
    Allowed,
}

/// A pod by its namespace and name, or an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Party {
    Pod(String),
    Address(IpAddr),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFilter {
    #[error("{0:?} is neither namespace/name nor an address")]
    Party(String),
    #[error("{0:?} is not namespace/name")]
    Key(String),
    #[error("{0:?} is not a reason; docs/REASONS.md lists them, such as egress-denied")]
    Reason(String),
}

impl Filter {
    /// Checks what types do not.
    ///
    /// # Errors
    /// If a value can match nothing.
    pub fn check(&self) -> Result<(), BadFilter> {
        if let Some(Party::Address(address)) = &self.pod {
            return Err(BadFilter::Key(address.to_string()));
        }
        if let Some(policy) = &self.policy {
            is_key(policy).then_some(()).ok_or_else(|| BadFilter::Key(policy.clone()))?;
        }
        if let Some(reason) = &self.reason {
            let known = Reason::ALL.iter().any(|known| known.name() == reason);
            known.then_some(()).ok_or_else(|| BadFilter::Reason(reason.clone()))?;
        }
        Ok(())
    }

    /// How much of the past the client wants; none for all that is remembered.
    pub fn past(&self) -> Option<Duration> {
        match self.last {
            Some(seconds) => Some(Duration::from_secs(seconds)),
            None if self.follow => Some(Duration::ZERO),
            None => None,
        }
    }

    /// Which packets must make events while this client follows.
    pub fn needs(&self) -> Report {
        let passes = |name: &String| {
            let known = Reason::ALL.iter().find(|reason| reason.name() == name);
            known.is_some_and(|reason| posture(*reason) == Action::Pass)
        };
        if self.verdict == Some(Verdict::Allowed) || self.reason.as_ref().is_some_and(passes) {
            Report::All
        } else {
            Report::Denied
        }
    }

    pub fn matches(&self, content: &Content) -> bool {
        match content {
            Content::Event(event) => self.matches_event(event),
            // Among them there may be some of those that are wanted.
            Content::Suppressed(suppressed) => match (&self.pod, &suppressed.pod) {
                (Some(Party::Pod(wanted)), Some(pod)) => wanted == pod,
                _ => true,
            },
            Content::Lost { .. } | Content::Error { .. } => true,
        }
    }

    fn matches_event(&self, event: &EventLine) -> bool {
        let Self { pod, from, to, verdict, reason, policy, last: _, follow: _ } = self;
        let is = |party: &Option<Party>, end| party.as_ref().is_none_or(|party| party.is(end));
        let denied = event.verdict == "denied";
        (is(pod, &event.src) || is(pod, &event.dst))
            && is(from, &event.src)
            && is(to, &event.dst)
            && verdict.is_none_or(|verdict| (verdict == Verdict::Denied) == denied)
            && reason.as_ref().is_none_or(|reason| *reason == event.reason)
            && policy.as_ref().is_none_or(|policy| event.policies.contains(policy))
    }
}

impl Party {
    fn is(&self, end: &EndLine) -> bool {
        match self {
            Party::Pod(key) => end.pod_key().as_ref() == Some(key),
            Party::Address(address) => {
                end.ip.as_ref().and_then(|ip| ip.parse().ok()) == Some(*address)
            }
        }
    }
}

impl FromStr for Party {
    type Err = BadFilter;

    fn from_str(text: &str) -> Result<Self, BadFilter> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Party::Address(address.to_canonical()));
        }
        is_key(text)
            .then(|| Party::Pod(text.to_owned()))
            .ok_or_else(|| BadFilter::Party(text.to_owned()))
    }
}

impl TryFrom<String> for Party {
    type Error = BadFilter;

    fn try_from(text: String) -> Result<Self, BadFilter> {
        text.parse()
    }
}

impl From<Party> for String {
    fn from(party: Party) -> Self {
        party.to_string()
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Party::Pod(key) => f.write_str(key),
            Party::Address(address) => address.fmt(f),
        }
    }
}

fn is_key(text: &str) -> bool {
    matches!(text.split_once('/'), Some((namespace, name))
        if !namespace.is_empty() && !name.is_empty() && !name.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::line::Suppressed;

    fn event() -> EventLine {
        let pod = |name: &str, ip: &str| EndLine {
            kind: "pod".into(),
            ip: Some(ip.into()),
            namespace: Some("shop".into()),
            pod: Some(name.into()),
            ..EndLine::default()
        };
        EventLine {
            time: String::new(),
            node: "n1".into(),
            verdict: "denied".into(),
            reason: "egress-denied".into(),
            hook: "to_pod".into(),
            direction: Some("egress".into()),
            ifindex: 1,
            device: None,
            generation: 1,
            protocol: Some("TCP".into()),
            ethertype: "0x0800".into(),
            src: pod("web-0", "10.0.0.1"),
            dst: pod("db-0", "fd00::2"),
            reply: false,
            policies: vec!["shop/default-deny".into()],
            isolated_by: vec!["shop/default-deny".into()],
            allowed_by: Vec::new(),
            near: Vec::new(),
            changed: false,
        }
    }

    fn matches(filter: &str) -> bool {
        let filter: Filter = serde_json::from_str(filter).expect(filter);
        filter.check().expect("it is good");
        filter.matches(&Content::Event(Box::new(event())))
    }

    #[test]
    fn every_condition_that_is_given_must_hold() {
        for filter in [
            r#"{}"#,
            r#"{"pod":"shop/web-0"}"#,
            r#"{"pod":"shop/db-0"}"#,
            r#"{"from":"shop/web-0","to":"shop/db-0"}"#,
            r#"{"from":"10.0.0.1"}"#,
            r#"{"from":"::ffff:10.0.0.1"}"#,
            r#"{"to":"fd00:0::2"}"#,
            r#"{"verdict":"denied","reason":"egress-denied"}"#,
            r#"{"policy":"shop/default-deny"}"#,
        ] {
            assert!(matches(filter), "{filter}");
        }
        for filter in [
            r#"{"pod":"shop/web"}"#,
            r#"{"pod":"other/web-0"}"#,
            r#"{"from":"shop/db-0"}"#,
            r#"{"to":"shop/web-0"}"#,
            r#"{"from":"10.0.0.2"}"#,
            r#"{"verdict":"allowed"}"#,
            r#"{"reason":"ingress-denied"}"#,
            r#"{"policy":"shop/other"}"#,
            r#"{"from":"shop/web-0","to":"shop/web-0"}"#,
        ] {
            assert!(!matches(filter), "{filter}");
        }
    }

    #[test]
    fn what_can_match_nothing_is_refused() {
        for filter in [
            r#"{"pod":"web-0"}"#,
            r#"{"from":"10.0.0"}"#,
            r#"{"to":"a/b/c"}"#,
            r#"{"verdict":"deny"}"#,
            r#"{"pods":"shop/web-0"}"#,
        ] {
            assert!(serde_json::from_str::<Filter>(filter).is_err(), "{filter}");
        }
        for filter in
            [r#"{"reason":"denied"}"#, r#"{"policy":"default-deny"}"#, r#"{"pod":"10.0.0.1"}"#]
        {
            let filter: Filter = serde_json::from_str(filter).expect(filter);
            assert!(filter.check().is_err(), "{filter:?}");
        }
    }

    #[test]
    fn who_filters_by_pod_is_not_told_what_is_suppressed_of_others() {
        let suppressed = |pod: Option<&str>| {
            let pod = pod.map(str::to_owned);
            let (time, node) = (String::new(), "n1".to_owned());
            Content::Suppressed(Suppressed { time, node, pod, sends: true, events: 3 })
        };
        let filter: Filter = serde_json::from_str(r#"{"pod":"shop/web-0"}"#).expect("it is good");
        assert!(filter.matches(&suppressed(Some("shop/web-0"))));
        assert!(filter.matches(&suppressed(None)));
        assert!(!filter.matches(&suppressed(Some("shop/db-0"))));
        assert!(Filter::default().matches(&suppressed(Some("shop/db-0"))));
    }

    #[test]
    fn only_who_follows_what_is_allowed_makes_the_programs_tell_of_it() {
        let needs = |filter: &str| serde_json::from_str::<Filter>(filter).expect(filter).needs();
        assert_eq!(needs(r#"{"verdict":"allowed"}"#), Report::All);
        assert_eq!(needs(r#"{"reason":"not-isolated"}"#), Report::All);
        assert_eq!(needs(r#"{"reason":"pending"}"#), Report::Denied);
        assert_eq!(needs(r#"{"verdict":"denied"}"#), Report::Denied);
        assert_eq!(needs("{}"), Report::Denied);
    }
}
