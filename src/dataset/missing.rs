//! Missing items: datasets and images that an exporter should have carried but could not get. The list is in
//! the signed payload and in the heartbeat, so that the importer can report why a dataset is old.

use serde::{Deserialize, Serialize};

use crate::dataset::DatasetRef;
use crate::util::text::escape;

/// A dataset or an image that should be in the bundle but is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingItem {
    /// The name of the dataset, or the full name of the image.
    pub name: String,
    /// The tag of the dataset, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The reason, for information only.
    pub why: String,
}

impl MissingItem {
    /// The limit of items in a payload or a heartbeat, which is the limit of datasets and images.
    pub const MAX: usize = 128;
    /// The longest name in bytes.
    const MAX_NAME: usize = 512;
    /// The longest reason that is written, in bytes, because the size of the manifest is limited.
    const MAX_WHY: usize = 400;
    /// The longest reason that is accepted, in bytes.
    const MAX_READ: usize = 4096;

    /// Creates the item for a dataset.
    pub fn dataset(dataset: &DatasetRef, why: &str) -> Self {
        MissingItem {
            name: dataset.name.to_string(),
            tag: Some(dataset.tag.clone()),
            why: MissingItem::shortened(why),
        }
    }

    /// Creates the item for an image.
    pub fn image(name: &str, why: &str) -> Self {
        MissingItem { name: name.to_owned(), tag: None, why: MissingItem::shortened(why) }
    }

    fn shortened(why: &str) -> String {
        let why = escape(why);
        if why.len() <= Self::MAX_WHY {
            return why;
        }
        let ends = why.char_indices().map(|(at, _)| at).take_while(|at| *at <= Self::MAX_WHY);
        format!("{} …", &why[..ends.last().unwrap_or(0)])
    }

    /// Whether it is this dataset, with any tag, or this image. `key` is the reference of a dataset or the name of an
    /// image.
    pub fn is(&self, key: &str) -> bool {
        self.name == key || key.parse::<DatasetRef>().is_ok_and(|dataset| dataset.name.as_str() == self.name)
    }

    /// Checks the rules for a list of missing items.
    ///
    /// # Errors
    /// If there are too many, or one has no name or too long a text. The text is a clause about the list.
    pub fn check(items: &[MissingItem]) -> Result<(), String> {
        let is_bad = |item: &&MissingItem| {
            item.name.is_empty()
                || item.name.len() > Self::MAX_NAME
                || item.why.len() > Self::MAX_READ
                || item.tag.as_ref().is_some_and(|tag| tag.len() > Self::MAX_NAME)
        };
        if items.len() > Self::MAX {
            return Err(format!("names {} missing items (limit: {})", items.len(), Self::MAX));
        }
        match items.iter().find(is_bad) {
            Some(bad) => Err(format!(
                "names a missing item with invalid lengths: {} bytes for the name, {} for the tag, and {} for the reason",
                bad.name.len(),
                bad.tag.as_ref().map_or(0, String::len),
                bad.why.len()
            )),
            None => Ok(()),
        }
    }
}

/// Writes the reference of a dataset, such as `trivy-db-2`, or the name of an image.
impl std::fmt::Display for MissingItem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.tag {
            Some(tag) => write!(f, "{}-{}", escape(&self.name), escape(tag)),
            None => f.write_str(&escape(&self.name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_from_servers_are_shortened_and_escaped() {
        let dataset: DatasetRef = "vex-corp-0.1".parse().unwrap();
        for (why, most) in [("no\u{1b}[2J", 40), (&"é".repeat(4000), 410)] {
            let item = MissingItem::dataset(&dataset, why);
            assert!(item.why.len() <= most && !item.why.contains('\u{1b}'), "{}", item.why);
        }
        let item = MissingItem::dataset(&dataset, "x");
        assert_eq!(item.to_string(), "vex-corp-0.1");
        assert!(item.is("vex-corp-0.1") && item.is("vex-corp-0.2") && !item.is("vex-hub-0.1"));
        assert!(MissingItem::image("ghcr.io/a/b:1", "x").is("ghcr.io/a/b:1"));
    }

    #[test]
    fn a_list_from_outside_has_limits() {
        let item = |name: &str, why: usize| MissingItem::image(name, &"x".repeat(why));
        assert_eq!(MissingItem::check(&[item("a", 3)]), Ok(()));
        assert!(MissingItem::check(&[item("", 3)]).is_err());
        assert!(MissingItem::check(&[item(&"a".repeat(513), 3)]).is_err());
        assert!(MissingItem::check(&vec![item("a", 3); MissingItem::MAX + 1]).is_err());
        let long = MissingItem { why: "x".repeat(5000), ..item("a", 3) };
        assert!(MissingItem::check(&[long]).is_err());
    }
}
