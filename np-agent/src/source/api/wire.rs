//! What a server answers: a page of a list, and the lines of a watch. Objects stay text, so that
//! one that cannot be understood hides no other.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A page of a list.
#[derive(Debug)]
pub(super) struct Page<'a> {
    pub resource_version: String,
    /// Where the next page begins; none behind the last one.
    pub token: Option<String>,
    pub items: Vec<&'a RawValue>,
}

impl<'a> Page<'a> {
    pub fn read(bytes: &'a [u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Wire<'a> {
            metadata: Metadata,
            #[serde(borrow, default)]
            items: Option<Vec<&'a RawValue>>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Metadata {
            #[serde(default)]
            resource_version: Option<String>,
            #[serde(rename = "continue", default)]
            token: Option<String>,
        }
        let Wire { metadata, items } =
            serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let resource_version = metadata.resource_version.filter(|version| !version.is_empty());
        Ok(Self {
            resource_version: resource_version.ok_or("a list without a resourceVersion")?,
            token: metadata.token.filter(|token| !token.is_empty()),
            items: items.unwrap_or_default(),
        })
    }
}

/// A line of a watch.
#[derive(Debug)]
pub(super) enum Line<'a> {
    /// ADDED or MODIFIED.
    Set(&'a RawValue),
    /// DELETED, with the object as it was last.
    Gone(&'a RawValue),
    /// Nothing has changed up to this resourceVersion.
    Bookmark(String),
    Error(Status),
}

/// What a server says of a request that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Status {
    #[serde(default)]
    pub code: u16,
    #[serde(default)]
    pub reason: String,
    #[serde(default)]
    pub message: String,
}

impl Status {
    /// What changed since is no longer known there.
    pub fn expired(&self) -> bool {
        self.code == 410 || matches!(self.reason.as_str(), "Expired" | "Gone")
    }
}

impl<'a> Line<'a> {
    pub fn read(bytes: &'a [u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Wire<'a> {
            #[serde(borrow, rename = "type")]
            kind: Cow<'a, str>,
            #[serde(borrow)]
            object: &'a RawValue,
        }
        let Wire { kind, object } =
            serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match &*kind {
            "ADDED" | "MODIFIED" => Ok(Line::Set(object)),
            "DELETED" => Ok(Line::Gone(object)),
            "BOOKMARK" => Ok(Line::Bookmark(version(object)?)),
            "ERROR" => Ok(Line::Error(serde_json::from_str(object.get()).unwrap_or_default())),
            other => Err(format!("an event of a type that is not known: {other:?}")),
        }
    }
}

fn version(bookmark: &RawValue) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Wire {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        resource_version: String,
    }
    let wire: Wire = serde_json::from_str(bookmark.get()).map_err(|error| error.to_string())?;
    Ok(wire.metadata.resource_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_in_either_order_of_its_fields() {
        for text in [
            r#"{"type":"ADDED","object":{"a":1}}"#,
            r#"{"object":{"a":1},"type":"ADDED","further":[]}"#,
        ] {
            let line = Line::read(text.as_bytes()).expect("it is an event");
            assert!(matches!(line, Line::Set(object) if object.get() == r#"{"a":1}"#), "{text}");
        }
    }

    #[test]
    fn what_is_no_event_says_why() {
        for (text, problem) in [
            ("", "EOF"),
            (r#"{"type":"ADDED","object":{"metadata":{"na"#, "EOF"),
            (r#"{"type":"ADDED"}"#, "object"),
            (r#"{"type":"RENAMED","object":{}}"#, "RENAMED"),
            (r#"{"type":"BOOKMARK","object":{}}"#, "metadata"),
            ("[]", "invalid"),
        ] {
            let error = Line::read(text.as_bytes()).expect_err(text);
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn an_error_that_is_no_status_is_one_all_the_same() {
        let line = Line::read(br#"{"type":"ERROR","object":"no"}"#).expect("it is an event");
        assert!(matches!(line, Line::Error(status) if status == Status::default()));
    }

    #[test]
    fn a_page_without_items_is_an_empty_one_and_without_a_version_none() {
        let page =
            Page::read(br#"{"metadata":{"resourceVersion":"7","continue":""},"items":null}"#);
        let page = page.expect("it is a page");
        assert_eq!((page.items.len(), page.token, &*page.resource_version), (0, None, "7"));
        assert!(Page::read(br#"{"metadata":{},"items":[]}"#).is_err());
    }
}
