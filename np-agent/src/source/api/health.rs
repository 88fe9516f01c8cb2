//! What a running agent tells of its API server: for each collection, how far it is and since when
//! nothing comes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::fetch::{Shared, lock};
use super::resource::Resource;

/// The state of one collection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedStatus {
    pub resource: Resource,
    /// "listing", "watching", "away".
    pub state: String,
    /// There has been a whole list since the agent started.
    pub listed: bool,
    pub resource_version: String,
    /// How long ago the last byte came, in seconds.
    pub last_byte: Option<u64>,
    pub last_list: Option<u64>,
    /// For how long it has been away, in seconds.
    pub away: Option<u64>,
    /// Why it is away.
    pub problem: Option<String>,
    /// How often everything was listed again, by cause.
    pub relists: BTreeMap<String, u64>,
    /// How many objects such a list did not show any more.
    pub removed: u64,
    pub requests: u64,
}

/// How many objects lists have not shown any more.
pub(super) type Removed = Arc<Mutex<BTreeMap<Resource, u64>>>;

/// Asks the feeds how they are.
#[derive(Clone)]
pub struct Health {
    pub(super) feeds: Vec<(Resource, Shared)>,
    pub(super) removed: Removed,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.status()).finish()
    }
}

impl Health {
    pub fn status(&self) -> Vec<FeedStatus> {
        let now = Instant::now();
        let ago = |at: Instant| now.duration_since(at).as_secs();
        let removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        let status = |(resource, reflector): &(Resource, Shared)| {
            let reflector = lock(reflector);
            let health = &reflector.health;
            FeedStatus {
                resource: *resource,
                state: reflector.state().to_owned(),
                listed: health.listed,
                resource_version: reflector.resource_version().to_owned(),
                last_byte: health.byte_at.map(ago),
                last_list: health.listed_at.map(ago),
                away: health.away.as_ref().map(|(since, _)| ago(*since)),
                problem: health.away.as_ref().map(|(_, why)| why.clone()),
                relists: health
                    .relists
                    .iter()
                    .map(|(cause, n)| ((*cause).to_owned(), *n))
                    .collect(),
                removed: removed.get(resource).copied().unwrap_or(0),
                requests: health.requests,
            }
        };
        self.feeds.iter().map(status).collect()
    }
}
