//! The table of findings. Codes are stable: they keep their number, and a number is not used twice.

use std::fmt;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::finding::Severity;

macro_rules! codes {
    ($($code:ident $id:literal $name:literal $severity:ident
        $summary:literal $explanation:literal $remedy:literal)*) => {
        /// What a finding is about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($code,)*
        }

        impl Code {
            pub const ALL: &[Code] = &[$(Code::$code,)*];

            pub fn entry(self) -> Entry {
                match self {
                    $(Code::$code => Entry {
                        id: $id,
                        name: $name,
                        severity: Severity::$severity,
                        summary: $summary,
                        explanation: $explanation,
                        remedy: $remedy,
                        example: Example(include_str!(concat!("examples/", $id, ".yaml"))),
                    },)*
                }
            }
        }
    };
}

/// What the documentation says of a code.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub id: &'static str,
    pub name: &'static str,
    /// The highest that a finding of this code has.
    pub severity: Severity,
    pub summary: &'static str,
    pub explanation: &'static str,
    pub remedy: &'static str,
    pub example: Example,
}

/// A manifest that has the finding, its twin that has not, and what both are held against.
#[derive(Clone, Copy, Debug)]
pub struct Example(&'static str);

impl Example {
    pub fn bad(self) -> &'static str {
        self.parts()[0]
    }

    pub fn good(self) -> &'static str {
        self.parts()[1]
    }

    /// Other objects; may be empty.
    pub fn given(self) -> &'static str {
        self.parts()[2]
    }

    /// The parts of the file, each under a line of its own: "# bad", "# good", "# given".
    fn parts(self) -> [&'static str; 3] {
        let (bad, rest) = self.0.split_once("# good\n").unwrap_or((self.0, ""));
        let (good, given) = rest.split_once("# given\n").unwrap_or((rest, ""));
        [bad.strip_prefix("# bad\n").unwrap_or(bad), good, given]
    }
}

impl Code {
    /// By number or name: "NP101", "np101", "service-cidr".
    pub fn named(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| {
            let Entry { id, name, .. } = code.entry();
            id.eq_ignore_ascii_case(text) || name == text
        })
    }
}

/// "NP101 service-cidr".
impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { id, name, .. } = self.entry();
        f.pad(&format!("{id} {name}"))
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Entry { id, name, .. } = self.entry();
        let mut fields = serializer.serialize_struct("Code", 2)?;
        fields.serialize_field("code", id)?;
        fields.serialize_field("name", name)?;
        fields.end()
    }
}

codes! {
    Refused "NP001" "refused" Error
        "The manifest is malformed and is not taken."
        "The API server would refuse it, or it says something else than it seems to. The agent \
         leaves the last good version of the object in force."
        "Correct the field that is named."
    ServiceCidr "NP101" "service-cidr" Warning
        "An ipBlock of Service addresses never matches."
        "A policy is judged after service DNAT, when the address of the Service has been replaced \
         by that of a pod. Ranges are known from `--service-cidr` and from ServiceCIDR objects, \
         single addresses from Services. A block that lies in the range is a warning, one that is \
         larger than it is information. `0.0.0.0/0` and `::/0` are never reported."
        "Select the pods behind the Service, and give the pods' own port."
    PodCidr "NP102" "pod-cidr" Warning
        "An ipBlock of pod addresses matches whatever pod has the address."
        "Pods get another address whenever they are made anew, and a block of them does not tell \
         one from another. Ranges are known from the podCIDRs of Nodes, addresses from Pods. A \
         block larger than a /14 (IPv6: /48) is information: it is probably meant for others in it."
        "Select pods by podSelector and namespaceSelector."
    NothingLeft "NP103" "nothing-left" Warning
        "The excepts of an ipBlock take all of it away."
        "`except` cuts out of its own `cidr`. When the excepts together are the whole block, it \
         matches nothing."
        "Remove the ipBlock, or the except that should not be there."
    AbsentFamily "NP104" "absent-family" Warning
        "An ipBlock is of an address family that no pod has."
        "Pods without an IPv6 address never meet a peer that has only one, and the other way \
         round. Families are known from the addresses of Pods and from the podCIDRs of Nodes. \
         Beside a block of the other family it is information: the manifest is for both kinds of \
         clusters."
        "Name the block of the family that the pods have."
    TwoItems "NP201" "two-items" Warning
        "namespaceSelector and podSelector are two items, which is OR."
        "Two items mean every pod of those namespaces, or such pods of the policy's own namespace. \
         Reported when a list is exactly these two, in this order. It is a warning when the \
         podSelector matches no pod of the policy's own namespace and does match in those \
         namespaces, else information."
        "Remove the dash before podSelector if the pods of those namespaces are meant."
    OneItem "NP202" "one-item" Warning
        "namespaceSelector and podSelector are one item, which is AND."
        "One item means such pods of those namespaces. Reported only when there is none, while \
         the namespaces have pods and the policy's own namespace has pods that the podSelector \
         matches."
        "Give podSelector a dash of its own if either may match."
    NoSubjects "NP203" "no-subjects" Warning
        "The policy selects no pod."
        "`spec.podSelector` looks for pods in the policy's own namespace only. Reported when pods \
         of that namespace are known, and none matches; it is information when pods are known only \
         in other namespaces. Templates of Deployments, StatefulSets, DaemonSets, ReplicaSets, \
         Jobs and CronJobs count as pods, here and below. Empty selectors are never reported."
        "Correct the labels or the namespace."
    NoPeers "NP204" "no-peers" Warning
        "A podSelector of a rule matches no pod."
        "Reported when pods are known in the namespaces that the item speaks of, and none of them \
         matches. Without a namespaceSelector these are pods of the policy's own namespace. Pods \
         with hostNetwork match no selector."
        "Correct the labels, or add a namespaceSelector to the same item."
    NoNamespaces "NP205" "no-namespaces" Warning
        "A namespaceSelector of a rule matches no namespace."
        "Reported when Namespaces are known. It reads labels of the Namespace object, not of pods, \
         and the name only as `kubernetes.io/metadata.name`. The namespaces that every cluster has \
         are known without a manifest."
        "Correct the labels, label the namespace, or select it by its name."
    HostNetwork "NP206" "host-network" Warning
        "The policy selects only pods with hostNetwork."
        "Such pods have the node's addresses and no veth: to every policy they are the node, and \
         no policy isolates them."
        "Restrict them by a firewall of the node, or run them without hostNetwork."
    Contradiction "NP207" "contradiction" Warning
        "The requirements of a selector exclude each other."
        "All requirements must hold, matchLabels and matchExpressions together. Two different \
         values for one label match nothing."
        "Write several values for one label as one In requirement."
    RepeatedRequirement "NP208" "repeated-requirement" Info
        "A requirement says nothing new."
        "It stands in the selector already, or another one on the same label is stricter."
        "Remove it, or correct it if it should differ."
    RepeatedRule "NP209" "repeated-rule" Info
        "A rule, a peer or a port stands in its list twice."
        "It changes nothing. Often a copy was meant to be edited."
        "Remove it, or correct it if it should differ."
    ServicePort "NP301" "service-port" Warning
        "The port is that of a Service, and its pods listen on another one."
        "A policy is judged after service DNAT, on the pod's port. Reported when a Service stands \
         for pods that the rule is about, has this port with another targetPort, and no such pod \
         declares the port. Without pods that are known, the Service's selector stands for them."
        "Write the targetPort."
    UnknownPortName "NP302" "unknown-port-name" Warning
        "No container has a port of this name."
        "A name is that of a container's port, with the same protocol, on the pod that is \
         connected to: the selected pod for ingress, the peer for egress. The names of a Service's \
         ports mean nothing here. Reported when such pods are known."
        "Write the name that the container gives to the port, or its number."
    IngressBySurprise "NP401" "ingress-by-surprise" Warning
        "A policy with egress rules only denies all ingress."
        "Without policyTypes a policy is always for ingress, and for egress too if it has egress \
         rules. Without ingress rules it then allows nothing in. Not reported when an ingress list \
         is written, be it empty."
        "Add `policyTypes: [Egress]`."
    EgressNotIsolated "NP402" "egress-not-isolated" Warning
        "An empty egress list without policyTypes denies nothing."
        "Without policyTypes a policy is for egress only if it has an egress rule. `egress: []` \
         looks like a denial and is none."
        "Add `policyTypes: [Ingress, Egress]`."
    NoDns "NP403" "no-dns" Warning
        "Egress is isolated and DNS is not allowed."
        "Most programs look up a name before they connect. Reported for policies with egress \
         rules when neither they nor the policies that select the same pods allow the port 53 (or \
         the targetPort of a Service with port 53, or 5353). It is a warning when a Service stands \
         for a peer, which is then reached by its name; else, and when only TCP is missing, \
         information. A policy without any egress rule is a denial and is not reported."
        "Add a rule for the ports 53 of UDP and TCP to the DNS pods."
    RulesWithoutEffect "NP404" "rules-without-effect" Warning
        "Rules stand in a direction that policyTypes does not name."
        "When policyTypes is given it alone says which directions the policy is for. The rules of \
         the other one are not read."
        "Name the direction in policyTypes, or remove the rules."
}
