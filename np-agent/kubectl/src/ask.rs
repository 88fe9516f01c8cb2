//! Asks one agent, or those of all nodes at once.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::agents::{self, Node};
use crate::error::{Error, Silence};
use crate::kubectl::{Kubectl, Said, exit_code};
use crate::print;

/// How many nodes are asked at a time: each is a process here and a stream through the API server.
pub const AT_ONCE: usize = 8;

/// What the agent of a node has said, or why it has said nothing.
#[derive(Debug)]
pub struct Answer<T> {
    pub node: Node,
    pub said: Result<T, Silence>,
    /// What was complained of although there is an answer.
    pub aside: String,
}

/// Asks the agent of a node, or of all nodes when none is named.
///
/// # Errors
/// If kubectl does not list nodes and agents.
pub fn ask<T: Send>(
    kubectl: &Kubectl,
    node: Option<&str>,
    words: &[String],
    read: impl Fn(&str, &Said) -> Result<T, Silence> + Sync,
) -> Result<Vec<Answer<T>>, Error> {
    let nodes = match node {
        Some(node) => vec![agents::on(kubectl, node)?],
        None => agents::everywhere(kubectl)?,
    };
    let ask = |node: &Node| {
        let pod = node.pod(&kubectl.agent_namespace)?;
        let said = kubectl.ask(pod, words)?;
        Ok((read(pod, &said)?, said.stderr))
    };
    Ok(at_once(nodes, |node| match ask(&node) {
        Ok((said, aside)) => Answer { node, said: Ok(said), aside },
        Err(silence) => Answer { node, said: Err(silence), aside: String::new() },
    }))
}

/// Asks one node and prints what its agent prints; returns the exit code of its command.
///
/// # Errors
/// If there is no answer, or it cannot be written.
pub fn pass_on(kubectl: &Kubectl, node: &Node, words: &[String]) -> Result<u8, Error> {
    let pod = node.pod(&kubectl.agent_namespace);
    let said = pod.and_then(|pod| kubectl.ask(pod, words));
    let Said { code, stdout, stderr } = said.map_err(|silence| silence.on(node))?;
    print::show(&stdout)?;
    print::complain(&stderr);
    Ok(exit_code(code))
}

/// Reads an answer in JSON.
///
/// # Errors
/// If np-agent has failed, or what it says is not understood.
pub fn read_json<T: DeserializeOwned>(
    kubectl: &Kubectl,
    pod: &str,
    said: &Said,
) -> Result<T, Silence> {
    if said.stdout.trim().is_empty() {
        return Err(failed(kubectl, pod, said));
    }
    serde_json::from_str(&said.stdout)
        .map_err(|problem| Silence::Unreadable { pod: pod.to_owned(), problem })
}

/// np-agent's command ran, and had nothing but a complaint.
pub fn failed(kubectl: &Kubectl, pod: &str, said: &Said) -> Silence {
    Silence::Failed {
        pod: pod.to_owned(),
        namespace: kubectl.agent_namespace.clone(),
        said: on_one_line(&said.stderr),
    }
}

/// Names the nodes without an answer, and returns the exit code that this makes.
pub fn complain_of_all<T>(answers: &[Answer<T>]) -> u8 {
    let mut code = 0;
    for Answer { node, said, aside } in answers {
        let name = &node.name;
        if let Err(silence) = said {
            print::complain(&format!("kubectl np: node {name}: {silence}\n"));
            code = 1;
        }
        for line in aside.lines() {
            print::complain(&format!("node {name}: {line}\n"));
        }
    }
    code
}

/// The answers as one JSON array: an object for each node, with what was said under its name, or the
/// error.
pub fn to_json<T>(answers: &[Answer<T>], name: &str, value: impl Fn(&T) -> Value) -> String {
    let objects = answers.iter().map(|Answer { node, said, .. }| {
        let mut object = Map::from_iter([("node".to_owned(), json!(node.name))]);
        if let Some(agent) = &node.agent {
            object.insert("pod".to_owned(), json!(agent.pod));
        }
        let (name, value) = match said {
            Ok(said) => (name, value(said)),
            Err(silence) => ("error", json!(silence.to_string())),
        };
        object.insert(name.to_owned(), value);
        Value::Object(object)
    });
    format!("{:#}\n", Value::Array(objects.collect()))
}

/// A message as a part of another one.
pub fn on_one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { "it says nothing".to_owned() } else { lines.join("; ") }
}

/// Does something with each item, some at a time, and returns the results in the items' order.
fn at_once<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let queue = Mutex::new(items.into_iter().enumerate());
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some((number, item)) = lock(&queue).next() else { return };
                    let result = work(item);
                    lock(&done).push((number, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn items_are_worked_on_together_and_never_too_many() {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let items: Vec<usize> = (0..5 * AT_ONCE).collect();
        let results = at_once(items.clone(), |item| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // Long enough for all workers to be here, and in another order than they came.
            thread::sleep(Duration::from_millis(10 + (item as u64 * 7) % 13));
            now.fetch_sub(1, Ordering::SeqCst);
            item
        });
        assert_eq!(results, items);
        assert_eq!(most.into_inner(), AT_ONCE);
    }

    #[test]
    fn what_was_said_is_one_line_in_a_message() {
        assert_eq!(on_one_line("a\n\n  b\n"), "a; b");
        assert_eq!(on_one_line(" \n"), "it says nothing");
    }
}
