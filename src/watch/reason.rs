//! `reason.json`, which says why the files beside it were processed or quarantined.
//!
//! This module handles the content of the file, but not the directories.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bundle::open_regular;
use crate::error::{Category, Error};
use crate::import::report::ImportReport;
use crate::util::text::{escape, with_name};

/// The outcome for a bundle, and the directory into which its files were moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Disposition {
    /// It was imported, or is not needed.
    Processed,
    /// It was rejected.
    Quarantined,
}

impl Disposition {
    /// Returns its word in JSON and in the environment of the operator's command.
    pub fn as_str(self) -> &'static str {
        match self {
            Disposition::Processed => "processed",
            Disposition::Quarantined => "quarantined",
        }
    }
}

/// The outcome for a bundle, with the reasons.
pub(crate) struct BundleVerdict<'v> {
    pub(crate) outcome: Disposition,
    pub(crate) category: Option<Category>,
    pub(crate) why: Option<String>,
    pub(crate) errors: Vec<Error>,
    pub(crate) stray: bool,
    pub(crate) details: Details<'v>,
}

impl BundleVerdict<'_> {
    /// Returns the progress line. If an error names the bundle, the line does not repeat the name.
    pub(crate) fn summary(&self, key: &str) -> String {
        let name = escape(key);
        let said = match (&self.why, &self.details) {
            (None, _) => name,
            (Some(why), Details::GivenUp { .. }) => format!("{name}: {why}"),
            (Some(why), _) => with_name(&name, why),
        };
        format!("{:<12} {said}", self.outcome.as_str())
    }
}

/// The content of `reason.json`.
#[derive(Serialize)]
pub(crate) struct Reason<'r> {
    pub(crate) outcome: Disposition,
    pub(crate) bundle: String,
    pub(crate) exit_code: u8,
    pub(crate) at: Timestamp,
    pub(crate) errors: Vec<Value>,
    /// Whether the files only had a bundle's name. Such files are not put back when more files of
    /// the bundle arrive.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) stray: bool,
    #[serde(flatten)]
    pub(crate) details: Details<'r>,
}

/// The events that led to the outcome.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Details<'r> {
    /// It was imported, or the import ended without a report on a target.
    Import {
        /// The report of the import.
        import: Value,
    },
    /// It had waited too long, or waiting bundles took too much space.
    GivenUp {
        /// The reason.
        given_up: &'r str,
        /// The time for which it had waited.
        waited_seconds: u64,
    },
    /// Files without a trusted signature that were quarantined together.
    Unsigned {
        /// Their names.
        bundles: &'r [String],
    },
}

impl Details<'_> {
    /// Describes an import from `place`, a temporary directory whose path is removed from the report.
    pub(crate) fn import(report: Option<&ImportReport>, place: &str) -> Self {
        let report = report.and_then(|report| serde_json::to_value(report).ok());
        Details::Import { import: report.map_or(Value::Null, |report| without(report, place)) }
    }

    /// Describes a bundle that the watch stopped waiting for.
    pub(crate) fn given_up(why: &'static str, waited: Duration) -> Self {
        Details::GivenUp { given_up: why, waited_seconds: waited.as_secs() }
    }
}

impl Reason<'_> {
    /// Returns the content of the file, with sorted keys.
    ///
    /// # Errors
    /// If it cannot be serialized as JSON.
    pub(crate) fn to_bytes(&self) -> serde_json::Result<Vec<u8>> {
        let mut text = serde_json::to_vec_pretty(&serde_json::to_value(self)?)?;
        text.push(b'\n');
        Ok(text)
    }
}

/// The fields that are read from a `reason.json`.
#[derive(Deserialize)]
struct EarlierReason {
    bundle: String,
    exit_code: u8,
    #[serde(default)]
    stray: bool,
}

/// Returns whether a `reason.json` says that a bundle of this name was damaged or incomplete, so that later files may
/// complete it. Without a name, any bundle matches, and files that are not bundles but may be
/// volumes match too.
pub(crate) fn may_be_completed(reason: &Path, bundle: Option<&str>) -> bool {
    /// The maximum size in bytes, larger than any report.
    const MAX: u64 = 16 << 20;
    let read = || -> Option<EarlierReason> {
        let mut text = Vec::new();
        let (file, _) = open_regular(reason).ok()?;
        file.take(MAX).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    };
    read().is_some_and(|earlier| {
        let category = Category::from_exit_code(earlier.exit_code);
        let lacks = matches!(category, Some(Category::Verification | Category::Incomplete));
        let fits = match bundle {
            Some(bundle) => lacks && earlier.bundle == bundle,
            None => lacks || category == Some(Category::Usage),
        };
        fits && !earlier.stray
    })
}

/// Returns a report without the path of the temporary directory.
fn without(report: Value, place: &str) -> Value {
    match report {
        Value::String(text) => Value::String(text.replace(place, "")),
        Value::Array(all) => all.into_iter().map(|value| without(value, place)).collect(),
        Value::Object(all) => all.into_iter().map(|(key, value)| (key, without(value, place))).collect(),
        other => other,
    }
}

/// Returns the errors as `reason.json` has them.
pub(crate) fn errors_as_json(errors: &[Error]) -> Vec<Value> {
    errors.iter().map(Error::to_json).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files of earlier versions must stay readable: names of fields and exit codes are a contract.
    #[test]
    fn a_reason_of_an_earlier_version_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reason.json");
        for (text, expected) in [
            (r#"{"bundle":"a.tar","exit_code":4,"import":null,"errors":[]}"#, true),
            (r#"{"bundle":"a.tar","exit_code":6}"#, true),
            (r#"{"bundle":"a.tar","exit_code":4,"stray":true}"#, false),
            (r#"{"bundle":"b.tar","exit_code":4}"#, false),
            (r#"{"bundle":"a.tar","exit_code":5}"#, false),
            (r#"{"why":"a test"}"#, false),
            ("", false),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(may_be_completed(&path, Some("a.tar")), expected, "{text}");
        }
    }

    #[test]
    fn a_reason_has_only_the_fields_of_its_case() {
        let reason = |details| Reason {
            outcome: Disposition::Quarantined,
            bundle: "a.tar".into(),
            exit_code: 6,
            at: "2026-11-21T12:00:00Z".parse().unwrap(),
            errors: Vec::new(),
            stray: false,
            details,
        };
        let text = |details| String::from_utf8(reason(details).to_bytes().unwrap()).unwrap();
        let given_up = text(Details::given_up("it has waited too long", Duration::from_secs(9)));
        let expected = r#"{
  "at": "2026-11-21T12:00:00Z",
  "bundle": "a.tar",
  "errors": [],
  "exit_code": 6,
  "given_up": "it has waited too long",
  "outcome": "quarantined",
  "waited_seconds": 9
}
"#;
        assert_eq!(given_up, expected);
        assert!(text(Details::import(None, "/x/")).contains("\"import\": null"));
    }
}
