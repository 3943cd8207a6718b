//! What `import`, `mirror` and `serve` share: which targets there are, what each takes, and what is reported of it.

pub(crate) mod settings;

pub(crate) mod registry_access;
pub mod web_url;

pub mod image_pattern;
pub(crate) mod image_place;

pub(crate) mod admission;
pub(crate) mod admitted;
pub(crate) mod candidates;
pub(crate) mod decision;
pub(crate) mod ledger;
pub mod registry_place;
pub(crate) mod report;
