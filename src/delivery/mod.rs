//! Code that `import`, `mirror` and `serve` share: targets, decisions on bundles and datasets, and reports.

pub(crate) mod admission;
pub(crate) mod admitted;
pub(crate) mod candidates;
pub(crate) mod context;
pub(crate) mod decision;
pub mod image_pattern;
pub(crate) mod image_place;
pub(crate) mod ledger;
pub mod options;
pub(crate) mod registry_access;
pub mod registry_place;
pub(crate) mod report;
pub(crate) mod settings;
pub(crate) mod target_id;
pub mod web_url;
