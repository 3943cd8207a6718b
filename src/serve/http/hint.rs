//! What to do about the errors of `serve::http`.

use crate::hint::Hint;
use crate::serve::http::error::ServeError;

impl Hint for ServeError {
    fn hint(&self) -> String {
        match self {
            ServeError::Tls { .. } => {
                "Give --tls-cert a PEM file with the server's certificate and those above it, and --tls-key one with its private key (not encrypted).".into()
            }
            ServeError::Listen { .. } => {
                "Name another with --listen ADDRESS:PORT, or end what listens there already (ss -ltnp shows it)."
                    .into()
            }
            ServeError::Setup(_) => "Check the limits for threads and open files, then run the command again.".into(),
        }
    }
}
