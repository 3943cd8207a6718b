//! The few fields of a certificate that the TLS library does not tell: until when it is valid and what it is for
//! (RFC 5280, 4.1), and what OpenSSL's trust store adds to it.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, Error};

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// A version, or what is not to be trusted.
const TAGGED_0: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;

/// `extKeyUsage` (RFC 5280, 4.2.1.12), and its values for servers and for anything.
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
const ANY_USAGE: &[u8] = &[0x55, 0x1d, 0x25, 0x00];

/// Checks that a certificate is valid now, and for a server.
///
/// # Errors
/// As the verification of a chain has them.
pub(super) fn check(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let fields = fields(certificate).ok_or(CertificateError::BadEncoding)?;
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let at = |seconds: i64| {
        UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
    };
    if seconds < fields.not_before {
        let not_before = at(fields.not_before);
        return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
    }
    if seconds > fields.not_after {
        let not_after = at(fields.not_after);
        return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
    }
    if !fields.is_for_servers {
        return Err(CertificateError::InvalidPurpose.into());
    }
    Ok(())
}

/// Reads a certificate of OpenSSL's trust store (openssl-x509(1), "Trust settings"): the certificate, then the purposes
/// for which it is trusted and those for which it is not.
///
/// # Errors
/// What is wrong with it: a list of purposes that leaves servers out, too.
pub(super) fn trusted_for_servers(bytes: &[u8]) -> Result<CertificateDer<'static>, String> {
    let broken = || "it is broken".to_owned();
    let (_, _, aux) = element(bytes).ok_or_else(broken)?;
    let certificate = CertificateDer::from(bytes[..bytes.len() - aux.len()].to_vec());
    if aux.is_empty() {
        return Ok(certificate);
    }
    let (mut rest, _) = expect(SEQUENCE, aux).ok_or_else(broken)?;
    let mut is_trusted = true;
    while let Some((tag, content, after)) = element(rest) {
        let names_servers = || has_purpose(content);
        match tag {
            SEQUENCE => is_trusted &= names_servers(),
            TAGGED_0 => is_trusted &= !names_servers(),
            _ => {}
        }
        rest = after;
    }
    if is_trusted { Ok(certificate) } else { Err("its trust settings leave servers out".into()) }
}

struct Fields {
    /// In seconds since 1970.
    not_before: i64,
    not_after: i64,
    is_for_servers: bool,
}

fn fields(certificate: &[u8]) -> Option<Fields> {
    let (signed, _) = expect(SEQUENCE, certificate)?;
    let (mut rest, _) = expect(SEQUENCE, signed)?;
    if let Some((_, after)) = expect(TAGGED_0, rest) {
        rest = after;
    }
    // The serial number, the algorithm of the signature, the issuer.
    let (_, rest) = expect(INTEGER, rest)?;
    let (_, rest) = expect(SEQUENCE, rest)?;
    let (_, rest) = expect(SEQUENCE, rest)?;
    let (validity, mut rest) = expect(SEQUENCE, rest)?;
    let (not_before, until) = time(validity)?;
    let (not_after, _) = time(until)?;
    let mut is_for_servers = true;
    while let Some((tag, content, after)) = element(rest) {
        if tag == EXTENSIONS {
            is_for_servers = allows_servers(content)?;
        }
        rest = after;
    }
    Some(Fields { not_before, not_after, is_for_servers })
}

/// Whether extensions leave a certificate to servers: those without the usages of its key do.
fn allows_servers(extensions: &[u8]) -> Option<bool> {
    let (mut rest, _) = expect(SEQUENCE, extensions)?;
    while let Some((extension, after)) = expect(SEQUENCE, rest) {
        let (name, mut value) = expect(OBJECT_IDENTIFIER, extension)?;
        if name == EXTENDED_KEY_USAGE {
            // A flag may stand before the value.
            while let Some((tag, content, behind)) = element(value) {
                if tag == OCTET_STRING {
                    let (usages, _) = expect(SEQUENCE, content)?;
                    return Some(has_purpose(usages));
                }
                value = behind;
            }
        }
        rest = after;
    }
    Some(true)
}

/// Whether a list of purposes has that of a server.
fn has_purpose(mut purposes: &[u8]) -> bool {
    while let Some((purpose, after)) = expect(OBJECT_IDENTIFIER, purposes) {
        if purpose == SERVER_AUTH || purpose == ANY_USAGE {
            return true;
        }
        purposes = after;
    }
    false
}

/// A time in seconds since 1970 (RFC 5280, 4.1.2.5: in UTC, with seconds), and what follows it.
fn time(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (tag, content, rest) = element(bytes)?;
    let text = std::str::from_utf8(content).ok()?;
    let text = match tag {
        UTC_TIME => format!("{}{text}", if text.get(..2)? < "50" { "20" } else { "19" }),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let time = DateTime::strptime("%Y%m%d%H%M%SZ", text).ok()?;
    Some((time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second(), rest))
}

/// The content of the first element if it has this tag, and what follows it.
fn expect(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    element(bytes).filter(|(found, ..)| *found == tag).map(|(_, content, rest)| (content, rest))
}

/// The tag and the content of the first element of DER, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x83 => {
            let (length, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}
