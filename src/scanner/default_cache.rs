//! The cache directory that Trivy uses by default. This module reads the environment, and opens no file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::targets::error::TargetError;

type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Returns Trivy's default cache directory: `TRIVY_CACHE_DIR`, else `$XDG_CACHE_HOME/trivy`, else
/// `$HOME/.cache/trivy` (Trivy v0.74.0, `pkg/cache/dir.go` with Go's `os.UserCacheDir`). A `trivy.yaml` in the
/// working directory can name another one (`cache.dir`). It is ignored, because an import need not run in the
/// working directory of Trivy.
///
/// # Errors
/// [`TargetError::NoCacheDirectory`] if no variable names an absolute directory. Trivy would then use a
/// temporary directory, which is not a place for an import.
pub fn default_cache_dir() -> Result<PathBuf, TargetError> {
    default_from(&|name| std::env::var_os(name))
}

/// Returns hints about a default cache directory: under `sudo` it is root's and not the caller's, and a
/// `trivy.yaml` is ignored.
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
        // Go rejects a relative directory, and does not fall back to `HOME`.
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
                "Under sudo, the cache directory is {}, not {user}'s: name {user}'s with --cache-dir, or run without sudo.",
                dir.display()
            ));
        }
        if yaml {
            findings.push(
                "The trivy.yaml in this directory is ignored: if it sets cache.dir, name that directory with --cache-dir."
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
