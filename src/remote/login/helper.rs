//! Credential helpers: programs named `docker-credential-NAME` that store logins elsewhere.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};

use crate::remote::login::credentials::Credentials;
use crate::util::text;

/// The maximum size of an answer in bytes. Tokens of cloud registries take a few KiB.
const MAX_ANSWER: u64 = 64 << 10;

/// Asks a helper in `search` (a value of `PATH`) for the login of a server; `None` if it has none. Its output
/// is never printed, because it may be a secret.
///
/// # Errors
/// If the helper cannot be run, fails, or returns an invalid answer.
pub(super) fn ask(helper: &str, server: &str, search: Option<&OsStr>) -> Result<Option<Credentials>, String> {
    let program = format!("docker-credential-{helper}");
    let shown = text::escape(&program);
    let unusable =
        |why: &dyn std::fmt::Display| format!("the credential helper {shown} cannot be used: {why}");
    if helper.contains('/') {
        return Err(unusable(&"its name is not valid"));
    }
    let mut command = Command::new(&program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(search) = search {
        command.env("PATH", search);
    }
    let mut child = command.spawn().map_err(|error| unusable(&error))?;
    if let Some(mut input) = child.stdin.take() {
        // A helper may answer without reading its input.
        let _ = input.write_all(server.as_bytes());
    }
    let (answer, said) = output_of(&mut child).map_err(|error| {
        let _ = child.kill();
        let _ = child.wait();
        unusable(&error)
    })?;
    if child.wait().map_err(|error| unusable(&error))?.success() {
        return match crate::util::json::from_slice(&answer) {
            Ok(Answer { username, secret }) if username == "<token>" => Ok(Some(Credentials::Token(secret))),
            Ok(Answer { username, secret }) => Ok(Some(Credentials::Password(username, secret))),
            Err(_) => Err(unusable(&"its answer has an unknown format")),
        };
    }
    // All helpers print this if they have no login for the server.
    let none = |said: &[u8]| String::from_utf8_lossy(said).contains("credentials not found");
    if none(&answer) || none(&said) {
        return Ok(None);
    }
    Err(format!("the credential helper {shown} failed"))
}

/// Reads the output of a program: its answer, and the beginning of its standard error.
fn output_of(child: &mut Child) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let (mut answer, errors) = (Vec::new(), child.stderr.take());
    // A second thread reads all of standard error: a program that blocks on it would not answer.
    let said = std::thread::Builder::new().name("credentials".into()).spawn(move || {
        let mut said = Vec::new();
        if let Some(mut errors) = errors {
            let _ = errors.by_ref().take(MAX_ANSWER).read_to_end(&mut said);
            let _ = io::copy(&mut errors, &mut io::sink());
        }
        said
    })?;
    if let Some(output) = child.stdout.take() {
        output.take(MAX_ANSWER + 1).read_to_end(&mut answer)?;
    }
    if answer.len() as u64 > MAX_ANSWER {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "its answer is larger than 64 KiB"));
    }
    Ok((answer, said.join().unwrap_or_default()))
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}
