//! The debug log of requests: method, address, proxy, kind of login, result and time. It never holds a secret: no
//! query, no header, no body.

use std::time::Instant;

use reqwest::header::HeaderValue;

use crate::remote::error::RemoteError;
use crate::remote::exchange::{Answer, Request};
use crate::remote::route::proxy::Proxies;
use crate::util::redacted::Redacted;
use crate::util::text::escape;

/// A running request.
pub(super) struct Traced {
    what: String,
    began: Instant,
}

impl Traced {
    /// Begins to trace a request; `None` if the debug log is off.
    pub(super) fn begin(request: &Request) -> Option<Self> {
        if !log::log_enabled!(log::Level::Debug) {
            return None;
        }
        let route = Proxies::of_environment().describe(&request.url);
        let login = match request.payload {
            Some(_) if request.is_token => "identity token",
            _ => login(request.authorization.as_ref()),
        };
        let url = escape(&Redacted::from(&request.url).to_string());
        let what = format!("{} {url}, {route}, {login}", request.method);
        Some(Traced { what, began: Instant::now() })
    }

    /// Logs how the request ended.
    pub(super) fn end(self, result: Result<&Answer, &RemoteError>) {
        let (what, ms) = (&self.what, self.began.elapsed().as_millis());
        match result {
            Ok(answer) => {
                let at = answer.response.url();
                let status = answer.response.status().as_u16();
                log::debug!("{what}: {status} from {} after {ms} ms", at.host_str().unwrap_or_default());
            }
            Err(error) => log::debug!("{what}: failed after {ms} ms: {}", escape(&error.to_string())),
        }
    }
}

/// The kind of login of a request.
fn login(authorization: Option<&HeaderValue>) -> &'static str {
    let scheme = authorization.and_then(|value| value.as_bytes().split(|byte| *byte == b' ').next());
    match scheme {
        None => "no login",
        Some(b"Basic") => "basic login",
        Some(b"Bearer") => "bearer token",
        Some(_) => "other login",
    }
}
