//! `kubectl np check`: np-agent's lines, with the node in front of each.

use crate::agents;
use crate::args::CheckArgs;
use crate::ask::{self, Answer};
use crate::error::Error;
use crate::kubectl::{Kubectl, exit_code};
use crate::print;

/// Runs the command and returns its exit code.
///
/// # Errors
/// If kubectl does not list nodes and agents, or the answer cannot be written.
pub fn run(kubectl: &Kubectl, args: &CheckArgs) -> Result<u8, Error> {
    let words = words(args);
    if let Some(node) = &args.on.node {
        return ask::pass_on(kubectl, &agents::on(kubectl, node)?, &words);
    }
    let answers = ask::ask(kubectl, None, &words, |pod, said| {
        // A check that found something is an answer; one that could not be made has only complained.
        if said.stdout.is_empty() && said.code != 0 {
            return Err(ask::failed(kubectl, pod, said));
        }
        Ok((said.stdout.clone(), exit_code(said.code)))
    })?;
    print::show(&render(&answers))?;
    let silent = ask::complain_of_all(&answers);
    let codes = answers.iter().flat_map(|answer| &answer.said).map(|(_, code)| *code);
    Ok(codes.fold(silent, u8::max))
}

/// What np-agent is asked.
pub fn words(args: &CheckArgs) -> Vec<String> {
    ["check".to_owned()].into_iter().chain(args.on.further.clone()).collect()
}

fn render(answers: &[Answer<(String, u8)>]) -> String {
    let widest = answers.iter().map(|answer| answer.node.name.chars().count()).max();
    let width = widest.unwrap_or_default();
    let mut text = String::new();
    for Answer { node, said, .. } in answers {
        for line in said.iter().flat_map(|(text, _)| text.lines()) {
            text.push_str(&format!("{:width$}   {line}\n", node.name));
        }
    }
    text
}
