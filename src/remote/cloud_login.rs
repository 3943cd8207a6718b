//! Logins for the registries of clouds, which use expiring tokens instead of passwords.
//!
//! This module lists the names of hosts and the documented commands. `docs/registry.md` has the
//! recipes.

/// Returns the hint for a rejected login at the registry of a cloud; `None` for any other host. `flags` is
/// `true` if the command has a flag for the user name.
pub(super) fn hint(host: &str, flags: bool) -> Option<String> {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let ends = |ends: &[&str]| {
        ends.iter().any(|end| name == end.trim_start_matches(['.', '-']) || name.ends_with(end))
    };
    let is_ecr = (name.contains(".dkr.ecr") || name.contains(".dkr-ecr"))
        && ends(&[".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu", ".on.aws"]);
    let (token, user, life) = if is_ecr {
        ("aws ecr get-login-password", "AWS", "12 hours")
    } else if ends(&["-docker.pkg.dev", ".pkg.dev", ".gcr.io"]) && name != "mirror.gcr.io" {
        ("gcloud auth print-access-token", "oauth2accesstoken", "1 hour")
    } else if ends(&[".azurecr.io", ".azurecr.cn", ".azurecr.us"]) {
        ("az acr login --expose-token", "00000000-0000-0000-0000-000000000000", "3 hours")
    } else {
        return None;
    };
    let give = match flags {
        true => format!("give it with --username {user} --password-stdin"),
        false => format!("give it to `docker login --username {user} --password-stdin {host}`"),
    };
    Some(format!(
        "This registry uses tokens that are valid for {life}: get one with `{token}` right before the run, and {give}; for ways without these tools, see docs/registry.md."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registries_of_clouds_are_detected_by_their_hosts() {
        for (host, user) in [
            ("123456789012.dkr.ecr.eu-central-1.amazonaws.com", Some("AWS")),
            ("123456789012.dkr.ecr-fips.us-east-1.amazonaws.com", Some("AWS")),
            ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", Some("AWS")),
            ("123456789012.dkr-ecr.eu-west-1.on.aws", Some("AWS")),
            ("europe-west3-docker.pkg.dev", Some("oauth2accesstoken")),
            ("eu.gcr.io", Some("oauth2accesstoken")),
            ("gcr.io", Some("oauth2accesstoken")),
            ("mirror.gcr.io", None),
            ("corp.azurecr.io", Some("00000000-0000")),
            ("amazonaws.com.evil.example", None),
            ("harbor.corp.example", None),
            ("localhost:5000", None),
        ] {
            let hint = hint(host, true);
            assert_eq!(hint.is_some(), user.is_some(), "{host}");
            assert!(hint.unwrap_or_default().contains(user.unwrap_or_default()), "{host}");
        }
    }
}
