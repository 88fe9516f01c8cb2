//! The agent's record of what ids stand for.
//!
//! It is kept in the pinned map RECORDS, so that `status` and `endpoints` can name pods and policies
//! while the agent is down, and a restarted agent keeps every binding it once made: the addresses
//! inside a pod are the pod's claim, and must not be trusted again.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::model::{
    ContainerPort, Direction, IfIndex, Labels, NodeName, PodKey, PodUid, PolicyKey,
};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub node: Option<NodeName>,
    /// The id that was given last. The next ones come first: flows may still name those before.
    #[serde(default)]
    pub last_id: u16,
    /// Ascending by id; a pod has one for each of its devices.
    pub endpoints: Vec<EndpointRecord>,
    /// The policies that the maps have no room for, so that the next agent holds back the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<PolicyKey>,
    /// The endpoints, by id, whose labels were too large to be written down.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub without_labels: BTreeSet<u16>,
}

/// What a record has no room for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeftOut {
    pub pod: PodKey,
    pub what: Part,
    pub bytes: usize,
}

/// What an endpoint can be found again without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Labels,
    NamedPorts,
    SourcePrefixes,
    /// Names of policies in a direction: nothing depends on them.
    Policies(Direction),
    /// All of the endpoint: its name and uid are no object's that an API server would have.
    Everything,
}

impl Record {
    /// The id after which to go on. A record of an earlier version knows only those alive.
    pub fn resumes_after(&self) -> u16 {
        let alive = || self.endpoints.iter().map(|endpoint| endpoint.id).max().unwrap_or_default();
        if self.last_id == 0 { alive() } else { self.last_id }
    }

    /// The record as text of at most so many bytes. What is largest is left out first, but never
    /// what a pod is found again by.
    pub fn fit(&self, room: usize) -> (Vec<u8>, Vec<LeftOut>) {
        let text = json(self);
        if text.len() <= room {
            return (text, Vec::new());
        }
        let mut record = self.clone();
        // Which policies are held back is found without it too.
        if json(&record.held).len() > room / 16 {
            record.held.clear();
        }
        let mut excess = json(&record).len().saturating_sub(room);
        let mut left_out = Vec::new();
        let mut parts: Vec<(usize, usize, Part)> = Vec::new();
        for (at, endpoint) in self.endpoints.iter().enumerate() {
            parts.extend(endpoint.parts().map(|(bytes, part)| (bytes, at, part)));
        }
        // The largest last, and of equal ones the same each time.
        parts.sort_unstable();
        loop {
            while excess > 0 {
                let Some((bytes, at, what)) = parts.pop() else { break };
                let Some(endpoint) = record.endpoints.get_mut(at) else { continue };
                endpoint.leave_out(what);
                if what == Part::Labels {
                    record.without_labels.insert(endpoint.id);
                }
                excess = excess.saturating_sub(bytes);
                left_out.push(LeftOut { pod: endpoint.pod.clone(), what, bytes });
            }
            let text = json(&record);
            excess = text.len().saturating_sub(room);
            if excess == 0 {
                return (text, left_out);
            }
            if parts.is_empty() {
                break;
            }
        }
        record.held.clear();
        // Names of objects are bounded, and the room is made for the most endpoints with the longest
        // names. Only a manifest can name a uid that is longer.
        let mut endpoints = std::mem::take(&mut record.endpoints);
        endpoints.sort_by_key(|endpoint| std::cmp::Reverse((json(endpoint).len(), endpoint.id)));
        let mut sum: usize = endpoints.iter().map(|endpoint| json(endpoint).len() + 8).sum();
        while sum + json(&record).len() > room && !endpoints.is_empty() {
            let endpoint = endpoints.remove(0);
            let bytes = json(&endpoint).len();
            sum = sum.saturating_sub(bytes + 8);
            record.without_labels.remove(&endpoint.id);
            left_out.push(LeftOut { pod: endpoint.pod, what: Part::Everything, bytes });
        }
        endpoints.sort_by_key(|endpoint| endpoint.id);
        record.endpoints = endpoints;
        (json(&record), left_out)
    }
}

/// Nothing in a record can fail to be written as text.
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRecord {
    pub id: u16,
    pub pod: PodKey,
    pub uid: PodUid,
    pub addresses: Vec<IpAddr>,
    /// What it may send from besides: named by the pod, and granted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_prefixes: Vec<IpNet>,
    /// Labels and named ports outlive the pod object: a pod deleted by force runs on, and stays
    /// policed until its device is gone.
    pub labels: Arc<Labels>,
    pub named_ports: Arc<[ContainerPort]>,
    pub device: String,
    pub ifindex: IfIndex,
    pub ingress: SideRecord,
    pub egress: SideRecord,
}

impl EndpointRecord {
    /// What can be left out and takes more room than saying that it was.
    fn parts(&self) -> impl Iterator<Item = (usize, Part)> {
        const WORTH_IT: usize = 16;
        let size = |present: bool, bytes: &dyn Fn() -> usize| if present { bytes() } else { 0 };
        [
            (size(!self.labels.is_empty(), &|| json(&self.labels).len()), Part::Labels),
            (
                size(!self.named_ports.is_empty(), &|| json(&self.named_ports).len()),
                Part::NamedPorts,
            ),
            (
                size(!self.source_prefixes.is_empty(), &|| json(&self.source_prefixes).len()),
                Part::SourcePrefixes,
            ),
            (json(&self.ingress.policies).len(), Part::Policies(Direction::Ingress)),
            (json(&self.egress.policies).len(), Part::Policies(Direction::Egress)),
        ]
        .into_iter()
        .filter(|(bytes, _)| *bytes > WORTH_IT)
    }

    fn leave_out(&mut self, part: Part) {
        match part {
            Part::Labels => self.labels = Arc::default(),
            Part::NamedPorts => self.named_ports = Arc::from([]),
            Part::SourcePrefixes => self.source_prefixes.clear(),
            Part::Policies(Direction::Ingress) => self.ingress.policies.clear(),
            Part::Policies(Direction::Egress) => self.egress.policies.clear(),
            Part::Everything => {}
        }
    }
}

/// How one direction of a pod is policed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideRecord {
    pub isolated: bool,
    /// The policies that select the pod in this direction, ascending.
    pub policies: Vec<PolicyKey>,
}

impl fmt::Display for SideRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.isolated {
            return f.write_str("open");
        }
        if self.policies.is_empty() {
            return f.write_str("isolated");
        }
        let policies: Vec<String> = self.policies.iter().map(PolicyKey::to_string).collect();
        write!(f, "isolated by {}", policies.join(", "))
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pod, what, bytes } = self;
        let (what, cost) = match what {
            Part::Labels => ("labels", "it is isolated while its object is not known"),
            Part::NamedPorts => {
                ("named ports", "none of them is allowed while its object is not known")
            }
            Part::SourcePrefixes => {
                ("source prefixes", "it sends from none of them while its object is not known")
            }
            Part::Policies(Direction::Ingress) => ("ingress policies", "they are not named"),
            Part::Policies(Direction::Egress) => ("egress policies", "they are not named"),
            Part::Everything => ("name and uid", "it is found by what the node shows of it"),
        };
        write!(
            f,
            "Pod {pod}: {bytes} bytes of {what} do not fit into the record of bindings: after a \
             restart of the agent {cost}; make them smaller"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(id: u16) -> EndpointRecord {
        let text = format!(
            r#"{{"id":{id},"pod":"default/pod-{id}","uid":"u","addresses":[],
            "labels":{{}},"named_ports":[],"device":"veth","ifindex":7,
            "ingress":{{"isolated":false,"policies":[]}},
            "egress":{{"isolated":false,"policies":[]}}}}"#
        );
        serde_json::from_str(&text).expect("an endpoint")
    }

    /// An endpoint with labels of so many bytes.
    fn labelled(id: u16, bytes: usize) -> EndpointRecord {
        let value = "v".repeat(bytes - r#"{"l":""}"#.len());
        let labels = Arc::new(Labels::from([("l".to_owned(), value)]));
        assert_eq!(json(&labels).len(), bytes);
        EndpointRecord { labels, ..endpoint(id) }
    }

    #[test]
    fn ids_go_on_after_the_last_one_or_in_an_old_record_after_the_greatest() {
        let record = Record { endpoints: vec![endpoint(9), endpoint(30)], ..Record::default() };
        let text = serde_json::to_string(&record).expect("a record").replace("\"last_id\":0,", "");
        let old: Record = serde_json::from_str(&text).expect("a record without the last id");
        assert_eq!(old.resumes_after(), 30);
        assert_eq!(Record { last_id: 12, ..old }.resumes_after(), 12);
        assert_eq!(Record::default().resumes_after(), 0);
    }

    #[test]
    fn a_side_says_who_isolates_it() {
        let policies = ["a", "b"].map(|name| PolicyKey::new("default", name)).to_vec();
        let isolated = SideRecord { isolated: true, policies };
        assert_eq!(isolated.to_string(), "isolated by default/a, default/b");
        assert_eq!(SideRecord::default().to_string(), "open");
    }

    /// Which these are is found without the record too.
    #[test]
    fn policies_held_back_take_no_more_than_a_sixteenth_of_the_room() {
        let held = vec![PolicyKey::new("namespace", "p".repeat(100))];
        let record =
            Record { endpoints: vec![labelled(1, 5000)], held: held.clone(), ..Record::default() };
        let enough = 16 * json(&held).len();
        for (room, kept) in [(enough - 1, Vec::new()), (enough, held.clone()), (enough + 16, held)]
        {
            let (text, _) = record.fit(room);
            let read: Record = serde_json::from_slice(&text).expect("a record is whole");
            assert_eq!(read.held, kept, "{room} bytes");
        }
    }

    #[test]
    fn a_part_that_is_no_longer_than_the_word_of_it_is_never_left_out() {
        for (bytes, is_left_out) in [(15, false), (16, false), (17, true)] {
            let record = Record { endpoints: vec![labelled(1, bytes)], ..Record::default() };
            let (_, left_out) = record.fit(json(&record).len() - 1);
            let labels = left_out.iter().any(|part| part.what == Part::Labels);
            assert_eq!(labels, is_left_out, "{bytes} bytes");
        }
    }

    /// Only a manifest can name uids that no room is made for. Whatever the room, the longest go,
    /// no more of them than have to, and the others are whole. A kept one takes its text and up to
    /// eight bytes: a comma, and its id among those without labels.
    #[test]
    fn endpoints_that_no_room_was_made_for_go_the_longest_first() {
        let sizes = [(1, 20), (2, 700), (3, 60), (4, 300), (5, 40)];
        let longest_first = [2, 4, 3, 5, 1];
        let with_uid = |(id, length): (u16, usize)| {
            let bare = if id == 3 { labelled(id, 800) } else { endpoint(id) };
            EndpointRecord { uid: PodUid("u".repeat(length).into()), ..bare }
        };
        let record = Record { endpoints: sizes.map(with_uid).to_vec(), ..Record::default() };
        let bare = |without: &[u16]| {
            let endpoints = record.endpoints.iter().filter(|of| !without.contains(&of.id));
            let endpoints =
                endpoints.map(|of| EndpointRecord { labels: Arc::default(), ..of.clone() });
            let without_labels = [3].into_iter().filter(|id| !without.contains(id)).collect();
            Record { endpoints: endpoints.collect(), without_labels, ..Record::default() }
        };
        let most = |record: &Record| {
            let texts: usize = record.endpoints.iter().map(|of| json(of).len() + 8).sum();
            json(&Record { endpoints: Vec::new(), ..record.clone() }).len() + texts
        };
        for room in json(&Record::default()).len()..json(&bare(&[])).len() {
            let (text, left_out) = record.fit(room);
            assert!(text.len() <= room, "{} of {room} bytes", text.len());
            let whole = left_out.iter().filter(|part| part.what == Part::Everything);
            let gone = &longest_first[..whole.count()];
            let read: Record = serde_json::from_slice(&text).expect("a record is whole");
            assert_eq!(read, bare(gone), "{room} bytes");
            let (_, spared) = gone.split_last().expect("not all of them fit");
            assert!(most(&bare(spared)) > room, "{gone:?} are gone of {room} bytes");
        }
    }
}
