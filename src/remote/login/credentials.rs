//! The credentials for a server.

use std::fmt;

/// The credentials for one repository.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// A name and a password.
    Password(String, String),
    /// A refresh token, which some registries use instead of a password.
    Token(String),
}

// Logs and failed assertions must not show a secret.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credentials::Password(..) => "a password",
            Credentials::Token(_) => "a token",
        })
    }
}
