//! Responses of a web server, good and bad.

use std::convert::Infallible;
use std::io::Error;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt, stream};

/// The time that a server waits before it closes a connection, so that the client receives the data first.
const BEFORE_THE_BREAK: Duration = Duration::from_millis(50);

/// Returns 200 with a body.
pub fn ok(body: impl Into<Body>) -> Response {
    Response::new(body.into())
}

/// Returns a status without a body.
#[must_use]
pub fn status(code: u16) -> Response {
    with(Response::new(Body::empty()), code)
}

/// Returns a response with another status.
///
/// # Panics
/// If the status is invalid.
#[must_use]
pub fn with(mut response: Response, code: u16) -> Response {
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

/// Returns a response with another header.
///
/// # Panics
/// If the header is invalid.
#[must_use]
pub fn header(mut response: Response, name: &str, value: &str) -> Response {
    response.headers_mut().insert(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    response
}

/// Returns 307 with a location.
#[must_use]
pub fn redirect(to: &str) -> Response {
    header(status(307), "location", to)
}

/// Returns 401 with a challenge.
#[must_use]
pub fn challenge(challenge: &str) -> Response {
    header(status(401), "www-authenticate", challenge)
}

/// Returns a body in chunks, without a length.
pub fn chunked(pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Response {
    let copy = |piece: &[u8]| Bytes::copy_from_slice(piece);
    let pieces: Vec<Bytes> = pieces.into_iter().map(|piece| copy(piece.as_ref())).collect();
    ok(Body::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, Infallible>))))
}

/// Returns a body with the length `length` that sends `start` and then stalls forever.
pub fn stalling(start: impl AsRef<[u8]>, length: usize) -> Response {
    let start = Bytes::copy_from_slice(start.as_ref());
    let start = stream::once(async move { Ok::<_, Infallible>(start) });
    header(ok(Body::from_stream(start.chain(stream::pending()))), "content-length", &length.to_string())
}

/// Returns a body with the length `length` that sends some bytes at once and then a byte every 10 ms.
#[must_use]
pub fn dripping(start: usize, length: usize) -> Response {
    let first = stream::once(async move { Ok::<_, Infallible>(Bytes::from(vec![b'x'; start])) });
    let drops = stream::iter(start..length).then(|_| async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        Ok::<_, Infallible>(Bytes::from_static(b"x"))
    });
    header(ok(Body::from_stream(first.chain(drops))), "content-length", &length.to_string())
}

/// Returns a body with the length `length` that sends `start` and then closes the connection.
pub fn breaking(start: impl AsRef<[u8]>, length: usize) -> Response {
    let start = Bytes::copy_from_slice(start.as_ref());
    let start = stream::once(async move { Ok(start) });
    let end = stream::once(async {
        tokio::time::sleep(BEFORE_THE_BREAK).await;
        Err::<Bytes, _>(Error::other("broken"))
    });
    header(ok(Body::from_stream(start.chain(end))), "content-length", &length.to_string())
}
