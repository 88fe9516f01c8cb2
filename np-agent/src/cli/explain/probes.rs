//! Many connections: one JSON object a line in, one JSON object a line out, in the same order.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::hints::Hints;
use super::{Asked, BAD_INPUT, OWN_NODE, sound};
use crate::args::Expect;
use np_policy::explain::{Explain, Judgement, Protocol};

/// An unknown field is refused: a misspelt "protocol" would be judged as TCP.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    from: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    to: std::borrow::Cow<'a, str>,
    port: Option<Port>,
    #[serde(borrow)]
    protocol: Option<std::borrow::Cow<'a, str>>,
    expect: Option<Expect>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Port {
    Number(u16),
    Name(String),
}

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    judgement: &'a Judgement<'a>,
    /// What would turn the verdict round.
    #[serde(skip_serializing_if = "Option::is_none")]
    unless: Option<&'static str>,
    /// Only where the verdict is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<Expect>,
}

#[derive(Serialize)]
struct Failure {
    error: String,
    line: u64,
}

#[derive(Default)]
struct Count {
    answered: u64,
    malformed: u64,
    unexpected: u64,
}

pub fn run(
    explain: &Explain<'_>,
    hints: &Hints,
    file: &Path,
    expect: Option<Expect>,
) -> anyhow::Result<ExitCode> {
    let input: Box<dyn BufRead> = if file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let opened = File::open(file).with_context(|| format!("--probes {}", file.display()))?;
        Box::new(BufReader::with_capacity(1 << 16, opened))
    };
    let mut output = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let start = Instant::now();
    let count = answer_all(explain, hints, input, &mut output, expect)?;
    output.flush().context("cannot write the answers")?;
    let seconds = start.elapsed().as_secs_f64();
    let Count { answered, malformed, unexpected } = count;
    eprintln!(
        "{answered} probes answered in {seconds:.2} s ({:.0} per second), {malformed} lines \
         malformed, {unexpected} not as expected",
        answered as f64 / seconds.max(1e-9)
    );
    Ok(match (malformed, unexpected) {
        (1.., _) => ExitCode::from(BAD_INPUT),
        (0, 1..) => ExitCode::FAILURE,
        (0, 0) => ExitCode::SUCCESS,
    })
}

fn answer_all(
    explain: &Explain<'_>,
    hints: &Hints,
    mut input: impl BufRead,
    mut output: impl Write,
    expect: Option<Expect>,
) -> anyhow::Result<Count> {
    let mut count = Count::default();
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        if input.read_until(b'\n', &mut bytes).context("cannot read the probes")? == 0 {
            break;
        }
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        match answer(explain, hints, &bytes, expect, &mut output)? {
            Ok(as_expected) => {
                count.answered += 1;
                count.unexpected += u64::from(!as_expected);
            }
            Err(error) => {
                count.malformed += 1;
                serde_json::to_writer(&mut output, &Failure { error, line: number })?;
            }
        }
        output.write_all(b"\n").context("cannot write the answers")?;
    }
    Ok(count)
}

/// Writes one answer, and says whether the verdict is the expected one; else why there is none.
fn answer(
    explain: &Explain<'_>,
    hints: &Hints,
    bytes: &[u8],
    expect: Option<Expect>,
    output: impl Write,
) -> anyhow::Result<Result<bool, String>> {
    let line: Line<'_> = match serde_json::from_slice(bytes) {
        Ok(line) => line,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let Some(protocol) = line.protocol.as_deref().map_or(Some(Protocol::Tcp), Protocol::parse)
    else {
        let protocol = line.protocol.unwrap_or_default();
        return Ok(Err(format!("protocol {protocol:?}: not one of TCP, UDP, SCTP, ICMP")));
    };
    let mut digits = String::new();
    let port = match &line.port {
        None => None,
        Some(Port::Name(name)) => Some(name.as_str()),
        Some(Port::Number(number)) => {
            digits.push_str(&number.to_string());
            Some(digits.as_str())
        }
    };
    let asked = Asked { from: &line.from, to: &line.to, port, protocol, family: None };
    let probe = match asked.probe(explain) {
        Ok(probe) => probe,
        Err(error) => return Ok(Err(format!("{:#}", hints.explained(error, &asked, explain)))),
    };
    if let Some(error) = hints.service(&probe, explain) {
        return Ok(Err(error));
    }
    let judgement = explain.judge(&probe);
    sound(&probe, &judgement)?;
    let expected = line.expect.or(expect).filter(|expected| expected.allows() != judgement.allowed);
    let unless = explain.unless(&probe, &judgement).map(|_| OWN_NODE);
    serde_json::to_writer(output, &Answer { judgement: &judgement, unless, expected })
        .context("cannot write the answers")?;
    Ok(Ok(expected.is_none()))
}
