//! The start-up taint: it keeps pods off a node until the node's agent has started.
//!
//! It is set when the node is registered. The agent only removes it, once after each of its starts.

use std::sync::Arc;

use http::{Request, header};
use kube::Client;
use kube::api::GetParams;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::connection::{Connection, chain};
use super::resource::Resource;
use super::timing::{Dice, Timing};
use np_policy::model::NodeName;

/// What is to be taken away, and when.
#[derive(Debug)]
pub(super) struct Taint {
    pub key: String,
    pub started: oneshot::Receiver<()>,
}

/// What is read of a node. Taints are kept as they came, for fields that are not known here.
#[derive(Deserialize)]
struct Tainted {
    #[serde(default)]
    spec: Spec,
}

#[derive(Default, Deserialize)]
struct Spec {
    #[serde(default)]
    taints: Vec<Value>,
}

/// Waits until the agent has started, and takes the taint away. Returns when it is gone, or when
/// nobody can start any more.
pub(super) async fn lift(
    taint: Taint,
    node: NodeName,
    connection: Arc<Connection>,
    timing: Timing,
    mut dice: Dice,
) {
    let Taint { key, started } = taint;
    if started.await.is_err() {
        return;
    }
    let mut told: Option<String> = None;
    let mut pause = timing.backoff.start;
    loop {
        let client = connection.client().await;
        let taken = timeout(timing.header, take(&client, &node, &key)).await;
        let problem = match taken {
            Ok(Ok(true)) => return tracing::info!("took the taint {key} off the node"),
            Ok(Ok(false)) => return tracing::info!("the node has no taint {key}"),
            Ok(Err(problem)) => problem,
            Err(_) => format!("no answer within {:?}", timing.header),
        };
        // Credentials that are refused, or a connection that is gone: the watches need not notice.
        connection.suspect().await;
        // Once for an outage, not once for a try.
        if told.as_ref() != Some(&problem) {
            tracing::warn!(
                "cannot take the taint {key} off the node {node}: {problem}; it is tried again, and \
                 needs a ServiceAccount that may get and patch nodes"
            );
            told = Some(problem);
        }
        sleep(dice.between(pause / 2..pause)).await;
        pause = (pause * 2).min(timing.backoff.end);
    }
}

/// Takes the taint away; false if there is none.
async fn take(client: &Client, node: &NodeName, key: &str) -> Result<bool, String> {
    let get = kube::core::Request::new(Resource::OwnNode.path())
        .get(&node.0, &GetParams::default())
        .map_err(|error| chain(&error))?;
    let uri = get.uri().clone();
    let Tainted { spec: Spec { taints } } =
        client.request(get).await.map_err(|error| chain(&error))?;
    let kept: Vec<&Value> = taints.iter().filter(|taint| taint["key"] != key).collect();
    if kept.len() == taints.len() {
        return Ok(false);
    }
    // Refused if the taints have changed since.
    let patch = json!([
        {"op": "test", "path": "/spec/taints", "value": taints},
        {"op": "replace", "path": "/spec/taints", "value": kept},
    ]);
    let patch = Request::patch(uri)
        .header(header::CONTENT_TYPE, "application/json-patch+json")
        .body(patch.to_string().into_bytes())
        .map_err(|error| chain(&error))?;
    client.request::<IgnoredAny>(patch).await.map_err(|error| chain(&error))?;
    Ok(true)
}
