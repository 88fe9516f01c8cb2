//! Whether the maps hold what was written to them: read now and then on a thread of its own,
//! because a million rules take a while, and compared by the agent, which knows what it wrote
//! meanwhile.

use std::sync::mpsc::{Sender, channel};
use std::thread;

use anyhow::Context;
use tokio::sync::mpsc::UnboundedSender;

use crate::dataplane::Reader;
use crate::message::Message;
use np_policy::plan::{Op, Tables};

/// What the thread is asked.
#[derive(Debug)]
pub enum Ask {
    Dump,
    /// Large tables take a while to be freed, too.
    Drop(Box<Tables>),
}

/// Starts the thread. It ends when nobody can ask any more.
pub fn start(reader: Reader, out: UnboundedSender<Message>) -> anyhow::Result<Sender<Ask>> {
    let (asks, incoming) = channel();
    let work = move || {
        for ask in incoming {
            match ask {
                Ask::Drop(tables) => drop(tables),
                Ask::Dump => {
                    let dump = reader.tables().map(Box::new).map_err(|error| error.to_string());
                    if out.send(Message::Dump(dump)).is_err() {
                        return;
                    }
                }
            }
        }
    };
    let named = thread::Builder::new().name("inspect".into());
    named.spawn(work).context("cannot start a thread")?;
    Ok(asks)
}

/// A reading of the maps and what was written since it was asked for.
#[derive(Debug, Default)]
pub struct Inspection {
    under_way: bool,
    /// None when no reading is under way, or when too much was written since.
    written: Option<Vec<Op>>,
    /// The last comparison found a difference.
    suspect: bool,
    /// Why the maps could not be read.
    pub problem: Option<String>,
}

/// What a comparison showed.
#[derive(Debug)]
pub enum Found {
    AsItShould,
    /// To be looked at again: a device may have been written that is not heard of yet.
    Suspect,
    Otherwise {
        maps: Vec<&'static str>,
        tables: Box<Tables>,
    },
}

/// What is to be done after a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Nothing,
    LookAgain,
    Turn,
}

#[derive(Debug)]
pub struct Inspected {
    pub unused: Option<Box<Tables>>,
    pub next: Next,
}

/// Beyond it the reading is given up, and the next one will do.
const MOST_WRITES: usize = 100_000;

impl Inspection {
    /// False when the reading before is not done yet.
    pub fn begin(&mut self) -> bool {
        let idle = !std::mem::replace(&mut self.under_way, true);
        if idle {
            self.written = Some(Vec::new());
        }
        idle
    }

    /// A write was made.
    pub fn written(&mut self, op: &Op) {
        if let Some(written) = &mut self.written {
            written.push(*op);
            if written.len() > MOST_WRITES {
                self.written = None;
            }
        }
    }

    /// Compares. A write says all about what it is about, so with the writes made since, a reading
    /// says what the maps hold now, whichever of them it has seen.
    pub fn judge(
        &mut self,
        dump: Result<Box<Tables>, String>,
        actual: &Tables,
    ) -> (Found, Option<Box<Tables>>) {
        self.under_way = false;
        let written = self.written.take();
        let mut tables = match dump {
            Ok(tables) => tables,
            Err(problem) => {
                self.problem = Some(problem);
                return (Found::AsItShould, None);
            }
        };
        self.problem = None;
        let Some(written) = written else { return (Found::AsItShould, Some(tables)) };
        written.iter().for_each(|op| op.apply(&mut tables));
        let maps = different(&tables, actual);
        let suspect = std::mem::replace(&mut self.suspect, !maps.is_empty());
        if maps.is_empty() {
            return (Found::AsItShould, Some(tables));
        }
        if !suspect {
            return (Found::Suspect, Some(tables));
        }
        self.suspect = false;
        (Found::Otherwise { maps, tables }, None)
    }
}

fn different(found: &Tables, actual: &Tables) -> Vec<&'static str> {
    let Tables { ifaces, endpoints, local, sources, peers, rules, tunnels, config } = found;
    let same = [
        ("IFACES", *ifaces == actual.ifaces),
        ("ENDPOINTS", *endpoints == actual.endpoints),
        ("LOCAL", *local == actual.local),
        ("SOURCES", *sources == actual.sources),
        ("PEERS and CIDRS", *peers == actual.peers),
        ("RULES", *rules == actual.rules),
        ("TUNNELS", *tunnels == actual.tunnels),
        ("CONFIG", *config == actual.config),
    ];
    same.into_iter().filter(|(_, same)| !same).map(|(map, _)| map).collect()
}

#[cfg(test)]
mod tests {
    use np_common::config::Config;

    use super::*;

    fn generation(generation: u32) -> Op {
        Op::SetConfig(Config::new(generation, false))
    }

    fn tables(written: &[Op]) -> Tables {
        let mut tables = Tables::default();
        written.iter().for_each(|op| op.apply(&mut tables));
        tables
    }

    fn judge(inspection: &mut Inspection, dump: &[Op], actual: &[Op]) -> Found {
        inspection.judge(Ok(Box::new(tables(dump))), &tables(actual)).0
    }

    #[test]
    fn what_was_written_since_is_no_difference() {
        let mut inspection = Inspection::default();
        inspection.begin();
        inspection.written(&generation(2));
        for dump in [1, 2] {
            let found = judge(&mut inspection, &[generation(dump)], &[generation(2)]);
            assert!(matches!(found, Found::AsItShould), "{found:?}");
            inspection.begin();
            inspection.written(&generation(2));
        }
    }

    #[test]
    fn a_difference_counts_when_it_is_there_twice() {
        let mut inspection = Inspection::default();
        let mut look = |dump| {
            inspection.begin();
            judge(&mut inspection, &[generation(dump)], &[generation(5)])
        };
        assert!(matches!(look(4), Found::Suspect));
        assert!(matches!(look(5), Found::AsItShould));
        assert!(matches!(look(4), Found::Suspect));
        let Found::Otherwise { maps, tables: found } = look(4) else { panic!("it is there twice") };
        assert_eq!(maps, ["CONFIG"]);
        assert_eq!(*found, tables(&[generation(4)]));
        assert!(matches!(look(4), Found::Suspect), "each repair is looked at anew");
    }

    #[test]
    fn a_reading_that_takes_long_is_not_begun_twice() {
        let mut inspection = Inspection::default();
        assert!(inspection.begin());
        inspection.written(&generation(2));
        assert!(!inspection.begin());
        let found = judge(&mut inspection, &[generation(1)], &[generation(2)]);
        assert!(matches!(found, Found::AsItShould), "what was written since counts: {found:?}");
        assert!(inspection.begin());
    }

    #[test]
    fn a_reading_with_too_many_writes_is_given_up() {
        let mut inspection = Inspection::default();
        inspection.begin();
        (0..=MOST_WRITES).for_each(|_| inspection.written(&generation(1)));
        let found = judge(&mut inspection, &[generation(4)], &[generation(1)]);
        assert!(matches!(found, Found::AsItShould));
    }
}
