//! Hints for the errors of `serve::http`.

use crate::hint::Hint;
use crate::serve::http::error::ServeError;

impl Hint for ServeError {
    fn hint(&self) -> String {
        match self {
            ServeError::Tls { .. } => {
                "Give --tls-cert a PEM file with the server's certificate and its intermediate certificates, and --tls-key one with the private key (not encrypted).".into()
            }
            ServeError::Listen { .. } => {
                "Give another address with --listen ADDRESS:PORT, or stop the program that uses this address (`ss -ltnp` shows the program)."
                    .into()
            }
            ServeError::Setup(_) => "Check the limits for threads and open files, then run the command again.".into(),
        }
    }
}
