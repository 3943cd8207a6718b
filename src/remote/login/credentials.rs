//! What is shown to a server to log in.

use std::fmt;

/// What is known for logging in to one repository.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// A name and a password.
    Password(String, String),
    /// A refresh token, which some registries give in place of a password.
    Token(String),
}

// Logs and failed assertions show no secret.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credentials::Password(..) => "a password",
            Credentials::Token(_) => "a token",
        })
    }
}
