//! What can be wrong with a dataset's content.

/// Content that is not what its kind must be. The text says what is wrong; whoever reports it
/// adds whose content it is.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ContentError(pub String);
