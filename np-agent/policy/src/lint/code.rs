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

/// What the documentation says about a code.
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

/// A manifest that has the finding, its twin that does not, and the objects around both.
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
        "The manifest is malformed and is refused."
        "The API server would refuse it, or it means something else than it seems to. The agent \
         leaves the last good version of the object in force."
        "Correct the named field."
    ServiceCidr "NP101" "service-cidr" Warning
        "An ipBlock of Service addresses never matches."
        "A policy is judged after service DNAT, when the address of the Service has been replaced \
         by that of a pod. Ranges are known from `--service-cidr` and from ServiceCIDR objects, \
         single addresses from Services. A block inside the range is a warning, and a block that is \
         larger than the range is information. `0.0.0.0/0` and `::/0` are never reported."
        "Select the pods behind the Service, and name the pods' own port."
    PodCidr "NP102" "pod-cidr" Warning
        "An ipBlock of pod addresses matches any pod that has the address."
        "A pod gets another address each time it is recreated, and a block does not distinguish \
         between pods. Ranges are known from the podCIDRs of Nodes, addresses from Pods. A block \
         larger than a /14 (IPv6: /48) is information, because it is probably meant for other hosts \
         in it. So is the first address of a Node's podCIDR: an overlay gives it to the node."
        "Select pods by podSelector and namespaceSelector."
    NothingLeft "NP103" "nothing-left" Warning
        "The excepts of an ipBlock remove all of it."
        "`except` removes addresses from its own `cidr`. When the excepts together cover the whole \
         block, it matches nothing."
        "Remove the ipBlock, or the except that should not be there."
    AbsentFamily "NP104" "absent-family" Warning
        "An ipBlock is in an address family that no pod has."
        "A pod without an IPv6 address cannot talk to an IPv6 address, and the same holds for IPv4. \
         Families are known from the addresses of Pods and from the podCIDRs of Nodes. If the rule \
         also has a block of the other family it is information: the manifest is meant for both \
         kinds of clusters."
        "Add the same hosts' block in the family that the pods have."
    TwoItems "NP201" "two-items" Warning
        "namespaceSelector and podSelector are two items, which is OR."
        "Two items mean every pod of those namespaces, or such pods of the policy's own namespace. \
         Reported when a list consists of exactly these two, in this order. It is a warning when \
         the podSelector matches no pod of the policy's own namespace but matches pods of those \
         namespaces; otherwise it is information."
        "Remove the dash before podSelector if the pods of those namespaces are meant."
    OneItem "NP202" "one-item" Warning
        "namespaceSelector and podSelector are one item, which is AND."
        "One item means the matching pods of those namespaces. Reported only when there is no such \
         pod, although the namespaces have pods and the podSelector matches pods of the policy's own \
         namespace."
        "Give podSelector a dash of its own if either may match."
    NoSubjects "NP203" "no-subjects" Warning
        "The policy selects no pod."
        "`spec.podSelector` selects pods of the policy's own namespace only. Reported when pods \
         of that namespace are known and none matches; it is information when pods are known only \
         in other namespaces. Templates of Deployments, StatefulSets, DaemonSets, ReplicaSets, \
         Jobs and CronJobs count as pods, here and below. Empty selectors are never reported."
        "Correct the labels or the namespace."
    NoPeers "NP204" "no-peers" Warning
        "A podSelector of a rule matches no pod."
        "Reported when pods are known in the item's namespaces and none of them matches. Without a \
         namespaceSelector that is the policy's own namespace. Pods with hostNetwork match no \
         selector."
        "Correct the labels, or add a namespaceSelector to the same item."
    NoNamespaces "NP205" "no-namespaces" Warning
        "A namespaceSelector of a rule matches no namespace."
        "Reported when Namespaces are known. A namespaceSelector matches labels of the Namespace \
         object, not of pods; the name is a label too, `kubernetes.io/metadata.name`. The \
         namespaces that every cluster has are known without a manifest."
        "Correct the labels, label the namespace, or select it by its name."
    HostNetwork "NP206" "host-network" Warning
        "The policy selects only pods with hostNetwork."
        "Such pods have the node's addresses and no veth: every policy treats them as the node, \
         and no policy isolates them."
        "Restrict them with a firewall on the node, or run them without hostNetwork."
    Contradiction "NP207" "contradiction" Warning
        "The requirements of a selector exclude each other."
        "All requirements must hold, matchLabels and matchExpressions together. Two different \
         values for one label match nothing."
        "Write several values for one label as one In requirement."
    RepeatedRequirement "NP208" "repeated-requirement" Info
        "A requirement has no effect."
        "The selector contains it already, or another requirement on the same label is stricter."
        "Remove it, or correct it if it should differ."
    RepeatedRule "NP209" "repeated-rule" Info
        "A rule, a peer or a port is in its list twice."
        "The second one changes nothing. Often a copy was meant to be edited."
        "Remove it, or correct it if it should differ."
    ServicePort "NP301" "service-port" Warning
        "The port belongs to a Service, and its pods listen on another one."
        "A policy is judged after service DNAT, on the pod's port. Reported when a Service selects \
         pods that the rule is about and has this port with another targetPort, and no such pod \
         declares the port. If no pods are known, the Service's selector is compared instead."
        "Write the targetPort."
    UnknownPortName "NP302" "unknown-port-name" Warning
        "No container has a port of this name."
        "A name refers to a container's port with the same protocol, on the pod that receives the \
         connection: the selected pod for ingress, the peer for egress. The names of a Service's \
         ports do not count. Reported when such pods are known."
        "Write the name that the container gives to the port, or its number."
    IngressBySurprise "NP401" "ingress-by-surprise" Warning
        "A policy that has only egress rules denies all ingress."
        "Without policyTypes a policy always isolates ingress, and also egress if it has egress \
         rules. Without ingress rules it then denies all ingress. Not reported when the policy has \
         an ingress list, even an empty one."
        "Add `policyTypes: [Egress]`."
    EgressNotIsolated "NP402" "egress-not-isolated" Warning
        "An empty egress list without policyTypes denies nothing."
        "Without policyTypes a policy isolates egress only if it has an egress rule. `egress: []` \
         looks like a denial but denies nothing."
        "Add `policyTypes: [Ingress, Egress]`."
    NoDns "NP403" "no-dns" Warning
        "Egress is isolated and DNS is not allowed."
        "Most programs look up a name before they connect. Reported for policies with egress \
         rules when neither they nor the policies that select the same pods allow port 53 (or the \
         targetPort of a Service with port 53, or 5353). It is a warning when a Service selects a \
         peer, since the peer is then reached by name; otherwise, and when only TCP is missing, it \
         is information. A policy without any egress rule is a denial and is not reported."
        "Add a rule for UDP and TCP port 53 to the DNS pods."
    RulesWithoutEffect "NP404" "rules-without-effect" Warning
        "A direction has rules, but policyTypes does not name it."
        "When policyTypes is given, it alone says which directions the policy isolates. Rules of \
         the other direction are ignored."
        "Name the direction in policyTypes, or remove the rules."
}
