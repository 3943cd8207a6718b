//! Reads the `index.json` of a VEX repository (Trivy v0.74.0, `pkg/vex/repo`: `RawIndex`). It does not keep the
//! packages, because a file of 16 MiB may list 1,000,000 of them.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::util::json::is_go_key;

/// The summary of an index.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct VexIndex {
    pub(super) updated_at: Option<Timestamp>,
    /// The number of packages.
    pub(super) listed: u64,
    /// The number of packages whose document exists.
    pub(super) found: u64,
}

/// Returns whether a document exists at a location. The second argument is its format, empty if the index names
/// none.
type IsThere<'a> = &'a dyn Fn(&str, &str) -> bool;

impl VexIndex {
    /// Reads an index.
    ///
    /// # Errors
    /// If the bytes are not one JSON object of this form.
    pub(super) fn parse(json: &[u8], is_there: IsThere<'_>) -> Result<Self, serde_json::Error> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let index = reader.deserialize_map(IndexVisitor(is_there))?;
        reader.end()?;
        Ok(index)
    }
}

/// Reads the next key of an object, and returns the wanted key that Go would match with it; empty if there is no
/// such key, and `None` at the end of the object.
fn next_key<'de, A: MapAccess<'de>>(
    map: &mut A,
    wanted: [&'static str; 2],
) -> Result<Option<&'static str>, A::Error> {
    let key = map.next_key::<Cow<'de, str>>()?;
    let is_it = |key: &str| wanted.into_iter().find(|wanted| is_go_key(key.as_bytes(), wanted));
    Ok(key.map(|key| is_it(&key).unwrap_or_default()))
}

struct IndexVisitor<'a>(IsThere<'a>);

impl<'de> Visitor<'de> for IndexVisitor<'_> {
    type Value = VexIndex;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an index of packages")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<VexIndex, A::Error> {
        let (mut updated_at, mut packages) = (None, None);
        while let Some(key) = next_key(&mut map, ["updated_at", "packages"])? {
            match key {
                "updated_at" if updated_at.is_some() => {
                    return Err(A::Error::duplicate_field("updated_at"));
                }
                "updated_at" => updated_at = Some(map.next_value()?),
                "packages" if packages.is_some() => {
                    return Err(A::Error::duplicate_field("packages"));
                }
                "packages" => packages = Some(map.next_value_seed(PackagesVisitor(self.0))?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let packages = packages.ok_or_else(|| A::Error::missing_field("packages"))?;
        let (listed, found) = packages;
        Ok(VexIndex { updated_at: updated_at.flatten(), listed, found })
    }
}

struct PackagesVisitor<'a>(IsThere<'a>);

impl<'de> DeserializeSeed<'de> for PackagesVisitor<'_> {
    type Value = (u64, u64);

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(u64, u64), D::Error> {
        reader.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for PackagesVisitor<'_> {
    type Value = (u64, u64);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of packages")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(u64, u64), A::Error> {
        let (mut listed, mut found) = (0, 0);
        while let Some(there) = list.next_element_seed(PackageVisitor(self.0))? {
            listed += 1;
            found += u64::from(there);
        }
        Ok((listed, found))
    }
}

/// Reads a package and returns whether its document exists.
struct PackageVisitor<'a>(IsThere<'a>);

impl<'de> DeserializeSeed<'de> for PackageVisitor<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<bool, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for PackageVisitor<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a package")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let (mut location, mut format) = (None::<Cow<'de, str>>, None::<Cow<'de, str>>);
        while let Some(key) = next_key(&mut map, ["location", "format"])? {
            match key {
                "location" if location.is_some() => {
                    return Err(A::Error::duplicate_field("location"));
                }
                "location" => location = Some(map.next_value()?),
                // Go uses the last of several keys, and ignores `null`.
                "format" => format = map.next_value()?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let location = location.ok_or_else(|| A::Error::missing_field("location"))?;
        Ok((self.0)(&clean(&location), format.as_deref().unwrap_or_default()))
    }
}

/// Normalizes a location as the file system does when Trivy opens it.
fn clean(location: &str) -> Cow<'_, str> {
    let is_plain = !location.split('/').any(|part| matches!(part, "" | "."));
    if is_plain {
        return location.into();
    }
    let parts = location.split('/').filter(|part| !matches!(*part, "" | "."));
    parts.collect::<Vec<_>>().join("/").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<VexIndex, String> {
        VexIndex::parse(json.as_bytes(), &|location, _| location == "pkg/a.json").map_err(|e| e.to_string())
    }

    #[test]
    fn packages_and_their_documents_are_counted() {
        let packages = |json: &str| parse(json).map(|index| (index.listed, index.found)).unwrap();
        assert_eq!(packages(r#"{"packages":[]}"#), (0, 0));
        assert_eq!(packages(r#"{"packages":[{"location":"b"},{"location":"c"}]}"#), (2, 0));
        let mixed = r#"{"x":{},"packages":[{"id":"x","location":"pkg\/a.json"},{"location":"b","y":[1]}]}"#;
        assert_eq!(packages(mixed), (2, 1));
        assert_eq!(packages(r#"{"packages":[{"location":"./pkg//a.json","format":null}]}"#), (1, 1));
        // Go, and therefore Trivy, ignores the case of keys.
        assert_eq!(packages(r#"{"Packages":[{"LOCATION":"pkg/a.json"},{"Id":"x","Location":"b"}]}"#), (2, 1));
    }

    #[test]
    fn the_location_and_the_format_are_read_in_any_order() {
        let json = r#"{"packages":[{"format":"csaf","location":"a"},{"location":"b","format":"x"},{"location":"c"}]}"#;
        let seen = std::cell::RefCell::new(Vec::new());
        let note = |location: &str, format: &str| {
            seen.borrow_mut().push(format!("{location}={format}"));
            true
        };
        VexIndex::parse(json.as_bytes(), &note).unwrap();
        assert_eq!(*seen.borrow(), ["a=csaf", "b=x", "c="]);
    }

    #[test]
    fn the_date_may_be_missing() {
        let date = |json: &str| parse(json).unwrap().updated_at;
        let wanted = "2026-01-15T06:00:00Z".parse().unwrap();
        assert_eq!(date(r#"{"updated_at":"2026-01-15T06:00:00Z","packages":[]}"#), Some(wanted));
        assert_eq!(date(r#"{"packages":[]}"#), None);
        assert_eq!(date(r#"{"packages":[],"updated_at":null}"#), None);
    }

    #[test]
    fn only_objects_of_this_form_are_an_index() {
        for bad in [
            "",
            "[]",
            "{}",
            "null",
            r#"{"packages":null}"#,
            r#"{"packages":{}}"#,
            r#"{"packages":[["a"]]}"#,
            r#"{"packages":[{}]}"#,
            r#"{"packages":[{"location":1}]}"#,
            r#"{"packages":[{"location":"a","location":"b"}]}"#,
            r#"{"packages":[],"packages":[]}"#,
            r#"{"packages":[],"Packages":[]}"#,
            r#"{"packages":[{"location":"a","Location":"b"}]}"#,
            r#"{"packages":[],"updated_at":"tomorrow"}"#,
            r#"{"packages":[]} x"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
