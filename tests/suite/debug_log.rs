//! `--debug` logs requests with their proxy and kind of login, locks and decisions, but no secret.

use std::sync::{Arc, Mutex};

use serde_json::Value;
use test_kit::answers::{header, status};
use test_kit::http::{Body, Method, Response};
use test_kit::registry::Registry;

use crate::forge::{Bundle, Host, Part, days};

/// The login in its encoded and plain form, the token for it, and the token in an address.
const SECRETS: [&str; 4] = ["dXNlcjpzZXNhbWU=", "sesame", "t0ken-of-the-registry", "query-secret"];

/// A registry that requires a token for pushes, and issues it to the user `user` with the password
/// `sesame`.
fn registry() -> Registry {
    let own = Arc::new(Mutex::new(String::new()));
    let address = own.clone();
    let registry = Registry::new(move |seen| {
        if seen.path == "/token" {
            let is_user = seen.authorization.as_deref() == Some("Basic dXNlcjpzZXNhbWU=");
            let token = r#"{"token":"t0ken-of-the-registry"}"#;
            return Some(if is_user { Response::new(Body::from(token)) } else { status(401) });
        }
        let reads = matches!(seen.method, Method::GET | Method::HEAD);
        let writes = seen.authorization.as_deref() == Some("Bearer t0ken-of-the-registry");
        (!reads && !writes).then(|| {
            let realm = format!("http://{}/token?account=query-secret", address.lock().unwrap());
            header(status(401), "www-authenticate", &format!(r#"Bearer realm="{realm}",service="s""#))
        })
    });
    own.lock().unwrap().clone_from(&registry.host);
    registry
}

#[test]
fn the_log_has_requests_logins_locks_and_decisions_and_no_secret() {
    for format in ["text", "json"] {
        let (host, registry) = (Host::new(), registry());
        let bundle = host.bundle("b.tar", &Bundle::of(days(-1), &Part::all(days(-1))));
        let config = format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpzZXNhbWU="}}}}}}"#, registry.host);
        host.file("home/.docker/config.json", config);
        let place = format!("{}/p", registry.host);
        let flags = ["--registry", &place, "--cache-dir", &host.at("cache"), "--log-format", format];
        let quiet = host.import(&bundle, &flags);
        quiet.good();
        assert!(!quiet.err.contains("debug") && !quiet.err.contains("blobs/uploads"), "{quiet:#?}");
        let older = host.bundle(
            "older.tar",
            &Bundle::of(days(-1) + jiff::SignedDuration::from_secs(9), &Part::all(days(-3))),
        );
        let ran = host.import(&older, &[&flags[..], &["--debug"]].concat());
        let again = host.import(&bundle, &[&flags[..], &["--debug"]].concat());
        for (run, words) in [
            (&ran, &["locked /", ".trivy-ferry/lock", "/state/", "floor", "Older"][..]),
            (&again, &["GET http://", "/v2/p/trivy-db/manifests/2", "no proxy", "200 from 127.0.0.1", " ms"]),
        ] {
            for word in words {
                assert!(run.err.contains(word), "{word}: {run:#?}");
            }
            for secret in SECRETS {
                assert!(!run.err.contains(secret) && !run.out.contains(secret), "{secret}: {run:#?}");
            }
        }
        // A push logs in.
        let fresh = Host::with_key(&host.key);
        let empty = self::registry();
        let config = format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpzZXNhbWU="}}}}}}"#, empty.host);
        fresh.file("home/.docker/config.json", config);
        let place = format!("{}/p", empty.host);
        let pushed = fresh.import(&bundle, &["--registry", &place, "--log-format", format, "--debug"]);
        pushed.good();
        for word in
            ["401", "bearer token", "basic login", "home/.docker/config.json", "PUT http://", "/token"]
        {
            assert!(pushed.err.contains(word), "{word}: {pushed:#?}");
        }
        for secret in SECRETS {
            assert!(!pushed.err.contains(secret), "{secret}: {pushed:#?}");
        }
        for line in pushed.err.lines() {
            match format {
                "json" => {
                    let entry: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
                    assert!(entry["level"].is_string() && entry["what"].is_string(), "{entry}");
                }
                _ => assert!(!line.contains('\u{1b}'), "{line}"),
            }
        }
        assert!(pushed.err.contains("debug"), "{pushed:#?}");
    }
}
