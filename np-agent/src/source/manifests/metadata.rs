//! `metadata`: names, labels and times, with the API server's rules.

use std::collections::BTreeMap;

use super::fields::{Fields, Problems, Refused, all};
use super::tree::Place;
use crate::source::kind::Kind;
use crate::source::names;
use crate::source::prefixes;
use crate::source::time;
use np_policy::model::{SOURCE_PREFIXES, SourcePrefixes};

#[derive(Debug, Default)]
pub(super) struct Metadata {
    /// "default" when absent.
    pub namespace: String,
    pub name: String,
    /// Of the name: where the object is said to be.
    pub place: Place,
    pub labels: BTreeMap<String, String>,
    pub uid: Option<String>,
    /// Seconds since 1970; 0 when absent.
    pub created: i64,
    pub terminating: bool,
    /// Of all annotations the one that matters, on a pod.
    pub source_prefixes: Option<Box<SourcePrefixes>>,
}

/// The fields of ObjectMeta, current and former.
const KNOWN: [&str; 17] = [
    "name",
    "namespace",
    "labels",
    "annotations",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "finalizers",
    "generateName",
    "managedFields",
    "ownerReferences",
    "selfLink",
    "clusterName",
    "initializers",
];

pub(super) fn read<'n>(
    object: &Fields<'n>,
    kind: Kind,
    problems: &mut Problems<'n>,
) -> Result<Metadata, Refused> {
    let Some(metadata) = object.fields("metadata", problems)? else {
        return Err(object.missing(
            "metadata",
            problems,
            "give the object a name: \"metadata: {name: …}\"",
        ));
    };
    let known = match kind {
        Kind::Policy => metadata.only(&KNOWN, problems),
        Kind::Pod | Kind::Namespace | Kind::Node => Ok(()),
    };
    let annotations = metadata.texts("annotations", problems);
    let name = name(&metadata, kind, problems);
    let namespace = namespace(&metadata, kind, problems);
    let labels = labels(&metadata, problems);
    let uid = metadata.text("uid", problems);
    let created = created(&metadata, problems);
    let deleted = metadata.text("deletionTimestamp", problems);
    known?;
    let source_prefixes = annotations?
        .iter()
        .find(|(entry, _, _)| entry.key == SOURCE_PREFIXES)
        .and_then(|(_, _, text)| prefixes::read(text));
    let (name, place) = name?;
    Ok(Metadata {
        namespace: namespace?,
        name,
        place,
        labels: labels?,
        uid: uid?.filter(|uid| !uid.is_empty()).map(str::to_owned),
        created: created?,
        terminating: deleted?.is_some(),
        source_prefixes,
    })
}

fn name<'n>(
    metadata: &Fields<'n>,
    kind: Kind,
    problems: &mut Problems<'n>,
) -> Result<(String, Place), Refused> {
    let Some(at) = metadata.get("name") else {
        let remedy = "give the object a name: \"name: …\"";
        return Err(metadata.missing("name", problems, remedy));
    };
    let name = at.text(problems)?;
    // A namespace's name is also part of DNS names of its services.
    let valid =
        if kind == Kind::Namespace { names::dns_label(name) } else { names::dns_subdomain(name) };
    if !valid {
        return Err(at.refuse(problems, "not a valid name", name_rule(kind == Kind::Namespace)));
    }
    Ok((name.to_owned(), at.node.place))
}

fn namespace<'n>(
    metadata: &Fields<'n>,
    kind: Kind,
    problems: &mut Problems<'n>,
) -> Result<String, Refused> {
    let Some(at) = metadata.get("namespace").filter(|_| kind.namespaced()) else {
        return Ok("default".to_owned());
    };
    let namespace = at.text(problems)?;
    if namespace.is_empty() {
        return Ok("default".to_owned());
    }
    if !names::dns_label(namespace) {
        return Err(at.refuse(problems, "not a valid name of a namespace", name_rule(true)));
    }
    Ok(namespace.to_owned())
}

fn name_rule(label: bool) -> &'static str {
    if label {
        "use 1 to 63 lower-case letters, digits or \"-\", with a letter or digit at both ends"
    } else {
        "use lower-case letters, digits, \"-\" or \".\", with a letter or digit at both ends"
    }
}

fn labels<'n>(
    metadata: &Fields<'n>,
    problems: &mut Problems<'n>,
) -> Result<BTreeMap<String, String>, Refused> {
    let Some(at) = metadata.fields("labels", problems)? else { return Ok(BTreeMap::new()) };
    let labels = metadata.texts("labels", problems)?;
    let labels = all(labels.into_iter().map(|(entry, value_at, value)| {
        if !names::label_key(&entry.key) {
            return Err(at.refuse_key(entry, problems, "not a valid label", names::LABEL_KEY));
        }
        if !names::label_value(value) {
            return Err(value_at.refuse(problems, "not a valid label value", names::LABEL_VALUE));
        }
        Ok((entry.key.clone(), value.to_owned()))
    }))?;
    Ok(labels.into_iter().collect())
}

fn created<'n>(metadata: &Fields<'n>, problems: &mut Problems<'n>) -> Result<i64, Refused> {
    let Some(at) = metadata.get("creationTimestamp") else { return Ok(0) };
    let text = at.text(problems)?;
    time::seconds(text).ok_or_else(|| {
        at.refuse(
            problems,
            "not a timestamp",
            "write it as \"2024-05-06T07:08:09Z\" or leave it out",
        )
    })
}
