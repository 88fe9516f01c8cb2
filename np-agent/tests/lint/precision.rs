//! Where the checks of selectors, ports, types and DNS begin and end: the same policy in worlds that
//! make it right, doubtful and wrong.

use super::support::{
    block, findings, from, namespace, pod, pod_with_ports, policy, service, table,
};

#[test]
fn two_items_are_a_warning_only_on_evidence() {
    let monitoring = namespace("monitoring", "team: monitoring");
    let scraper = pod("monitoring", "scraper", "app: scraper", &[]);
    let here = pod("default", "here", "app: scraper", &[]);
    let web = pod("default", "web", "app: web", &[]);
    let items = "- namespaceSelector: {matchLabels: {team: monitoring}}\n\
                 - podSelector: {matchLabels: {app: scraper}}";
    table(
        &from(items),
        &[
            ("nothing known", &[], &["NP201 info"]),
            ("such pods there and not here", &[&monitoring, &scraper, &web], &["NP201 warning"]),
            ("such pods here too", &[&monitoring, &scraper, &here], &["NP201 info"]),
            ("no pods here at all", &[&monitoring, &scraper], &["NP201 info"]),
            ("such pods nowhere", &[&monitoring, &web], &["NP201 info", "NP204 warning"]),
        ],
    );
    let swapped = "- podSelector: {matchLabels: {app: scraper}}\n\
                   - namespaceSelector: {matchLabels: {team: monitoring}}";
    table(&from(swapped), &[("the other order is a list of two", &[], &[])]);
    let every = "- namespaceSelector: {matchLabels: {team: monitoring}}\n- podSelector: {}";
    table(&from(every), &[("and every pod here", &[&monitoring, &scraper, &web], &[])]);
    let third = format!("{items}\n- ipBlock: {{cidr: 192.0.2.0/24}}");
    table(&from(&third), &[("a list of three", &[], &[])]);
}

#[test]
fn one_item_is_a_warning_only_on_evidence() {
    let monitoring = namespace("monitoring", "team: monitoring");
    let other = pod("monitoring", "other", "app: other", &[]);
    let there = pod("monitoring", "there", "app: web", &[]);
    let here = pod("default", "here", "app: web", &[]);
    let item = "- namespaceSelector: {matchLabels: {team: monitoring}}\n  \
                podSelector: {matchLabels: {app: web}}";
    table(
        &from(item),
        &[
            ("nothing known", &[], &[]),
            ("each for itself matches", &[&monitoring, &other, &here], &["NP202 warning"]),
            ("both match", &[&monitoring, &there, &here], &[]),
            ("the namespaces have no pods yet", &[&monitoring, &here], &[]),
            ("nobody here", &[&monitoring, &other], &["NP204 warning"]),
        ],
    );
}

#[test]
fn selectors_match_nothing_only_among_what_is_known() {
    let subject = "podSelector: {matchLabels: {app: web}}";
    let deployment = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {template: \
                      {metadata: {labels: {app: web}}, spec: {containers: []}}}}";
    let cron = "{apiVersion: batch/v1, kind: CronJob, metadata: {name: c}, spec: {jobTemplate: \
                {spec: {template: {metadata: {labels: {app: web}}}}}}}";
    let db = pod("default", "db", "app: db", &[]);
    let elsewhere = pod("shop", "web", "app: web", &[]);
    table(
        subject,
        &[
            ("nothing known", &[], &[]),
            ("another pod", &[&db], &["NP203 warning"]),
            ("a Deployment makes it", &[&db, deployment], &[]),
            ("a CronJob makes it", &[&db, cron], &[]),
            ("pods of other namespaces", &[&elsewhere], &["NP203 info"]),
            ("here others, there such", &[&elsewhere, &db], &["NP203 warning"]),
        ],
    );
    table("podSelector: {}", &[("everything, of nothing", &[&elsewhere], &[])]);

    let peer = from("- podSelector: {matchLabels: {app: client}}");
    let client = pod("default", "client", "app: client", &[]);
    let far = pod("shop", "client", "app: client", &[]);
    table(
        &peer,
        &[
            ("nothing known", &[], &[]),
            ("a client", &[&db, &client], &[]),
            ("no client", &[&db], &["NP204 warning"]),
            ("a client elsewhere", &[&db, &far], &["NP204 warning"]),
        ],
    );
}

#[test]
fn namespaces_of_every_cluster_need_no_manifest() {
    let by = |label: &str| from(&format!("- namespaceSelector: {{matchLabels: {{{label}}}}}"));
    let shop = namespace("shop", "team: shop");
    let metadata = "kubernetes.io/metadata.name";
    table(&by("team: stock"), &[("unknown", &[], &[]), ("none", &[&shop], &["NP205 warning"])]);
    table(&by(&format!("{metadata}: kube-system")), &[("not in the input", &[&shop], &[])]);
    table(&by(&format!("{metadata}: shop")), &[("by its name", &[&shop], &[])]);
    table(&by("name: kube-system"), &[("no such label", &[&shop], &["NP205 warning"])]);
    let implied = pod("stock", "a", "app: a", &[]);
    table(&by(&format!("{metadata}: stock")), &[("it has pods", &[&shop, &implied], &[])]);
}

#[test]
fn host_network_matters_only_when_nobody_else_is_selected() {
    let host = "{apiVersion: v1, kind: Pod, metadata: {name: h, labels: {app: web}}, spec: \
                {hostNetwork: true}}";
    let own = pod("default", "web", "app: web", &[]);
    let subject = "podSelector: {matchLabels: {app: web}}";
    table(subject, &[("only such", &[host], &["NP206 warning"]), ("both", &[host, &own], &[])]);
    let peer = from("- podSelector: {matchLabels: {app: web}}");
    let db = pod("default", "db", "app: db", &[]);
    table(&peer, &[("as a peer", &[host, &db], &["NP204 warning"])]);
}

#[test]
fn requirements_that_exclude_or_repeat_each_other() {
    let selector = |requirements: &str| {
        format!("podSelector: {{matchLabels: {{a: x}}, matchExpressions: [{requirements}]}}")
    };
    for (requirements, expected) in [
        ("{key: a, operator: In, values: [p, q]}", &["NP207 warning"][..]),
        ("{key: a, operator: NotIn, values: [x]}", &["NP207 warning"]),
        ("{key: a, operator: DoesNotExist}", &["NP207 warning"]),
        ("{key: a, operator: In, values: [x]}", &["NP208 info"]),
        ("{key: a, operator: In, values: [x, p]}", &["NP208 info"]),
        ("{key: a, operator: Exists}", &["NP208 info"]),
        ("{key: a, operator: NotIn, values: [p]}", &["NP208 info"]),
        ("{key: b, operator: NotIn, values: [x]}", &[]),
        ("{key: b, operator: DoesNotExist}", &[]),
        ("{key: b, operator: Exists}, {key: b, operator: NotIn, values: [x]}", &[]),
        ("{key: b, operator: Exists}, {key: b, operator: DoesNotExist}", &["NP207 warning"]),
        ("{key: b, operator: Exists}, {key: b, operator: Exists}", &["NP208 info"]),
    ] {
        // What can never match is not also reported as matching nothing just now.
        let db = pod("default", "db", "app: db", &[]);
        let known: &[&str] = if expected == ["NP207 warning"] { &[&db] } else { &[] };
        table(&selector(requirements), &[(requirements, known, expected)]);
    }
}

#[test]
fn the_port_of_a_service_is_one_only_if_no_pod_has_it() {
    let rule = "podSelector: {matchLabels: {app: web}}\ningress: [{ports: [{port: 80}]}]";
    let to = |port: &str| service("web", "app: web", &format!("ports: [{port}]"));
    let other = to("{port: 80, targetPort: 8080}");
    let named = to("{port: 80, targetPort: http}");
    let same = to("{port: 80}");
    let udp = to("{port: 80, protocol: UDP, targetPort: 8080}");
    let bare = pod("default", "web", "app: web", &[]);
    let http = pod_with_ports("web", "app: web", "{name: http, containerPort: 8080}");
    let plain = pod_with_ports("web", "app: web", "{containerPort: 80}");
    let foreign = service("x", "app: x", "ports: [{port: 80, targetPort: 8080}]");
    table(
        rule,
        &[
            ("a number", &[&other, &bare], &["NP301 warning"]),
            ("no pods known", &[&other], &["NP301 warning"]),
            ("a name", &[&named, &http], &["NP301 warning"]),
            ("a name that cannot be resolved", &[&named], &[]),
            ("the same number", &[&same, &bare], &[]),
            ("another protocol", &[&udp, &bare], &[]),
            ("the pod has the port too", &[&other, &plain], &[]),
            (
                "another Service has it right",
                &[&other, &service("w", "app: web", "ports: [{port: 80}]"), &bare],
                &[],
            ),
            ("a Service of other pods", &[&foreign, &bare], &[]),
        ],
    );
    let egress = "podSelector: {matchLabels: {app: client}}\npolicyTypes: [Egress]\negress:\n\
                  - to: [{podSelector: {matchLabels: {app: web}}}]\n  ports: [{port: 80}]\n\
                  - ports: [{port: 53, protocol: UDP}, {port: 53}]";
    let client = pod("default", "client", "app: client", &[]);
    table(
        egress,
        &[
            ("on the peers' side", &[&other, &bare, &client], &["NP301 warning"]),
            ("the same number", &[&same, &bare, &client], &[]),
        ],
    );
}

#[test]
fn a_port_name_is_the_containers() {
    let rule = "podSelector: {matchLabels: {app: web}}\ningress: [{ports: [{port: http}]}]";
    let http = |more: &str| {
        pod_with_ports("web", "app: web", &format!("{{name: http, containerPort: 80{more}}}"))
    };
    let nothing = pod("default", "web", "app: web", &[]);
    let db = pod_with_ports("db", "app: db", "{name: http, containerPort: 80}");
    table(
        rule,
        &[
            ("nothing known", &[], &[]),
            ("it has it", &[&http("")], &[]),
            ("as UDP", &[&http(", protocol: UDP")], &["NP302 warning"]),
            ("it has none", &[&nothing], &["NP302 warning"]),
            ("another pod has it", &[&nothing, &db], &["NP302 warning"]),
            ("nothing is selected, which is reported instead", &[&db], &["NP203 warning"]),
        ],
    );
    let sidecar = "{apiVersion: v1, kind: Pod, metadata: {name: web, labels: {app: web}}, spec: \
                   {initContainers: [{name: s, restartPolicy: Always, ports: [{name: http, \
                   containerPort: 80}]}]}}";
    table(rule, &[("a sidecar has it", &[sidecar], &[])]);
}

#[test]
fn policy_types_that_are_not_written() {
    let rules = "ingress: [{ports: [{port: 80}]}]\n";
    let out = "egress: [{to: [{ipBlock: {cidr: 192.0.2.0/24}}]}]\n";
    for (spec, expected) in [
        (format!("podSelector: {{}}\n{out}"), &["NP401 warning", "NP403 info"][..]),
        (format!("podSelector: {{}}\n{rules}{out}"), &["NP403 info"]),
        (format!("podSelector: {{}}\ningress: []\n{out}"), &["NP403 info"]),
        (format!("podSelector: {{}}\npolicyTypes: [Egress]\n{out}"), &["NP403 info"]),
        ("podSelector: {}\negress: []".to_owned(), &["NP402 warning"]),
        ("podSelector: {}\negress:".to_owned(), &["NP402 warning"]),
        ("podSelector: {}\npolicyTypes: [Ingress]\negress: []".to_owned(), &[]),
        ("podSelector: {}\npolicyTypes: [Egress]\negress: []".to_owned(), &[]),
        (format!("podSelector: {{}}\npolicyTypes: [Ingress]\n{out}"), &["NP404 warning"]),
        (format!("podSelector: {{}}\npolicyTypes: [Egress]\n{rules}"), &["NP404 warning"]),
        (
            format!("podSelector: {{}}\npolicyTypes: [Ingress, Egress]\n{rules}{out}"),
            &["NP403 info"],
        ),
    ] {
        table(&spec, &[("", &[], expected)]);
    }
}

#[test]
fn dns_may_be_allowed_by_any_policy_of_the_same_pods() {
    let egress = |rules: &str| {
        format!(
            "podSelector: {{matchLabels: {{app: web}}}}\npolicyTypes: [Egress]\negress:\n{rules}"
        )
    };
    let other = |selector: &str| {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: dns}}, spec: \
             {{podSelector: {{{selector}}}, policyTypes: [Egress], egress: [{{ports: [{{port: 53}}, \
             {{port: 53, protocol: UDP}}]}}]}}}}"
        )
    };
    let db = "- to: [{podSelector: {matchLabels: {app: db}}}]\n";
    let (all, same) = (other(""), other("matchLabels: {app: web}"));
    let by_tier = other("matchLabels: {tier: front}");
    let web = pod("default", "web", "app: web, tier: front", &[]);
    let back = pod("default", "back", "app: web, tier: back", &[]);
    let db_pod = pod("default", "db", "app: db", &[]);
    let db_service = service("db", "app: db", "ports: [{port: 5432}]");
    table(
        &egress(db),
        &[
            ("nowhere", &[], &["NP403 info"]),
            ("and the peer has a name", &[&db_service], &["NP403 warning"]),
            ("for every pod", &[&all, &db_service], &[]),
            ("for the same pods", &[&same, &db_service], &[]),
            ("for all of them, as it happens", &[&by_tier, &web, &db_pod], &[]),
            ("for some of them", &[&by_tier, &web, &back, &db_pod], &["NP403 info"]),
            ("for pods nobody knows", &[&by_tier], &["NP403 info"]),
        ],
    );
    for (rule, expected) in [
        ("- {}", &[][..]),
        ("- to: [{ipBlock: {cidr: 0.0.0.0/0}}]", &[]),
        ("- to: [{namespaceSelector: {}}]", &[]),
        ("- to: [{podSelector: {}}]", &["NP403 info"]),
        ("- ports: [{port: 53, protocol: UDP}]", &["NP403 info"]),
        ("- ports: [{port: 53}]", &["NP403 info"]),
        ("- ports: [{protocol: UDP}, {}]", &[]),
        ("- ports: [{port: 1, endPort: 1024, protocol: UDP}, {port: 53}]", &[]),
        ("- ports: [{port: 54, endPort: 1024, protocol: UDP}, {port: 53}]", &["NP403 info"]),
        ("- ports: [{port: dns, protocol: UDP}, {port: dns-tcp}]", &[]),
    ] {
        table(&egress(rule), &[(rule, &[], expected)]);
    }
    let high = "- ports: [{port: 8053, protocol: UDP}, {port: 8053}]";
    let dns = service("dns", "app: dns", "ports: [{port: 53, protocol: UDP, targetPort: 8053}]");
    table(&egress(high), &[("its own port", &[&dns], &[]), ("any port", &[], &["NP403 info"])]);
}

#[test]
fn the_same_twice() {
    for (rules, expected) in [
        ("[{from: [{podSelector: {}}, {podSelector: {}}]}]", &["NP209 info"][..]),
        ("[{ports: [{port: 80}, {port: 80, protocol: TCP}]}]", &["NP209 info"]),
        ("[{ports: [{port: 80}]}, {ports: [{port: 80}]}]", &["NP209 info"]),
        ("[{ports: [{port: 80}, {port: 80, protocol: UDP}]}]", &[]),
        ("[{ports: [{port: 80}]}, {ports: [{port: 81}]}]", &[]),
    ] {
        let spec = format!("podSelector: {{}}\ningress: {rules}");
        table(&spec, &[(rules, &[], expected)]);
    }
    let both = "podSelector: {}\npolicyTypes: [Ingress, Egress]\ningress: [{}]\negress: [{}]";
    table(both, &[("one in each direction", &[], &[])]);
}

/// What a remedy names is what has to be written.
#[test]
fn remedies_name_the_value() {
    let web =
        service("web", "app: web", "clusterIP: 10.96.0.20, ports: [{port: 80, targetPort: http}]");
    let http = pod_with_ports("web", "app: web", "{name: http, containerPort: 8080}");
    let said = |spec: &str, others: &[&str]| {
        findings(&policy(spec, others)).iter().map(|f| f.remedy.clone()).collect::<Vec<_>>()
    };
    let rule = "podSelector: {matchLabels: {app: web}}\ningress: [{ports: [{port: 80}]}]";
    assert_eq!(said(rule, &[&web, &http]), ["write the Service's targetPort: http, which is 8080"]);
    assert_eq!(
        said(&block("10.96.0.20/32"), &[&web]),
        [
            "select the pods behind Service default/web: pods app=web of namespace default, port http"
        ]
    );
    let named = "podSelector: {matchLabels: {app: web}}\ningress: [{ports: [{port: htp}]}]";
    assert_eq!(said(named, &[&http]), ["the known names are: http"]);
}

/// A Service that cannot be understood is reported, and hides nothing else.
#[test]
fn services_are_read_strictly() {
    let broken = service("web", "app: web", "ports: [{port: 800000}]");
    let linted = super::support::lint(&policy("podSelector: {}\negress: []", &[&broken]));
    let [refused] = linted.refused.as_slice() else { panic!("{:?}", linted.refused) };
    assert_eq!(refused.object.as_deref(), Some("Service default/web"));
    assert_eq!(refused.field, "spec.ports[0].port");
    assert_eq!(linted.findings.len(), 1);
}
