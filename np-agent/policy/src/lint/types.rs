//! policyTypes: directions isolated by surprise, and those that are not.

use super::code::Code;
use super::finding::Report;

pub(super) fn check(report: &mut Report<'_, '_>) {
    // An object that does not come from a manifest has its defaults written out.
    let Some(written) = report.written else { return };
    let policy = report.policy;
    if !written.policy_types {
        if policy.egress.is_some() && written.ingress.is_none() {
            report.warn(
                Code::IngressBySurprise,
                "spec.egress",
                "without policyTypes this policy isolates ingress too, and as it has no ingress \
                 rules, it denies all ingress",
                "add \"policyTypes: [Egress]\", or [Ingress, Egress] if that is meant",
            );
        }
        if written.egress == Some(0) {
            report.warn(
                Code::EgressNotIsolated,
                "spec.egress",
                "an empty egress list without policyTypes does not isolate egress: everything is \
                 allowed out",
                "add \"policyTypes: [Ingress, Egress]\" to deny egress, or remove the empty list",
            );
        }
        return;
    }
    for (list, kind, effective, given) in [
        ("ingress", "Ingress", policy.ingress.is_some(), written.ingress),
        ("egress", "Egress", policy.egress.is_some(), written.egress),
    ] {
        if !effective && given.is_some_and(|rules| rules > 0) {
            report.warn(
                Code::RulesWithoutEffect,
                format!("spec.{list}"),
                format!("policyTypes does not name {kind}, so these rules have no effect"),
                format!("add {kind} to policyTypes, or remove \"{list}\""),
            );
        }
    }
}
