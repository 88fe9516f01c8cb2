//! The plain language of policies: peers, ports, blocks with holes, isolation of one direction.

use super::{Step, Story};

pub const STORIES: &[Story] = &[
    Story {
        id: "B1",
        title: "Everything in, nothing out",
        steps: &[
            Step {
                says: "An empty ingress rule allows all; policyTypes names Egress and no rule follows, so nothing leaves. Answers are no egress, and a pod always reaches its own node.",
                policy: include_str!("../../fixtures/stories/b1-all-in-nothing-out.yaml"),
                table: "
                                web:80       job:80       web:icmp  coredns:53/udp  kube-dns:53/udp  other:80  node-1:10250  node-2:10250  internet:443
                    web         .            no           .         no              no               no        yes           no            no
                    job         no           .            no        no              no               no        no            yes           no
                    other       yes@other    yes@other    yes       yes             yes              .         .             .             .
                    node-1      yes@node-1   yes@node-1   yes       .               .                .         .             .             .
                    internet    yes@internet yes@internet yes       .               .                .         .             .             .",
                ..Step::PLAIN
            },
        ],
    },
    Story {
        id: "B2",
        title: "A block with a hole, or the pods themselves",
        steps: &[
            Step {
                says: "Both peers, one port; the hole of the block is exact to the address.",
                policy: include_str!("../../fixtures/stories/b2-block-except-or-pods.yaml"),
                table: "
                                  myapp-1:80        myapp-1:8080  myapp-2:80        myapp-1:icmp
                    myapp-1       .                 .             yes@myapp-1       .
                    myapp-2       yes@myapp-2       no            .                 no
                    10.244.2.255  yes@10.244.2.255  no            yes@10.244.2.255  no
                    10.244.3.1    no                no            no                no
                    10.244.3.255  no                no            no                no
                    10.244.4.1    yes@10.244.4.1    no            yes@10.244.4.1    no
                    other         no                no            no                no
                    internet      no                no            no                no",
                ..Step::PLAIN
            },
        ],
    },
    Story {
        id: "B3",
        title: "Two rules make no cross product",
        steps: &[
            Step {
                says: "nginx at 80 and mysql at 3306 are allowed; nginx at 3306 and mysql at 80 are not.",
                policy: include_str!("../../fixtures/stories/b3-two-backends.yaml"),
                table: "
                                nginx:80    nginx:3306  mysql:80   mysql:3306  other:80  kube-dns:53/udp  tomcat:8080
                    tomcat      yes@tomcat  no          no         yes@tomcat  no        no               .
                    other       yes@other   yes@other   yes@other  yes@other   .         yes              yes@other
                    nginx       .           .           yes        yes         yes       yes              yes@nginx",
                ..Step::PLAIN
            },
        ],
    },
    Story {
        id: "B4",
        title: "Own namespace and kube-system only",
        steps: &[
            Step {
                says: "A second policy opens what the first one closes, for the namespaces that bear the label.",
                policy: include_str!("../../fixtures/stories/b4-own-namespace-and-kube-system.yaml"),
                table: "
                                web:80    job:80    coredns:8080  metrics:8080  kube-dns:53/udp  other:80
                    web         .         yes@web   yes@web       yes@web       yes@web          no
                    job         yes@job   .         yes@job       yes@job       yes@job          no
                    coredns     yes       yes       .             yes           .                yes
                    metrics     yes       yes       yes           .             .                yes
                    other       no        no        yes           yes           yes              .
                    internet    no        no        .             .             .                .",
                ..Step::PLAIN
            },
            Step {
                says: "The label is what counts: without it on kube-system, only the own namespace is left.",
                policy: include_str!("../../fixtures/stories/b4-own-namespace-and-kube-system.yaml"),
                unlabel: &[("kube-system", "name")],
                table: "
                                web:80    job:80    coredns:8080  metrics:8080  kube-dns:53/udp
                    web         .         yes@web   no            no            no
                    job         yes@job   .         no            no            no
                    coredns     no        no        .             yes           .",
                ..Step::PLAIN
            },
        ],
    },
    Story {
        id: "B5",
        title: "The example of the documentation: six facts",
        steps: &[
            Step {
                says: "Block with a hole, namespace, pods: three peers in, one port; one block and port out. A pod reaches itself through its own Service.",
                policy: include_str!("../../fixtures/stories/b5-six-facts.yaml"),
                table: "
                                 db:6379         db:5432  10.0.0.10:5978  10.0.0.10:5979  10.0.1.10:5978  frontend:80  svc-db:6379  internet:443
                    172.17.0.9   yes@172.17.0.9  no       .               .               .               .            .            .
                    172.17.1.9   no              no       .               .               .               .            .            .
                    172.17.2.9   yes@172.17.2.9  no       .               .               .               .            .            .
                    worker       yes@worker      no       yes@worker      yes@worker      yes@worker      yes          yes@worker   yes@node-3
                    frontend     yes@frontend    no       yes@frontend    yes@frontend    yes@frontend    .            yes@frontend yes@node-1
                    other        no              no       yes@other       yes@other       yes@other       yes          no           yes@node-2
                    internet     no              no       .               .               .               .            .            .
                    node-2       yes@node-2      yes      .               .               .               .            .            .
                    db           .               .        yes@db          no              no              no           yes@node-2   no",
                ..Step::PLAIN
            },
        ],
    },
    Story {
        id: "B6",
        title: "Two items are OR, one item is AND",
        steps: &[
            Step {
                says: "Two items: everyone of alice's namespaces, or clients of this namespace.",
                policy: include_str!("../../fixtures/stories/b6-two-items.yaml"),
                table: "
                                  nginx:80
                    alice-client  yes@alice-client
                    alice-other   yes@alice-other
                    client        yes@client
                    other         no",
                ..Step::PLAIN
            },
            Step {
                says: "One item, a dash less: only clients in alice's namespaces.",
                policy: include_str!("../../fixtures/stories/b6-one-item.yaml"),
                table: "
                                  nginx:80
                    alice-client  yes@alice-client
                    alice-other   no
                    client        no
                    other         no",
                ..Step::PLAIN
            },
        ],
    },
    Story {
        id: "B7",
        title: "Nothing in, everything out",
        steps: &[
            Step {
                says: "No ingress rule at all: only the node's own probes get in, each to its own pods. Egress is untouched, and answers come back.",
                policy: include_str!("../../fixtures/stories/b7-nothing-in.yaml"),
                table: "
                                quiet-1:80  quiet-2:80  quiet-1:icmp  quiet-2:icmp  other:80     kube-dns:53/udp  internet:443
                    quiet-1     .           no          .             no            yes@quiet-1  yes@quiet-1      yes@node-1
                    quiet-2     no          .           no            .             yes@quiet-2  yes@quiet-2      yes@node-2
                    node-1      yes@node-1  no          yes           no            .            .                .
                    node-2      no          yes@node-2  no            yes           .            .                .
                    other       no          no          no            no            .            .                .
                    internet    no          no          no            no            .            .                .",
                ..Step::PLAIN
            },
        ],
    },
    Story {
        id: "B8",
        title: "A pod that no policy selects",
        steps: &[
            Step {
                says: "Policies of other namespaces are in force all around; unselected pods accept and send everything.",
                policy: include_str!("../../fixtures/stories/b8-others-are-isolated.yaml"),
                table: "
                                other:80       other:8443/udp  other:icmp  tomcat:8080  myapp-2:80    internet:443  10.0.0.10:5978  kube-dns:53/udp  node-1:10250  web:80
                    other       .              .               .           yes@other    yes@other     yes@node-2    yes@other       yes@other        yes           no
                    tomcat      yes@tomcat     yes             yes         .            yes@tomcat    yes@node-1    yes@tomcat      yes@tomcat       yes           no
                    worker      yes@worker     yes             yes         yes@worker   yes@worker    yes@node-3    yes@worker      yes@worker       yes           no
                    internet    yes@internet   yes             yes         yes@internet yes@internet  .             .               .                .             no
                    node-3      yes@node-3     yes             yes         yes@node-3   yes@node-3    .             .               .                .             no",
                ..Step::PLAIN
            },
        ],
    },
];
