//! Where the login for a repository comes from: the files in which `podman login` and `docker login` keep
//! logins, and the helpers that these files name.
//!
//! The rules are those of containers/image (`go.podman.io/image/v5`, pkg/docker/config), which Podman, Skopeo and
//! Buildah use, and beside them what only Docker has. This module knows no server, and prints no login.

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

/// The largest file of logins that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// How long a file or a credential helper may take; a helper may ask its user, a file may be a named pipe.
const PATIENCE: Duration = Duration::from_secs(30);

/// Credentials, or their absence, with a remark where the set-up looks broken.
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
    /// The variable that names it. What a person named should be there.
    named_by: Option<&'static str>,
}

/// What a file holds: nothing if it does not exist, or a remark if it cannot be used.
type Content = Result<Option<Arc<Logins>>, String>;

/// What a helper has: nothing, or a remark if it cannot be used.
type Answer = Result<Option<Credentials>, String>;

/// The files that may hold logins, in the order in which they are asked, and what they and helpers answered.
#[derive(Debug, Default)]
pub(crate) struct LoginFiles {
    files: Vec<LoginFile>,
    /// Where helpers are looked for: a value of PATH.
    search: Option<OsString>,
    /// What was read: a named pipe can be read once.
    read: Mutex<HashMap<PathBuf, Content>>,
    /// By the helper and what it was asked for: a helper that hangs is waited for once.
    helpers: Mutex<HashMap<(String, String), Answer>>,
}

impl LoginFiles {
    /// The files of this user.
    pub(crate) fn of_environment() -> Self {
        LoginFiles::of(|name| std::env::var_os(name))
    }

    /// One file of the current form, and no other.
    #[cfg(test)]
    pub(crate) fn only(path: PathBuf) -> Self {
        let files = vec![LoginFile { path, form: Form::Current, named_by: None }];
        LoginFiles { files, ..LoginFiles::default() }
    }

    /// The files of a user with these variables. A file that the user names is the only one, as for Podman and Skopeo
    /// (containers/common, pkg/auth: `GetDefaultAuthFile`).
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

    /// Returns the credentials for a repository of a host: those of the first file that has some. Whatever is broken
    /// leads to a remark: public data needs no login.
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
                Found::Helper { helper, server } => self.ask(&file.path, &helper, &server),
                Found::Broken(why) => Err(why),
            };
            match found {
                Ok(None) => {}
                Ok(Some(credentials)) => {
                    log::debug!("login for {host}/{name} from {}", file.path.display());
                    return CredentialLookup { credentials: Some(credentials), warning };
                }
                Err(why) => {
                    warning = warning.or_else(|| Some(format!("{why}; going on without a login at {host}")))
                }
            }
        }
        log::debug!("no login for {host}/{name} in {}", self.shown());
        CredentialLookup { credentials: None, warning }
    }

    /// The paths of the files, for people.
    fn shown(&self) -> String {
        let paths: Vec<String> = self.files.iter().map(|file| file.path.display().to_string()).collect();
        paths.join(", ")
    }

    fn content(&self, file: &LoginFile) -> Content {
        if let Some(known) = lock(&self.read).get(&file.path) {
            return known.clone();
        }
        let (path, shown) = (file.path.clone(), file.path.display());
        let content = match within_patience("logins", move || read(&path)) {
            None => Err(format!("{shown} could not be read within {} s", PATIENCE.as_secs())),
            Some(Err(error)) if is_absent(&error) => match file.named_by {
                Some(variable) => Err(format!("{variable} names {shown}, which does not exist")),
                None => Ok(None),
            },
            Some(Err(error)) => Err(format!("{shown} cannot be read: {error}")),
            Some(Ok(bytes)) => Logins::parse(&bytes, file.form)
                .map(|logins| Some(Arc::new(logins)))
                .ok_or_else(|| format!("{shown} holds no usable credentials")),
        };
        lock(&self.read).insert(file.path.clone(), content.clone());
        content
    }

    fn ask(&self, file: &Path, helper: &str, server: &str) -> Answer {
        let key = (helper.to_owned(), server.to_owned());
        if let Some(known) = lock(&self.helpers).get(&key) {
            return known.clone();
        }
        let ((helper, server), search) = (key.clone(), self.search.clone());
        let ask = move || helper::ask(&helper, &server, search.as_deref());
        let answer = within_patience("credentials", ask).unwrap_or_else(|| {
            let (file, seconds) = (file.display(), PATIENCE.as_secs());
            Err(format!("the credential helper named in {file} has not answered for {seconds} s"))
        });
        lock(&self.helpers).insert(key, answer.clone());
        answer
    }
}

/// Returns the logins for web servers of a user with these variables, and a remark if their file or an entry
/// in it cannot be used.
pub(crate) fn netrc(variable: impl Fn(&str) -> Option<OsString>) -> (Netrc, Option<String>) {
    let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let Some(path) = path("NETRC").or_else(|| Some(path("HOME")?.join(".netrc"))) else {
        return (Netrc::default(), None);
    };
    let shown = path.display().to_string();
    match within_patience("logins", move || read(&path)) {
        Some(Ok(bytes)) => {
            let (netrc, remark) = Netrc::parse(&String::from_utf8_lossy(&bytes));
            (netrc, remark.map(|remark| format!("{shown}: {remark}")))
        }
        Some(Err(error)) if is_absent(&error) => (Netrc::default(), None),
        Some(Err(error)) => {
            (Netrc::default(), Some(format!("{shown} cannot be read, going on without it: {error}")))
        }
        None => {
            let seconds = PATIENCE.as_secs();
            (
                Netrc::default(),
                Some(format!("{shown} could not be read within {seconds} s, going on without it")),
            )
        }
    }
}

/// Does something that may hang, on a thread of its own, which is left behind if it does.
fn within_patience<T: Send + 'static>(name: &str, action: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name(name.into());
    thread.spawn(move || drop(sender.send(action()))).ok()?;
    receiver.recv_timeout(PATIENCE).ok()
}

/// Reads a file of logins. A secret manager may hand them out through a named pipe.
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
