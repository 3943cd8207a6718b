//! The cache directory that Trivy uses by default. Knows the environment; opens nothing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::targets::error::TargetError;

type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The cache directory that Trivy takes when it is told none: `TRIVY_CACHE_DIR`, else
/// `$XDG_CACHE_HOME/trivy`, else `$HOME/.cache/trivy` (Trivy v0.74.0, pkg/cache/dir.go with Go's
/// `os.UserCacheDir`). A `trivy.yaml` in the working directory can name another one (`cache.dir`);
/// it is not followed, because an import need not run where Trivy does.
///
/// # Errors
/// [`TargetError::NoCacheDirectory`] if no variable names an absolute directory. Trivy would then use a
/// temporary directory, which is not a place for an import.
pub fn default_cache_dir() -> Result<PathBuf, TargetError> {
    default_from(&|name| std::env::var_os(name))
}

/// What is worth saying about a default cache directory: a `sudo` that found root's cache in
/// place of the caller's, and a `trivy.yaml` that is not followed.
pub fn default_cache_dir_findings(dir: &Path) -> Vec<String> {
    findings_from(dir, &|name| std::env::var_os(name), Path::new("trivy.yaml").exists())
}

fn set(environment: Environment, name: &str) -> Option<PathBuf> {
    environment(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn default_from(environment: Environment) -> Result<PathBuf, TargetError> {
    if let Some(dir) = set(environment, "TRIVY_CACHE_DIR") {
        return Ok(dir);
    }
    match set(environment, "XDG_CACHE_HOME") {
        Some(dir) if dir.is_absolute() => Ok(dir.join("trivy")),
        // Go refuses a relative one, and does not look further.
        Some(_) => Err(TargetError::NoCacheDirectory),
        None => set(environment, "HOME")
            .map(|home| home.join(".cache/trivy"))
            .ok_or(TargetError::NoCacheDirectory),
    }
}

fn findings_from(dir: &Path, environment: Environment, yaml: bool) -> Vec<String> {
    let mut findings = Vec::new();
    if set(environment, "TRIVY_CACHE_DIR").is_none() {
        if let Some(user) = set(environment, "SUDO_USER").filter(|user| user.as_os_str() != "root") {
            let user = crate::util::text::escape(&user.to_string_lossy());
            findings.push(format!(
                "This is sudo's cache directory, {}, and not {user}'s: name {user}'s with --cache-dir, or run without sudo.",
                dir.display()
            ));
        }
        if yaml {
            findings.push(
                "There is a trivy.yaml here: if it sets cache.dir, name that directory with --cache-dir."
                    .into(),
            );
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<OsString> {
        |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
    }

    #[test]
    fn the_order_is_trivys() {
        for (pairs, wanted) in [
            (&[("TRIVY_CACHE_DIR", "here"), ("HOME", "/h")][..], Some("here")),
            (&[("TRIVY_CACHE_DIR", ""), ("XDG_CACHE_HOME", "/x"), ("HOME", "/h")], Some("/x/trivy")),
            (&[("XDG_CACHE_HOME", ""), ("HOME", "/h")], Some("/h/.cache/trivy")),
            (&[("XDG_CACHE_HOME", "x"), ("HOME", "/h")], None),
            (&[], None),
        ] {
            assert_eq!(default_from(&with(pairs)).ok(), wanted.map(PathBuf::from), "{pairs:?}");
        }
    }

    #[test]
    fn sudo_and_a_configuration_file_are_mentioned() {
        let dir = Path::new("/root/.cache/trivy");
        let sudo = findings_from(dir, &with(&[("SUDO_USER", "ann")]), false);
        assert!(
            sudo.len() == 1 && sudo[0].contains("/root/.cache/trivy") && sudo[0].contains("ann's"),
            "{sudo:?}"
        );
        assert_eq!(findings_from(dir, &with(&[("SUDO_USER", "root")]), false), Vec::<String>::new());
        assert_eq!(findings_from(dir, &with(&[]), true).len(), 1);
        assert!(
            findings_from(dir, &with(&[("SUDO_USER", "ann"), ("TRIVY_CACHE_DIR", "/c")]), true).is_empty()
        );
    }
}
