//! kubectl's global flags: taken as kubectl takes them, and handed on unread.

use std::ffi::OsString;

use clap::error::Error;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};

/// How kubectl reads a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `--context NAME` or `--context=NAME`.
    Value,
    /// `--match-server-version` or `--match-server-version=true`.
    Switch,
}

/// What `kubectl options` lists, except for --namespace, which is about the pods asked about and not
/// about the agents.
pub const FLAGS: &[(&str, Option<char>, Kind)] = &[
    ("as", None, Kind::Value),
    ("as-group", None, Kind::Value),
    ("as-uid", None, Kind::Value),
    ("as-user-extra", None, Kind::Value),
    ("cache-dir", None, Kind::Value),
    ("certificate-authority", None, Kind::Value),
    ("client-certificate", None, Kind::Value),
    ("client-key", None, Kind::Value),
    ("cluster", None, Kind::Value),
    ("context", None, Kind::Value),
    ("disable-compression", None, Kind::Switch),
    ("insecure-skip-tls-verify", None, Kind::Switch),
    ("kubeconfig", None, Kind::Value),
    ("kuberc", None, Kind::Value),
    ("log-flush-frequency", None, Kind::Value),
    ("match-server-version", None, Kind::Switch),
    ("password", None, Kind::Value),
    ("profile", None, Kind::Value),
    ("profile-output", None, Kind::Value),
    ("request-timeout", None, Kind::Value),
    ("server", Some('s'), Kind::Value),
    ("tls-server-name", None, Kind::Value),
    ("token", None, Kind::Value),
    ("user", None, Kind::Value),
    ("username", None, Kind::Value),
    ("v", Some('v'), Kind::Value),
    ("vmodule", None, Kind::Value),
    ("warnings-as-errors", None, Kind::Switch),
];

/// The global flags of one run, as words for kubectl.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub Vec<OsString>);

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        command.args(FLAGS.iter().map(|(name, short, kind)| {
            // `kubectl options` describes them.
            let flag = Arg::new(*name).long(*name).global(true).hide(true);
            let flag = flag.action(ArgAction::Append).value_parser(value_parser!(OsString));
            let flag = match short {
                Some(short) => flag.short(*short),
                None => flag,
            };
            match kind {
                Kind::Value => flag.num_args(1),
                Kind::Switch => {
                    flag.num_args(0..=1).require_equals(true).default_missing_value("true")
                }
            }
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut words = Vec::new();
        for (name, ..) in FLAGS {
            for value in matches.get_many::<OsString>(name).into_iter().flatten() {
                let mut word = OsString::from(format!("--{name}="));
                word.push(value);
                words.push(word);
            }
        }
        Ok(Self(words))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
