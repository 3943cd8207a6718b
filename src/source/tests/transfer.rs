//! Tests of blobs in ranges from servers that break connections, answer incorrectly or redirect,
//! or whose addresses expire.

use std::io::Read;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, LazyLock};

use test_kit::answers::{breaking, header, ok, redirect, status, with};
use test_kit::http::{Response, Seen, Server};
use test_kit::noise::Noise;

use crate::remote::{RemoteError, RemoteOptions};
use crate::source::tests::testing::{descriptor, network_that_retries, source};
use crate::source::transfer::FORCE_RANGES;
use crate::source::{ArtifactSource, SourceError};

/// A blob that is large enough for several ranges, and whose length is not a multiple of theirs.
static LARGE: LazyLock<&'static [u8]> = LazyLock::new(|| Noise::new(1).bytes(14_000_003).leak());

/// The range that a request names, without the byte at its end.
fn range(seen: &Seen) -> Option<(usize, usize)> {
    let (first, last) = seen.range.as_deref()?.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse::<usize>().ok()? + 1))
}

/// The answer of a correct server.
fn good(content: &'static [u8], seen: &Seen) -> Response {
    match range(seen) {
        Some((start, end)) => part(content, start, end),
        None => ok(content),
    }
}

/// The answer for a range.
fn part(content: &'static [u8], start: usize, end: usize) -> Response {
    let of = format!("bytes {start}-{}/{}", end - 1, content.len());
    header(with(ok(&content[start..end]), 206), "content-range", &of)
}

/// Reads a blob in ranges from a server that answers with `answer`.
fn fetch(
    content: &'static [u8],
    answer: impl Fn(&Seen) -> Response + Send + Sync + 'static,
) -> (Result<Vec<u8>, SourceError>, Vec<Seen>) {
    FORCE_RANGES.set(true);
    let server = Server::new(answer);
    let network = network_that_retries(3, RemoteOptions::default(), None);
    let read = || {
        let source = source(&server);
        let mut blob = network.blob(&source, &descriptor(content))?;
        let mut bytes = Vec::new();
        blob.read_to_end(&mut bytes).map_err(|error| SourceError::from_io(error).unwrap())?;
        Ok(bytes)
    };
    (read(), server.seen())
}

/// The number of bytes that were requested.
fn asked(content: &[u8], seen: &[Seen]) -> usize {
    seen.iter().map(|seen| range(seen).map_or(content.len(), |(start, end)| end - start)).sum()
}

#[test]
fn a_large_blob_is_fetched_in_ranges_and_complete() {
    let (bytes, seen) = fetch(&LARGE, |seen| good(&LARGE, seen));
    assert!(bytes.unwrap() == *LARGE);
    assert!(seen.len() > 4 && seen.iter().all(|seen| range(seen).is_some()), "{seen:?}");
    assert_eq!(asked(&LARGE, &seen), LARGE.len(), "no byte is requested twice");
}

#[test]
fn a_blob_resumes_where_it_broke() {
    // Every second answer breaks after 100,000 bytes.
    let (count, sent) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let counted = sent.clone();
    let (bytes, seen) = fetch(&LARGE, move |seen| {
        let Some((start, end)) = range(seen) else { return ok(*LARGE) };
        if count.fetch_add(1, Relaxed).is_multiple_of(2) || end - start <= 100_000 {
            counted.fetch_add(end - start, Relaxed);
            return part(&LARGE, start, end);
        }
        counted.fetch_add(100_000, Relaxed);
        let of = format!("bytes {start}-{}/{}", end - 1, LARGE.len());
        header(with(breaking(&LARGE[start..start + 100_000], end - start), 206), "content-range", &of)
    });
    assert!(bytes.unwrap() == *LARGE);
    assert!(asked(&LARGE, &seen) > LARGE.len(), "the connection broke");
    assert_eq!(sent.load(Relaxed), LARGE.len(), "bytes that arrived are not fetched again");
}

#[test]
fn a_small_blob_resumes_too() {
    const SMALL: &[u8] = &[7; 300_000];
    let (bytes, seen) = fetch(SMALL, |seen| match range(seen) {
        None => breaking(&SMALL[..100_000], SMALL.len()),
        Some((start, end)) => part(SMALL, start, end),
    });
    assert!(bytes.unwrap() == SMALL);
    assert_eq!(seen[1].range.as_deref(), Some("bytes=100000-299999"), "{seen:?}");
}

#[test]
fn a_server_without_ranges_is_read_as_one_stream() {
    let count = AtomicUsize::new(0);
    let (bytes, seen) = fetch(&LARGE, move |_| match count.fetch_add(1, Relaxed) {
        0 => breaking(&LARGE[..5_000_000], LARGE.len()),
        _ => ok(*LARGE),
    });
    assert!(bytes.unwrap() == *LARGE);
    assert_eq!(seen.len(), 2);
}

#[test]
fn a_server_with_wrong_answers_to_ranges_is_read_as_one_stream() {
    type Lie = fn(usize, usize) -> Response;
    let lies: [(&str, Lie); 5] = [
        ("another range", |start, end| {
            header(
                with(ok(&LARGE[start..end]), 206),
                "content-range",
                &format!("bytes 1-{end}/{}", LARGE.len()),
            )
        }),
        ("no Content-Range", |start, end| with(ok(&LARGE[start..end]), 206)),
        ("another size", |start, end| {
            header(
                with(ok(&LARGE[start..end]), 206),
                "content-range",
                &format!("bytes {start}-{}/99", end - 1),
            )
        }),
        ("shorter", |start, end| {
            let of = format!("bytes {start}-{}/{}", end - 1, LARGE.len());
            header(with(ok(&LARGE[start..end - 1]), 206), "content-range", &of)
        }),
        ("another ETag each time", |start, end| {
            header(part(&LARGE, start, end), "etag", &format!("\"{start}\""))
        }),
    ];
    for (what, lie) in lies {
        // The first answer is correct, and a later one is not.
        let (bytes, seen) = fetch(&LARGE, move |seen| match range(seen) {
            Some((0, end)) => header(part(&LARGE, 0, end), "etag", "\"0\""),
            Some((start, end)) => lie(start, end),
            None => ok(*LARGE),
        });
        assert!(bytes.unwrap() == *LARGE, "{what}");
        assert!(seen.iter().any(|seen| seen.range.is_none()), "{what}");
    }
}

#[test]
fn ranges_are_requested_from_the_target_of_the_redirect_until_it_rejects_one() {
    let cdn = Arc::new(Server::new(|seen| match (seen.target.as_str(), seen.authorization.is_some()) {
        ("/old", false) if range(seen).is_some_and(|(start, _)| start > 6_000_000) => status(403),
        ("/old" | "/new", false) => good(&LARGE, seen),
        _ => status(500),
    }));
    let count = AtomicUsize::new(0);
    let to = cdn.clone();
    let (bytes, seen) = fetch(&LARGE, move |_| match count.fetch_add(1, Relaxed) {
        0 => redirect(&to.url("/old")),
        _ => redirect(&to.url("/new")),
    });
    assert!(bytes.unwrap() == *LARGE);
    assert!(seen.len() < cdn.seen().len(), "the registry is not asked for every range");
    assert!(cdn.seen().iter().any(|seen| seen.target == "/new"));
}

#[test]
fn a_server_that_never_sends_a_byte_causes_an_error() {
    let (result, seen) = fetch(&LARGE, |seen| match range(seen) {
        Some((start, end)) => {
            let of = format!("bytes {start}-{}/{}", end - 1, LARGE.len());
            header(with(breaking(b"", end - start), 206), "content-range", &of)
        }
        None => breaking(b"", LARGE.len()),
    });
    let error = result.unwrap_err();
    assert!(matches!(error, SourceError::Remote(RemoteError::Lost { .. })), "{error}");
    assert!(seen.len() < 20, "{}", seen.len());
}

#[test]
fn transient_errors_are_retried_and_lasting_ones_are_not() {
    const SMALL: &[u8] = b"the content";
    let twice = |code: u16, name: &'static str, value: &'static str| {
        let count = AtomicUsize::new(0);
        move |seen: &Seen| match count.fetch_add(1, Relaxed) {
            0 | 1 => header(status(code), name, value),
            _ => good(SMALL, seen),
        }
    };
    for (code, name, value) in [(429, "retry-after", "0"), (503, "retry-after", "0"), (502, "x", "y")] {
        let (bytes, seen) = fetch(SMALL, twice(code, name, value));
        assert_eq!(bytes.unwrap(), SMALL, "{code}");
        assert_eq!(seen.len(), 3, "{code}");
    }
    for code in [400, 403, 404, 451, 501] {
        let (result, seen) = fetch(SMALL, twice(code, "x", "y"));
        assert!(result.is_err(), "{code}");
        assert_eq!(seen.len(), 1, "{code}");
    }
}

#[test]
fn a_blob_may_be_fetched_from_several_registries() {
    let dying = Server::new(|seen| match range(seen) {
        Some((start, end)) if start < 6_000_000 => part(&LARGE, start, end),
        _ => status(404),
    });
    let other = Server::new(|seen| good(&LARGE, seen));
    FORCE_RANGES.set(true);
    let network = network_that_retries(1, RemoteOptions::default(), None);
    let sources: Vec<ArtifactSource> = vec![source(&dying), source(&other)];
    let mut blob = network.blob_from(&sources, &descriptor(&LARGE), 0).unwrap();
    let mut bytes = Vec::new();
    blob.read_to_end(&mut bytes).unwrap();
    assert!(bytes == *LARGE);
    let first = range(&other.seen()[0]).unwrap().0;
    assert!(first >= 6_000_000, "it resumes there at byte {first}");
}
