//! The hints for the errors of fetching.

use crate::hint::Hint;
use crate::source::error::SourceError;

impl Hint for SourceError {
    fn hint(&self) -> String {
        const DAMAGED: &str = "Run the command again; if this happens again, use another source, or look for a proxy that changes data.";
        match self {
            SourceError::Remote(error) => error.hint(),
            SourceError::Vex { hint, .. } => hint.clone(),
            SourceError::TooLarge { .. } => {
                "Check the address: nothing that Trivy uses is this large.".into()
            }
            SourceError::Manifest { .. } => {
                "Check the repository and its tag: a dataset of Trivy is a single manifest.".into()
            }
            SourceError::Image { hint, .. } => (*hint).into(),
            SourceError::Length { .. }
            | SourceError::Short { .. }
            | SourceError::Long { .. }
            | SourceError::Digest { .. } => DAMAGED.into(),
            SourceError::Quorum { .. } => {
                "Wait for registries that lag behind (--quorum-wait 1h), add sources, or find out why one of them has different data."
                    .into()
            }
            SourceError::Local { .. } => {
                "Check that the path is right and that this user may read it; a URL begins with https://.".into()
            }
            SourceError::Temporary { .. } => {
                "Free space there, or set TMPDIR to a directory with more space.".into()
            }
            SourceError::Layout { .. } => {
                "Give a directory written by `oras copy --to-oci-layout`, skopeo, crane or regctl, and the tag that it was written with.".into()
            }
            SourceError::Locations { tried, .. } => {
                tried.last().map_or_else(|| DAMAGED.into(), |(_, error)| error.hint())
            }
        }
    }
}
