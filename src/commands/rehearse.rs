//! x
use super::Outcome;
use crate::cli::Rehearse;
use crate::error::Error;
use crate::progress::Progress;
pub(super) fn run(_: &Rehearse, _: &dyn Progress) -> Result<Outcome, Error> { Err(Error::usage("not yet", "")) }
