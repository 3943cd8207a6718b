//! Reads the `index.json` of a VEX repository (Trivy v0.74.0, pkg/vex/repo: `RawIndex`) without keeping its
//! packages, because a file of 16 MiB may list a million of them.

use std::fmt;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What an index says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct VexIndex {
    pub(super) updated_at: Option<Timestamp>,
    pub(super) packages: Packages,
}

/// Whether the documents of the packages that an index lists are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packages {
    /// It lists no packages.
    Empty,
    /// None of the documents is there.
    Missing,
    /// At least one of the documents is there.
    Found,
}

/// Says whether there is a document at a location.
type IsThere<'a> = &'a dyn Fn(&str) -> bool;

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

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum IndexKey {
    UpdatedAt,
    Packages,
    #[serde(other)]
    Other,
}

struct IndexVisitor<'a>(IsThere<'a>);

impl<'de> Visitor<'de> for IndexVisitor<'_> {
    type Value = VexIndex;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an index of packages")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<VexIndex, A::Error> {
        let (mut updated_at, mut packages) = (None, None);
        while let Some(key) = map.next_key()? {
            match key {
                IndexKey::UpdatedAt if updated_at.is_some() => {
                    return Err(A::Error::duplicate_field("updated_at"));
                }
                IndexKey::UpdatedAt => updated_at = Some(map.next_value()?),
                IndexKey::Packages if packages.is_some() => {
                    return Err(A::Error::duplicate_field("packages"));
                }
                IndexKey::Packages => packages = Some(map.next_value_seed(PackagesVisitor(self.0))?),
                IndexKey::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let packages = packages.ok_or_else(|| A::Error::missing_field("packages"))?;
        Ok(VexIndex { updated_at: updated_at.flatten(), packages })
    }
}

struct PackagesVisitor<'a>(IsThere<'a>);

impl<'de> DeserializeSeed<'de> for PackagesVisitor<'_> {
    type Value = Packages;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Packages, D::Error> {
        reader.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for PackagesVisitor<'_> {
    type Value = Packages;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of packages")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Packages, A::Error> {
        let mut packages = Packages::Empty;
        while let Some(found) = list.next_element_seed(PackageVisitor(self.0))? {
            packages = if found || packages == Packages::Found { Packages::Found } else { Packages::Missing };
        }
        Ok(packages)
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum PackageKey {
    Location,
    #[serde(other)]
    Other,
}

/// Finds out whether a package's document is there.
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
        let mut found = None;
        while let Some(key) = map.next_key()? {
            match key {
                PackageKey::Location if found.is_some() => {
                    return Err(A::Error::duplicate_field("location"));
                }
                PackageKey::Location => found = Some(map.next_value_seed(LocationVisitor(self.0))?),
                PackageKey::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        found.ok_or_else(|| A::Error::missing_field("location"))
    }
}

struct LocationVisitor<'a>(IsThere<'a>);

impl<'de> DeserializeSeed<'de> for LocationVisitor<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<bool, D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for LocationVisitor<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a package's location")
    }

    fn visit_str<E: Error>(self, location: &str) -> Result<bool, E> {
        Ok((self.0)(location))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<VexIndex, String> {
        VexIndex::parse(json.as_bytes(), &|location| location == "pkg/a.json").map_err(|e| e.to_string())
    }

    #[test]
    fn one_document_that_is_there_is_enough() {
        let packages = |json: &str| parse(json).unwrap().packages;
        assert_eq!(packages(r#"{"packages":[]}"#), Packages::Empty);
        assert_eq!(packages(r#"{"packages":[{"location":"b"},{"location":"c"}]}"#), Packages::Missing);
        let mixed = r#"{"x":{},"packages":[{"id":"x","location":"pkg\/a.json"},{"location":"b","y":[1]}]}"#;
        assert_eq!(packages(mixed), Packages::Found);
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
            r#"{"packages":[],"updated_at":"tomorrow"}"#,
            r#"{"packages":[]} x"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
