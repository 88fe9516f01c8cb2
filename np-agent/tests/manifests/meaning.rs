//! What manifests mean: defaults, spellings, lists and the parts of each kind.

use std::collections::BTreeMap;

use ipnet::IpNet;
use np_policy::model::{
    ContainerPort, IpBlock, Namespace, Node, NodeName, Object, Peer, Phase, Pod, PodKey, PodUid,
    Policy, PolicyKey, PortMatch, Ports, Protocol, Requirement, Rule, Selector,
};

use crate::support::{Dir, HEAD, changes, namespace, policy, read};

/// Whether a policy isolates ingress and egress.
fn directions(spec: &str) -> (bool, bool) {
    let Policy { ingress, egress, .. } = policy(spec);
    (ingress.is_some(), egress.is_some())
}

#[test]
fn policy_types_have_the_defaults_of_the_api() {
    for (spec, expected) in [
        ("{}", (true, false)),
        ("policyTypes: []", (true, false)),
        ("policyTypes: null", (true, false)),
        ("egress: []", (true, false)),
        ("egress: null", (true, false)),
        ("egress: [{}]", (true, true)),
        ("policyTypes: []\negress: [{}]", (true, true)),
        ("policyTypes: [Egress]", (false, true)),
        ("policyTypes: [Egress]\ningress: [{}]", (false, true)),
        ("policyTypes: [Ingress]\negress: [{}]", (true, false)),
        ("policyTypes: [Ingress, Ingress]", (true, false)),
        ("policyTypes: [Egress, Ingress]", (true, true)),
    ] {
        assert_eq!(directions(spec), expected, "{spec}");
    }
}

#[test]
fn an_absent_spec_denies_all_ingress() {
    let expected = Policy {
        key: PolicyKey::new("default", "web"),
        subjects: Selector::everything(),
        ingress: Some(Box::default()),
        egress: None,
    };
    assert_eq!(read(HEAD), Object::Policy(expected.clone()));
    assert_eq!(
        read(&format!("{HEAD}spec:\nstatus: {{conditions: []}}\n")),
        Object::Policy(expected)
    );
}

#[test]
fn nothing_and_an_empty_list_are_the_same() {
    let everyone: Box<[Rule]> = [Rule { peers: None, ports: None }].into();
    for rule in ["{}", "{from: []}", "{from: null, ports: []}", "{ports: null}"] {
        assert_eq!(policy(&format!("ingress: [{rule}]")).ingress, Some(everyone.clone()), "{rule}");
    }
}

#[test]
fn a_whole_policy_keeps_every_part() {
    let spec = "\
podSelector:
  matchLabels: {role: db}
policyTypes: [Ingress, Egress]
ingress:
- from:
  - ipBlock:
      cidr: 172.17.0.0/16
      except:
      - 172.17.1.0/24
  - namespaceSelector:
      matchLabels: {project: myproject}
  - podSelector:
      matchExpressions:
      - {key: role, operator: In, values: [frontend]}
      - {key: old, operator: DoesNotExist}
    namespaceSelector: {}
  ports:
  - protocol: TCP
    port: 6379
egress:
- to:
  - ipBlock: {cidr: 10.0.0.0/24}
  ports:
  - {protocol: UDP, port: 5978, endPort: 5980}
  - {protocol: SCTP}
  - {port: dns}
";
    let labels = |key: &str, value: &str| Selector::from_iter([Requirement::equals(key, value)]);
    let block = |cidr: &str, except: &[&str]| {
        Peer::IpBlock(IpBlock {
            cidr: cidr.parse().unwrap(),
            except: except.iter().map(|cidr| cidr.parse().unwrap()).collect(),
        })
    };
    let port = |protocol, ports| PortMatch { protocol, ports };
    let expected = Policy {
        key: PolicyKey::new("default", "web"),
        subjects: labels("role", "db"),
        ingress: Some(
            [Rule {
                peers: Some(
                    [
                        block("172.17.0.0/16", &["172.17.1.0/24"]),
                        Peer::Pods {
                            namespaces: Some(labels("project", "myproject")),
                            pods: Selector::everything(),
                        },
                        Peer::Pods {
                            namespaces: Some(Selector::everything()),
                            pods: Selector::from_iter([
                                Requirement::equals("role", "frontend"),
                                Requirement::DoesNotExist("old".into()),
                            ]),
                        },
                    ]
                    .into(),
                ),
                ports: Some([port(Protocol::Tcp, Ports::Range(6379, 6379))].into()),
            }]
            .into(),
        ),
        egress: Some(
            [Rule {
                peers: Some([block("10.0.0.0/24", &[])].into()),
                ports: Some(
                    [
                        port(Protocol::Udp, Ports::Range(5978, 5980)),
                        port(Protocol::Sctp, Ports::All),
                        port(Protocol::Tcp, Ports::Named("dns".to_owned())),
                    ]
                    .into(),
                ),
            }]
            .into(),
        ),
    };
    assert_eq!(policy(spec), expected);
}

#[test]
fn sloppy_blocks_of_old_servers_are_taken() {
    for (block, cidr, except) in [
        ("cidr: 10.1.2.3/8", "10.0.0.0/8", None),
        ("cidr: 010.0.0.0/08", "10.0.0.0/8", None),
        ("cidr: '::ffff:10.0.0.0/104', except: [10.5.0.0/16]", "10.0.0.0/8", Some("10.5.0.0/16")),
        ("cidr: 10.0.0.0/8, except: ['::ffff:10.5.6.7/112']", "10.0.0.0/8", Some("10.5.0.0/16")),
        ("cidr: FD00::1/8", "fd00::/8", None),
    ] {
        let rules = policy(&format!("ingress: [{{from: [{{ipBlock: {{{block}}}}}]}}]")).ingress;
        let network = |text: &str| text.parse::<IpNet>().unwrap();
        let expected =
            IpBlock { cidr: network(cidr), except: except.into_iter().map(network).collect() };
        let peers = Some([Peer::IpBlock(expected)].into());
        assert_eq!(rules, Some([Rule { peers, ports: None }].into()), "{block}");
    }
}

#[test]
fn a_pod_as_kubectl_prints_it() {
    let pod = "\
apiVersion: v1
kind: Pod
metadata:
  annotations: {note: \"1\"}
  creationTimestamp: \"2024-02-29T12:34:56Z\"
  deletionTimestamp: 2024-02-29T12:40:00Z
  generateName: web-
  labels: {app: web}
  managedFields: [{manager: kubelet, fieldsV1: {\"f:status\": {}}}]
  name: web-0
  namespace: shop
  ownerReferences: [{kind: StatefulSet, name: web}]
  resourceVersion: \"123\"
  uid: 7a1f
spec:
  containers:
  - name: web
    ports:
    - {containerPort: 8443, name: https, protocol: TCP}
    - {containerPort: 9000}
  - name: other
    ports: [{containerPort: 53, name: dns, protocol: UDP}]
  initContainers:
  - {name: once, ports: [{containerPort: 1, name: gone}]}
  - {name: sidecar, restartPolicy: Always, ports: [{containerPort: 9090, name: metrics}]}
  hostNetwork: false
  nodeName: node-1
  tolerations: [{effect: NoExecute, tolerationSeconds: 300}]
status:
  conditions: [{type: Ready, lastProbeTime: null}]
  hostIP: 192.168.65.10
  phase: Running
  podIP: 100.68.1.10
  podIPs: [{ip: 100.68.1.10}, {ip: \"fd00::10\"}]
";
    let port = |name: &str, protocol, port| ContainerPort { name: name.to_owned(), protocol, port };
    let expected = Pod {
        key: PodKey::new("shop", "web-0"),
        uid: PodUid("7a1f".into()),
        node: Some(NodeName("node-1".into())),
        labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]).into(),
        addresses: ["100.68.1.10".parse().unwrap(), "fd00::10".parse().unwrap()].into(),
        source_prefixes: None,
        named_ports: vec![
            port("dns", Protocol::Udp, 53),
            port("https", Protocol::Tcp, 8443),
            port("metrics", Protocol::Tcp, 9090),
        ]
        .into(),
        host_network: false,
        phase: Phase::Active,
        terminating: true,
        created: 1_709_210_096,
    };
    assert_eq!(read(pod), Object::Pod(expected));
}

#[test]
fn a_pod_of_two_lines_has_defaults() {
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: a, creationTimestamp: null}, \
               status: {podIP: 010.0.0.1, phase: Failed}}";
    let expected = Pod {
        key: PodKey::new("default", "a"),
        uid: PodUid("default/a".into()),
        node: None,
        labels: BTreeMap::new().into(),
        addresses: ["10.0.0.1".parse().unwrap()].into(),
        source_prefixes: None,
        named_ports: Vec::new().into(),
        host_network: false,
        phase: Phase::Finished,
        terminating: false,
        created: 0,
    };
    assert_eq!(read(pod), Object::Pod(expected));
}

#[test]
fn nodes_have_addresses_and_pod_ranges() {
    let node = |spec: &str| {
        format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: node-1.example}}\nspec: {{{spec}}}\nstatus:\n  \
             addresses:\n  - {{type: InternalIP, address: 192.168.65.10}}\n  - {{type: Hostname, \
             address: node-1}}\n  - {{type: ExternalIP, address: 203.0.113.1}}\n"
        )
    };
    let expected = |cidrs: &[&str]| {
        Object::Node(Node {
            name: NodeName("node-1.example".into()),
            addresses: vec!["192.168.65.10".parse().unwrap(), "203.0.113.1".parse().unwrap()],
            pod_cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
        })
    };
    assert_eq!(read(&node("podCIDR: 100.68.1.0/24")), expected(&["100.68.1.0/24"]));
    let both = "podCIDR: 100.68.1.0/24, podCIDRs: [100.68.1.0/24, 'fd00:1::/64']";
    assert_eq!(read(&node(both)), expected(&["100.68.1.0/24", "fd00:1::/64"]));
}

#[test]
fn a_namespace_carries_its_name_as_a_label() {
    let expected = Namespace {
        name: "shop".to_owned(),
        labels: BTreeMap::from([
            ("team".to_owned(), "a".to_owned()),
            ("kubernetes.io/metadata.name".to_owned(), "shop".to_owned()),
        ]),
    };
    let text = namespace("shop", "team: a, kubernetes.io/metadata.name: other");
    assert_eq!(read(&text), Object::Namespace(expected));
}

#[test]
fn lists_documents_and_json_give_the_same_objects() {
    let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: \
                {name: a}}\n- {apiVersion: v1, kind: Service, metadata: {name: b}}\n";
    let typed = "apiVersion: v1\nkind: NamespaceList\nmetadata: {resourceVersion: \"1\"}\nitems:\n- \
                 metadata: {name: a}\n";
    let tabs = "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Namespace\",\n\t\"metadata\": {\n\t\t\"name\": \
                \"a\"\n\t}\n}\n";
    for (file, text, ignored) in [
        ("a.yaml", namespace("a", ""), 0),
        ("a.yml", format!("---\n# first\n---\n{}---\nnull\n...\n", namespace("a", "")), 0),
        (
            "a.yaml",
            format!("\u{feff}%YAML 1.2\n---\n{}", namespace("a", "").replace('\n', "\r\n")),
            0,
        ),
        ("a.yaml", list.to_owned(), 1),
        ("a.yaml", typed.to_owned(), 0),
        ("a.json", tabs.to_owned(), 0),
        ("deep/er/a.json", tabs.replace(['\n', '\t'], ""), 0),
    ] {
        let batch = Dir::with(file, &text).load();
        assert_eq!(batch.invalid, [], "{text}");
        assert_eq!(changes(&batch), ["+Namespace a"], "{text}");
        assert_eq!(batch.ignored, ignored, "{text}");
    }
}

#[test]
fn anchors_and_merges_are_yaml() {
    let text = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: &n a\n  labels:\n    x: *n\n";
    let Object::Namespace(namespace) = read(text) else { panic!("not a namespace") };
    assert_eq!(namespace.labels.get("x").map(String::as_str), Some("a"));
}

#[test]
fn other_files_are_no_manifests() {
    let dir = Dir::with("notes.txt", "Not: [yaml");
    dir.write(".draft.yaml", "Not: [yaml");
    dir.write("a.yaml.orig", "Not: [yaml");
    dir.write(".git/a.yaml", "Not: [yaml");
    let batch = dir.load();
    assert_eq!((batch.invalid, batch.changes), (Vec::new(), Vec::new()));
}

#[test]
fn a_list_of_two_thousand_pods_on_one_line_is_read() {
    let pod = |i: usize| {
        format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"p{i}","annotations":{{"long":"{}"}}}}}}"#,
            "x".repeat(2000)
        )
    };
    let pods: Vec<_> = (0..2000).map(pod).collect();
    let text = format!(r#"{{"apiVersion":"v1","kind":"List","items":[{}]}}"#, pods.join(","));
    let batch = Dir::with("a.json", text).load();
    assert_eq!((batch.invalid, batch.changes.len()), (Vec::new(), 2000));
}

/// What is wrong in the annotation puts neither the pod nor its other entries in doubt.
#[test]
fn of_a_pods_annotations_one_is_read() {
    let annotated = |annotations: &str| {
        let pod = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: vpn, annotations: {annotations}}}}}"
        );
        match read(&pod) {
            Object::Pod(pod) => pod.source_prefixes,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(annotated("{}"), None);
    assert_eq!(annotated("{np-agent.io/source: 10.8.0.0/24, other: \"x\"}"), None);
    let read =
        annotated("{other: \"x\", np-agent.io/source-prefixes: \"fd00:8::/64,ten , 10.8.0.0/24\"}");
    let read = read.expect("it is annotated");
    let prefixes: Vec<String> = read.prefixes.iter().map(ToString::to_string).collect();
    assert_eq!(prefixes, ["10.8.0.0/24", "fd00:8::/64"]);
    let refused: Vec<&str> = read.refused.iter().map(|refused| refused.value.as_str()).collect();
    assert_eq!(refused, ["ten"]);
}
