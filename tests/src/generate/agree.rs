//! The comparison with the oracle.

use super::{Case, Coverage};
use crate::oracle::{Conn, Verdict};

/// What the thing under test says of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Allowed,
    EgressDenied,
    IngressDenied,
    /// It was lost for a reason that is not the policies'.
    Lost(String),
}

/// Compares answers with the oracle's verdicts; the first difference is the error.
pub fn agree(
    case: &Case,
    coverage: &mut Coverage,
    mut answer: impl FnMut(&Conn) -> Answer,
) -> Result<(), String> {
    let oracle = case.cluster.oracle();
    let mut seen = coverage.case(&case.cluster);
    for probe in &case.probes {
        let verdict = oracle.verdict(probe);
        seen.probe(probe, &verdict);
        let answer = answer(probe);
        if !fits(&answer, &verdict) {
            return Err(format!("{probe}\n  oracle: {verdict:?}\n  answer: {answer:?}"));
        }
    }
    Ok(())
}

/// A connection that both sides deny may be denied by either.
fn fits(answer: &Answer, verdict: &Verdict) -> bool {
    match answer {
        Answer::Allowed => verdict.allowed(),
        Answer::EgressDenied => !verdict.egress.allows(),
        Answer::IngressDenied => !verdict.ingress.allows(),
        Answer::Lost(_) => false,
    }
}
