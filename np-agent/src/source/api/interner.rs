//! Equal parts of pods, held once while a list is read.
//!
//! The index shares them too, but only when it takes the list in: until then each of 50,000 pods
//! would have labels of its own, and what they leave behind when they go stays with the process.

use std::collections::BTreeSet;
use std::sync::Arc;

use np_policy::model::{ContainerPort, Labels, NodeName, Object};

#[derive(Debug, Default)]
pub(super) struct Interner {
    labels: BTreeSet<Arc<Labels>>,
    ports: BTreeSet<Arc<[ContainerPort]>>,
    names: BTreeSet<Arc<str>>,
}

impl Interner {
    /// Replaces what has been seen before by what was seen.
    pub fn share(&mut self, object: &mut Object) {
        let Object::Pod(pod) = object else { return };
        once(&mut self.labels, &mut pod.labels);
        once(&mut self.ports, &mut pod.named_ports);
        once(&mut self.names, &mut pod.key.namespace);
        if let Some(NodeName(name)) = &mut pod.node {
            once(&mut self.names, name);
        }
    }
}

fn once<T: Ord + ?Sized>(seen: &mut BTreeSet<Arc<T>>, part: &mut Arc<T>) {
    match seen.get(part) {
        Some(same) => *part = same.clone(),
        None => {
            seen.insert(part.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::source::api::read::read;
    use crate::source::api::resource::Resource;

    #[test]
    fn equal_parts_are_one_and_others_are_not() {
        let mut interner = Interner::default();
        let mut pod = |name: &str, app: &str| {
            let text = json!({"metadata": {"name": name, "namespace": "n", "uid": name,
                "labels": {"app": app}}, "spec": {"nodeName": "x"}});
            let read = read(Resource::OtherPods, &text.to_string()).expect("it has a name");
            let mut object = read.object.expect("it is understood");
            interner.share(&mut object);
            match object {
                Object::Pod(pod) => pod,
                other => panic!("{other:?}"),
            }
        };
        let (one, same, other) = (pod("1", "a"), pod("2", "a"), pod("3", "b"));
        assert!(Arc::ptr_eq(&one.labels, &same.labels));
        assert!(Arc::ptr_eq(&one.key.namespace, &other.key.namespace));
        assert_eq!(other.labels["app"], "b");
    }
}
