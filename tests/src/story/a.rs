//! What a policy sees: Services, NodePorts, host ports, DNS on a routes-based cluster.
//!
//! The verdict falls on the packet as it leaves its node: after the Service address became a pod's,
//! and after masquerading made a client look like a node.

use super::{Side, Step, Story};

pub const STORIES: &[Story] = &[
    Story {
        id: "A1",
        title: "Without a policy a Service just works",
        steps: &[
            Step {
                says: "The pod behind the Service sees the client pod itself, at its own port 8443; a NodePort client looks like a node.",
                table: "
                                svc-b:443    pod-b-1:8443  pod-b-3:8443  pod-b-1:8443/udp  pod-b-3:icmp  node-1:30443  node-2:30443
                    pod-a       yes@pod-a    yes@pod-a     yes@pod-a     yes@pod-a         yes           yes@node-1    yes@node-2
                    pod-a-2     yes@pod-a-2  yes@pod-a-2   yes@pod-a-2   yes@pod-a-2       yes           yes@node-1    yes@node-2
                    other       yes@other    yes@other     yes@other     yes@other         yes           yes@node-1    yes@node-2
                    node-1      yes@node-1   yes@node-1    yes@node-1    yes@node-1        yes           yes           yes
                    internet    .            yes@internet  yes@internet  yes@internet      yes           yes@node-1    yes@node-2",
                ..Step::PLAIN
            },
        ],
    },
    Story {
        id: "A2",
        title: "A rule for the Service range allows nothing",
        steps: &[
            Step {
                says: "The Service address is gone before the verdict: the packet that leaves is for a pod at 8443, and no rule allows that.",
                policy: include_str!("../../fixtures/stories/a2-egress-to-service-range.yaml"),
                table: "
                                svc-b:443  pod-b-1:8443  pod-b-1:443  coredns:8080
                    pod-a       no         no            no           no
                    pod-a-2     no         no            no           no
                    pod-b-2     .          yes@pod-b-2   yes@pod-b-2  yes@pod-b-2
                    other       yes@other  yes           yes          yes",
                side: Some(Side::Egress),
                ..Step::PLAIN
            },
        ],
    },
    Story {
        id: "A3",
        title: "Selector and pod port: the rule that works",
        steps: &[
            Step {
                says: "One selector covers the Service and every pod behind it, on the same node and across nodes, whatever the subnet.",
                policy: include_str!("../../fixtures/stories/a3-egress-to-namespace.yaml"),
                table: "
                                svc-b:443    pod-b-1:8443  pod-b-2:8443  pod-b-3:8443  pod-b-1:443  pod-b-1:8443/udp  pod-b-1:icmp  coredns:8080
                    pod-a       yes@pod-a    yes@pod-a     yes@pod-a     yes@pod-a     no           no                no            no
                    pod-a-2     yes@pod-a-2  yes@pod-a-2   yes@pod-a-2   yes@pod-a-2   no           no                no            no",
                ..Step::PLAIN
            },
        ],
    },
    Story {
        id: "A4",
        title: "The port judged is the pod's",
        steps: &[
            Step {
                says: "443 is the port of the Service; the packet that leaves is for 8443. Only a direct connection to a pod's 443 is allowed.",
                policy: include_str!("../../fixtures/stories/a4-egress-to-service-port.yaml"),
                table: "
                                svc-b:443  pod-b-1:8443  pod-b-3:8443  pod-b-1:443  pod-b-3:443
                    pod-a       no         no            no            yes@pod-a    yes@pod-a
                    pod-a-2     no         no            no            yes@pod-a-2  yes@pod-a-2",
                ..Step::PLAIN
            },
        ],
    },
    Story {
        id: "A5",
        title: "A block allows exactly its addresses",
        steps: &[
            Step {
                says: "The pods on node-2 are inside 100.68.2.0/24; the third pod of the same Service is not.",
                policy: include_str!("../../fixtures/stories/a5-egress-to-one-pod-block.yaml"),
                table: "
                                pod-b-1:8443  pod-b-2:8443  pod-b-3:8443  pod-b-1:443
                    pod-a       yes@pod-a     yes@pod-a     no            no
                    pod-a-2     yes@pod-a-2   yes@pod-a-2   no            no",
                ..Step::PLAIN
            },
        ],
    },
    Story {
        id: "A6",
        title: "Pod ranges in blocks work, and are brittle",
        steps: &[
            Step {
                says: "100.68.0.0/14 holds every pod, so the Service works too: blocks match pod addresses.",
                policy: include_str!("../../fixtures/stories/a6-egress-to-pod-range.yaml"),
                table: "
                                svc-b:443    pod-b-1:8443  pod-b-2:8443  pod-b-3:8443
                    pod-a       yes@pod-a    yes           yes           yes
                    pod-a-2     yes@pod-a-2  yes           yes           yes",
                ..Step::PLAIN
            },
            Step {
                says: "100.64.0.0/14 looks as if it held them, but ends at 100.67.255.255: nothing works. A selector has no such trap.",
                policy: include_str!("../../fixtures/stories/a6-egress-to-wrong-range.yaml"),
                table: "
                                svc-b:443  pod-b-1:8443  pod-b-2:8443  pod-b-3:8443
                    pod-a       no         no            no            no
                    pod-a-2     no         no            no            no",
                side: Some(Side::Egress),
                ..Step::PLAIN
            },
        ],
    },
    Story {
        id: "A7",
        title: "Ingress from a namespace, across nodes",
        steps: &[
            Step {
                says: "Clients on other nodes pass without any rule for node addresses. A node reaches its own pods, as probes must, but not others'.",
                policy: include_str!("../../fixtures/stories/a7-ingress-from-namespace.yaml"),
                table: "
                                pod-b-1:8443  pod-b-2:8443  pod-b-3:8443  svc-b:443    pod-b-1:443  pod-b-1:8443/udp
                    pod-a       yes@pod-a     yes@pod-a     yes@pod-a     yes@pod-a    no           no
                    pod-a-2     yes@pod-a-2   yes@pod-a-2   yes@pod-a-2   yes@pod-a-2  no           no
                    other       no            no            no            no           no           no
                    pod-b-2     no            .             no            .            no           no
                    node-2      yes           yes           no            .            yes          yes
                    internet    no            no            no            .            no           no",
                ..Step::PLAIN
            },
        ],
    },
    Story {
        id: "A8",
        title: "A rule for the nodes is a rule for NodePorts only",
        steps: &[
            Step {
                says: "A pod's own connection bears the pod's address, on whatever node. Through a NodePort it is masqueraded and bears the node's.",
                policy: include_str!("../../fixtures/stories/a8-ingress-from-nodes.yaml"),
                table: "
                                pod-b-1:8443  pod-b-3:8443  svc-b:443  node-1:30443  node-2:30443  node-3:30443
                    pod-a       no            no            no         yes@node-1    yes@node-2    yes@node-3
                    pod-a-2     no            no            no         yes@node-1    yes@node-2    yes@node-3
                    node-1      yes@node-1    yes@node-1    .          .             .             .
                    internet    no            no            .          yes@node-1    yes@node-2    yes@node-3",
                ..Step::PLAIN
            },
        ],
    },
    Story {
        id: "A9",
        title: "A rule for the namespace is no rule for NodePorts",
        steps: &[
            Step {
                says: "The same masquerading, the other way round: behind the NodePort nothing tells any more that the client was a pod of namespace-a.",
                policy: include_str!("../../fixtures/stories/a7-ingress-from-namespace.yaml"),
                table: "
                                pod-b-1:8443  pod-b-3:8443  node-1:30443  node-2:30443  node-3:30443
                    pod-a       yes@pod-a     yes@pod-a     no            no            no
                    pod-a-2     yes@pod-a-2   yes@pod-a-2   no            no            no",
                side: Some(Side::Ingress),
                ..Step::PLAIN
            },
        ],
    },
    Story {
        id: "A10",
        title: "Host ports and the host's network",
        steps: &[
            Step {
                says: "Ingress from nodes: a host port keeps the address of a client from elsewhere, and masquerades its own node's pods. A pod with the host's network is a node: no policy selects it, and it comes as a node.",
                policy: include_str!("../../fixtures/stories/a8-ingress-from-nodes.yaml"),
                table: "
                                node-2:8444  host-b:9443  pod-b-3:8443
                    pod-a       no           yes@pod-a    no
                    pod-a-2     yes@node-2   yes@pod-a-2  no
                    node-1      yes@node-1   yes@node-1   yes@node-1
                    host-a      yes@node-1   yes@node-1   yes@node-1
                    internet    no           yes          no",
                ..Step::PLAIN
            },
            Step {
                says: "Egress to nodes: from another node a host port is judged as the node's address and port. On its own node it is translated before the verdict, and judged as the pod.",
                policy: include_str!("../../fixtures/stories/a10-egress-to-nodes.yaml"),
                table: "
                                node-2:8444  host-b:9443  pod-b-1:8443  node-3:10250
                    pod-a       yes@pod-a    yes@pod-a    no            no
                    pod-a-2     no           yes@pod-a-2  no            no",
                ..Step::PLAIN
            },
            Step {
                says: "Egress to a namespace: its pods with the host's network are not meant, for their address is the node's. A pod always reaches its own node.",
                policy: include_str!("../../fixtures/stories/a10-egress-to-namespace-any-port.yaml"),
                table: "
                                node-2:8444  host-b:9443  pod-b-1:8443  host-a:9443
                    pod-a       no           no           yes@pod-a     yes@pod-a
                    pod-a-2     yes          yes@pod-a-2  yes@pod-a-2   no",
                ..Step::PLAIN
            },
        ],
    },
    Story {
        id: "A11",
        title: "DNS beside a tight egress",
        steps: &[
            Step {
                says: "Lookups through the DNS Service work. The second peer, a bare podSelector, means namespace-a's own pods, so cache-a; the first one means every pod of kube-system.",
                policy: include_str!("../../fixtures/stories/a11-egress-with-dns.yaml"),
                table: "
                                kube-dns:53/udp  kube-dns:53  coredns:53/udp  metrics:53/udp  cache-a:53/udp  coredns:8080  cache-a:8080  pod-b-1:53/udp  svc-b:443
                    pod-a       yes@pod-a        yes@pod-a    yes@pod-a       yes@pod-a       yes@pod-a       no            no            no              yes@pod-a
                    pod-a-2     yes@pod-a-2      yes@pod-a-2  yes@pod-a-2     yes@pod-a-2     yes@pod-a-2     no            no            no              yes@pod-a-2",
                ..Step::PLAIN
            },
        ],
    },
    Story {
        id: "A12",
        title: "Both sides must allow",
        steps: &[
            Step {
                says: "The egress side allows; the ingress side, with its default deny, does not.",
                policy: include_str!("../../fixtures/stories/a12-only-egress-allows.yaml"),
                table: "
                                svc-b:443  pod-b-1:8443  pod-b-3:8443
                    pod-a       no         no            no
                    pod-a-2     no         no            no",
                side: Some(Side::Ingress),
                ..Step::PLAIN
            },
            Step {
                says: "The ingress side allows; the egress side, with its default deny, does not.",
                policy: include_str!("../../fixtures/stories/a12-only-ingress-allows.yaml"),
                table: "
                                svc-b:443  pod-b-1:8443  pod-b-3:8443
                    pod-a       no         no            no
                    pod-a-2     no         no            no",
                side: Some(Side::Egress),
                ..Step::PLAIN
            },
            Step {
                says: "With both rules it works.",
                policy: include_str!("../../fixtures/stories/a12-both-allow.yaml"),
                table: "
                                svc-b:443    pod-b-1:8443  pod-b-3:8443  pod-b-1:443
                    pod-a       yes@pod-a    yes           yes           no
                    pod-a-2     yes@pod-a-2  yes           yes           no
                    other       no           no            no            no",
                ..Step::PLAIN
            },
        ],
    },
    Story {
        id: "A13",
        title: "External clients: which address is judged",
        steps: &[
            Step {
                says: "externalTrafficPolicy Local (30444) keeps the client's address, and the rule for it matches. Cluster (30443) shows the node's.",
                policy: include_str!("../../fixtures/stories/a13-ingress-from-client.yaml"),
                table: "
                                node-2:30444  node-3:30444  node-1:30443  node-2:30443  pod-b-1:8443
                    internet    yes@internet  yes@internet  no            no            yes@internet
                    10.0.0.10   no            no            no            no            no",
                ..Step::PLAIN
            },
            Step {
                says: "With a rule for the nodes it is the other way round.",
                policy: include_str!("../../fixtures/stories/a8-ingress-from-nodes.yaml"),
                table: "
                                node-2:30444  node-3:30444  node-1:30443  node-2:30443  pod-b-1:8443
                    internet    no            no            yes@node-1    yes@node-2    no",
                ..Step::PLAIN
            },
        ],
    },
];
