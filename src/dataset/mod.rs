//! Datasets: the data that Trivy downloads, and the rules for valid content.
//!
//! This module defines names, media types, default sources and the form of valid content. It opens
//! neither files nor connections: it reads content from a reader and passes it to a [`Sink`].

mod bolt;
pub mod catalogue;
pub mod check;
pub mod examine;
pub mod layer;
mod missing;
mod name;
mod selection;
mod sqlite;
mod tree;
pub mod vex;
pub mod vex_copy;
mod vex_index;
mod zip_archive;

pub use catalogue::Kind;
pub use check::ContentError;
pub use missing::MissingItem;
pub use name::{DatasetRef, InvalidName, Name};
pub use selection::Selection;
pub use tree::{Contents, Discard, File, InvalidPath, RelPath, Sink, Tree};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_a_closed_set_with_one_spelling_each() {
        for good in ["trivy-db", "trivy-java-db", "trivy-checks", "vex-hub", "vex-corp.internal"] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for bad in ["", "db", "Trivy-DB", "vex-", "vex-default", "vex-../x", "vex-A", "vex-.x"] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
        assert_eq!(Name::vex("default").unwrap().as_str(), "vex-hub");
        assert!(Name::vex("hub").is_err(), "would be taken for VEX Hub");
    }

    #[test]
    fn a_dataset_with_its_tag_is_parsed_from_its_text() {
        for (text, name, tag) in [("trivy-db-2", "trivy-db", "2"), ("vex-hub-0.1", "vex-hub", "0.1")] {
            let dataset: DatasetRef = text.parse().unwrap();
            assert_eq!((dataset.name.as_str(), dataset.tag.as_str()), (name, tag));
            assert_eq!(dataset.to_string(), text);
        }
        for none in ["", "trivy-db", "image:ghcr.io/a/b:1", "db-2"] {
            assert!(none.parse::<DatasetRef>().is_err(), "{none}");
        }
    }

    #[test]
    fn paths_cannot_escape_their_directory() {
        for good in ["trivy.db", "policies/kubernetes/x y.rego", "a/b/c"] {
            assert!(good.parse::<RelPath>().is_ok(), "{good}");
        }
        for bad in ["", "/etc/passwd", "a//b", "./a", "a/..", "../a", "a\\b", "a\0b", "a\x1b[2J", "a/"] {
            assert!(bad.parse::<RelPath>().is_err(), "{bad:?}");
        }
        let path: RelPath = "top/0.1/index.json".parse().unwrap();
        assert_eq!(path.below("top").unwrap().as_str(), "0.1/index.json");
        assert_eq!(path.below("").unwrap(), path);
        assert_eq!(path.below("to"), None);
    }
}
