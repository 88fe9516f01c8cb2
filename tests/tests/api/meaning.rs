//! What the server shows is what is meant: objects that are understood arrive as they are.

use np_policy::model::{Change, Object};
use np_tests::fake_api::{FakeApi, NAMESPACES, NODES, PODS, POLICIES, from_model};
use np_tests::scale::Scale;

use crate::world::Follower;

#[tokio::test]
async fn a_cluster_arrives_as_it_is() {
    let scale = Scale { pods: 1_300, policies: 300, local: 20 };
    let api = FakeApi::start().expect("a listener");
    let mut objects = Vec::new();
    for change in scale.changes() {
        let Change::Apply(object) = change else { panic!("nothing goes") };
        let path = match &object {
            Object::Pod(_) => PODS,
            Object::Namespace(_) => NAMESPACES,
            Object::Policy(_) => POLICIES,
            Object::Node(_) => NODES,
        };
        api.apply(path, from_model(&object));
        objects.push(object);
    }
    let mut follower = Follower::start(&api).await;
    follower.until(Follower::whole).await;
    for object in &objects {
        match object {
            Object::Pod(pod) => {
                assert_eq!(follower.index.pod(&pod.key).map(|pod| &**pod), Some(pod));
            }
            Object::Policy(policy) => {
                let read = follower.index.policy(&policy.key).map(|policy| &**policy);
                assert_eq!(read, Some(policy));
            }
            Object::Namespace(namespace) => {
                let read = follower.index.namespace(&namespace.name).expect("it is there");
                let fits = |(key, value)| read.labels.get(key) == Some(value);
                assert!(namespace.labels.iter().all(fits), "{read:?}");
            }
            Object::Node(_) => panic!("none is made"),
        }
    }
    assert!(follower.batches.iter().all(|batch| batch.narrowed.is_empty()));
    assert_eq!(follower.index.pods().len(), scale.pods);
}
