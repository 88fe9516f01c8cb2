//! The oracle and the agent say the same of every connection: random clusters and policies through
//! the agent's index, bindings, compiler and tables to `np_common::decide`, against the
//! specification.
//!
//! `PROPTEST_CASES` sets the number of clusters, `PROPTEST_RNG_SEED` runs the same ones again.

use std::cell::RefCell;

use np_tests::generate::{Answer, Case, Cases, Coverage, agree, changes};
use np_tests::oracle::Conn;
use np_tests::property;
use np_tests::simulation::Simulation;
use proptest::test_runner::{TestCaseError, TestError};

const CASES: u32 = 20_000;
const PROBES: usize = 16;

/// Runs cases against what `build` makes of each cluster; the error is the smallest failing case.
fn run<A>(name: &str, build: impl Fn(&Case) -> Option<A>) -> (Coverage, Result<(), (String, Case)>)
where
    A: FnMut(&Conn) -> Answer,
{
    let mut runner = property::runner(name, CASES);
    let coverage = RefCell::new(Coverage::default());
    let result = runner.run(&Cases { probes: PROBES }, |case| {
        let Some(answer) = build(&case) else {
            return Err(TestCaseError::reject("an object that the API would refuse"));
        };
        agree(&case, &mut coverage.borrow_mut(), answer).map_err(TestCaseError::fail)
    });
    let result = match result {
        Ok(()) => Ok(()),
        Err(TestError::Fail(reason, case)) => Err((reason.to_string(), case)),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    };
    (coverage.into_inner(), result)
}

/// Every case, and both answers often enough: were all connections denied, a decide that denies
/// everything would pass too.
#[test]
fn the_agent_says_what_the_oracle_says() {
    let (coverage, result) = run("the agent against the oracle", |case| {
        let simulation = Simulation::new(changes(&case.cluster).ok()?);
        Some(move |conn: &Conn| simulation.answer(conn))
    });
    println!("{coverage}");
    if let Err((reason, case)) = result {
        panic!("{reason}\n{case:?}");
    }
    let share = coverage.allowed_share();
    assert!((0.2..0.8).contains(&share), "{coverage}");
    let missed = coverage.missed(coverage.cases / 100);
    assert!(missed.is_empty(), "never met, or hardly ever: {missed:?}\n{coverage}");
}

/// A difference is found and comes down to one connection, with no object that is not needed to
/// show it: here one pod that one policy isolates.
#[test]
fn a_difference_shrinks_to_its_cause() {
    let (_, result) =
        run("everything allowed against the oracle", |_| Some(|_: &Conn| Answer::Allowed));
    let (_, case) = result.expect_err("whoever allows everything is found out");
    assert_eq!(case.probes.len(), 1, "{case:?}");
    assert_eq!(case.cluster.policies.len(), 1, "{case:?}");
    assert_eq!(case.cluster.pods.len(), 1, "{case:?}");
    assert_eq!(case.cluster.namespaces.len(), 0, "{case:?}");
}
