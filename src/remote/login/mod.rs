//! The sources of logins for repositories: the files of `podman login` and `docker login`, and the helpers
//! that these files name.
//!
//! The rules are those of containers/image (`go.podman.io/image/v5`, `pkg/docker/config`), which Podman, Skopeo
//! and Buildah use, and those that only Docker has. This module contacts no server, and prints no login.

mod credentials;
mod file;
mod helper;
mod netrc;

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

pub(crate) use crate::remote::login::credentials::Credentials;
use crate::remote::login::file::{Form, Found, Logins};
pub(crate) use crate::remote::login::netrc::Netrc;
use crate::util::threads::lock;

/// The maximum size of a file with logins, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// The time limit for reading a file or running a credential helper: a helper may prompt its user, and a file
/// may be a named pipe.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// The credentials, if any, and a warning if the configuration looks broken.
#[derive(Debug, Default)]
pub(crate) struct CredentialLookup {
    pub credentials: Option<Credentials>,
    pub warning: Option<String>,
}

/// A file that may hold logins.
#[derive(Debug, Clone)]
struct LoginFile {
    path: PathBuf,
    form: Form,
    /// The variable that names it. A file that the user named should exist.
    named_by: Option<&'static str>,
}

/// The content of a file: `None` if it does not exist, an error message if it cannot be used.
type Content = Result<Option<Arc<Logins>>, String>;

/// The answer of a helper: `None` if it has no login, an error message if it cannot be used.
type Answer = Result<Option<Credentials>, String>;

/// The files that may hold logins, in the order in which they are read, and the contents of files and the
/// answers of helpers so far.
#[derive(Debug, Default)]
pub(crate) struct LoginFiles {
    files: Vec<LoginFile>,
    /// The search path for helpers: a value of `PATH`.
    search: Option<OsString>,
    /// The contents that were read: a named pipe can be read only once.
    read: Mutex<HashMap<PathBuf, Content>>,
    /// The answers by helper and server: a helper that hangs costs its time limit only once.
    helpers: Mutex<HashMap<(String, String), Answer>>,
}

impl LoginFiles {
    /// The files of this user.
    pub(crate) fn of_environment() -> Self {
        LoginFiles::of(|name| std::env::var_os(name))
    }

    /// A single file with the current format.
    #[cfg(test)]
    pub(crate) fn only(path: PathBuf) -> Self {
        let files = vec![LoginFile { path, form: Form::Current, named_by: None }];
        LoginFiles { files, ..LoginFiles::default() }
    }

    /// The files of a user with these variables. If the user names a file, it is the only one, as in Podman
    /// and Skopeo (containers/common, `pkg/auth`: `GetDefaultAuthFile`).
    pub(crate) fn of(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let file = |path: PathBuf| LoginFile { path, form: Form::Current, named_by: None };
        let mut files = Vec::new();
        if let Some(named) = path("REGISTRY_AUTH_FILE") {
            files.push(LoginFile { named_by: Some("REGISTRY_AUTH_FILE"), ..file(named) });
        } else if let Some(directory) = path("DOCKER_CONFIG") {
            files.push(file(directory.join("config.json")));
        } else {
            let home = path("HOME");
            let per_user =
                || PathBuf::from(format!("/run/containers/{}", rustix::process::getuid().as_raw()));
            let of_login = path("XDG_RUNTIME_DIR").map(|directory| directory.join("containers"));
            files.push(file(of_login.unwrap_or_else(per_user).join("auth.json")));
            let config = path("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
            files.extend(config.map(|directory| file(directory.join("containers/auth.json"))));
            if let Some(home) = home {
                files.push(file(home.join(".docker/config.json")));
                files.push(LoginFile { form: Form::Legacy, ..file(home.join(".dockercfg")) });
            }
        }
        LoginFiles { files, search: variable("PATH"), ..LoginFiles::default() }
    }

    /// Returns the credentials for a repository from the first file that has some. A broken file or helper
    /// only causes a warning, because public data needs no login.
    pub(crate) fn credentials(&self, host: &str, name: &str) -> CredentialLookup {
        let mut warning = None;
        for file in &self.files {
            let found = match self.content(file) {
                Ok(None) => continue,
                Ok(Some(logins)) => logins.find(host, name),
                Err(why) => Found::Broken(why),
            };
            let found = match found {
                Found::Nothing => Ok(None),
                Found::Login(credentials) => Ok(Some(credentials)),
                Found::Helper { helper, server } => self.run_helper(&file.path, &helper, &server),
                Found::Broken(why) => Err(why),
            };
            match found {
                Ok(None) => {}
                Ok(Some(credentials)) => {
                    log::debug!("login for {host}/{name} from {}", file.path.display());
                    return CredentialLookup { credentials: Some(credentials), warning };
                }
                Err(why) => {
                    warning =
                        warning.or_else(|| Some(format!("{why}; continuing without a login for {host}")))
                }
            }
        }
        log::debug!("no login for {host}/{name} in {}", self.shown());
        CredentialLookup { credentials: None, warning }
    }

    /// The paths of the files, for printing.
    fn shown(&self) -> String {
        let paths: Vec<String> = self.files.iter().map(|file| file.path.display().to_string()).collect();
        paths.join(", ")
    }

    fn content(&self, file: &LoginFile) -> Content {
        if let Some(known) = lock(&self.read).get(&file.path) {
            return known.clone();
        }
        let (path, shown) = (file.path.clone(), file.path.display());
        let content = match within_time_limit("logins", move || read(&path)) {
            None => Err(format!("{shown} could not be read within {} s", TIME_LIMIT.as_secs())),
            Some(Err(error)) if is_absent(&error) => match file.named_by {
                Some(variable) => Err(format!("{variable} names {shown}, which does not exist")),
                None => Ok(None),
            },
            Some(Err(error)) => Err(format!("{shown} cannot be read: {error}")),
            Some(Ok(bytes)) => Logins::parse(&bytes, file.form)
                .map(|logins| Some(Arc::new(logins)))
                .ok_or_else(|| format!("{shown} is not a valid file of credentials")),
        };
        lock(&self.read).insert(file.path.clone(), content.clone());
        content
    }

    fn run_helper(&self, file: &Path, helper: &str, server: &str) -> Answer {
        let key = (helper.to_owned(), server.to_owned());
        if let Some(known) = lock(&self.helpers).get(&key) {
            return known.clone();
        }
        let ((helper, server), search) = (key.clone(), self.search.clone());
        let ask = move || helper::ask(&helper, &server, search.as_deref());
        let answer = within_time_limit("credentials", ask).unwrap_or_else(|| {
            let (file, seconds) = (file.display(), TIME_LIMIT.as_secs());
            Err(format!("the credential helper named in {file} did not answer within {seconds} s"))
        });
        lock(&self.helpers).insert(key, answer.clone());
        answer
    }
}

/// Returns the logins for web servers of a user with these variables, and a warning if their file or an entry
/// in it cannot be used.
pub(crate) fn netrc(variable: impl Fn(&str) -> Option<OsString>) -> (Netrc, Option<String>) {
    let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let Some(path) = path("NETRC").or_else(|| Some(path("HOME")?.join(".netrc"))) else {
        return (Netrc::default(), None);
    };
    let shown = path.display().to_string();
    match within_time_limit("logins", move || read(&path)) {
        Some(Ok(bytes)) => {
            log::debug!("logins for web servers from {shown}");
            let (netrc, remark) = Netrc::parse(&String::from_utf8_lossy(&bytes));
            (netrc, remark.map(|remark| format!("{shown}: {remark}")))
        }
        Some(Err(error)) if is_absent(&error) => (Netrc::default(), None),
        Some(Err(error)) => {
            (Netrc::default(), Some(format!("{shown} cannot be read: {error}; continuing without it")))
        }
        None => {
            let seconds = TIME_LIMIT.as_secs();
            (
                Netrc::default(),
                Some(format!("{shown} could not be read within {seconds} s; continuing without it")),
            )
        }
    }
}

/// Runs an action on a separate thread, because it may hang. After [`TIME_LIMIT`], the thread is
/// abandoned.
fn within_time_limit<T: Send + 'static>(
    name: &str,
    action: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name(name.into());
    thread.spawn(move || drop(sender.send(action()))).ok()?;
    receiver.recv_timeout(TIME_LIMIT).ok()
}

/// Reads a file of logins. It may be a named pipe of a secret manager.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
    }
    Ok(bytes)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests;
