//! Credential helpers: programs called `docker-credential-NAME` that keep logins elsewhere.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::remote::login::credentials::Credentials;
use crate::util::text;

/// Asks a helper, which is looked for in `search` (a value of PATH), for the login of a server; `None` if it has
/// none. What it prints is not repeated: it may be a secret.
///
/// # Errors
/// What is wrong with the helper.
pub(super) fn ask(helper: &str, server: &str, search: Option<&OsStr>) -> Result<Option<Credentials>, String> {
    let program = format!("docker-credential-{helper}");
    let shown = text::escape(&program);
    let unusable =
        |why: &dyn std::fmt::Display| format!("the credential helper {shown} cannot be used: {why}");
    if helper.contains('/') {
        return Err(unusable(&"its name is none"));
    }
    let mut command = Command::new(&program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(search) = search {
        command.env("PATH", search);
    }
    let mut child = command.spawn().map_err(|error| unusable(&error))?;
    if let Some(mut input) = child.stdin.take() {
        // One that does not read its input may know its answer all the same.
        let _ = input.write_all(server.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| unusable(&error))?;
    if output.status.success() {
        return match crate::util::json::from_slice(&output.stdout) {
            Ok(Answer { username, secret }) if username == "<token>" => Ok(Some(Credentials::Token(secret))),
            Ok(Answer { username, secret }) => Ok(Some(Credentials::Password(username, secret))),
            Err(_) => Err(unusable(&"its answer has another form")),
        };
    }
    // Every helper says so if it has none for this server.
    let none = |said: &[u8]| String::from_utf8_lossy(said).contains("credentials not found");
    if none(&output.stdout) || none(&output.stderr) {
        return Ok(None);
    }
    Err(format!("the credential helper {shown} failed"))
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}
