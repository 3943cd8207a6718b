//! The fields of a certificate that the TLS library does not expose: its validity, its purposes and whether
//! it is a CA (RFC 5280, 4.1), and the trust settings of OpenSSL.
//!
//! This module parses DER. It verifies no signature.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, Error};

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// A version, or the rejected purposes in OpenSSL's trust settings.
const TAGGED_0: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;

/// `basicConstraints` (RFC 5280, 4.2.1.9): whether it is a CA.
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
/// `keyUsage` (RFC 5280, 4.2.1.3), and its bit for signing certificates.
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const KEY_CERT_SIGN: u8 = 0x04;
/// The number for version 3; certificates of version 1 have none.
const VERSION_3: &[u8] = &[2];
/// `extKeyUsage` (RFC 5280, 4.2.1.12), and its values for servers and for anything.
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
const ANY_USAGE: &[u8] = &[0x55, 0x1d, 0x25, 0x00];

/// Checks that a certificate is valid now, and for a server.
///
/// # Errors
/// If it cannot be parsed, is not valid yet, has expired, or is not for servers.
pub(super) fn check(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let parts = Parts::of(certificate).ok_or(CertificateError::BadEncoding)?;
    let (not_before, not_after) = parts.validity().ok_or(CertificateError::BadEncoding)?;
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let at = |seconds: i64| {
        UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
    };
    if seconds < not_before {
        let not_before = at(not_before);
        return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
    }
    if seconds > not_after {
        let not_after = at(not_after);
        return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
    }
    if !parts.is_for_servers() {
        return Err(CertificateError::InvalidPurpose.into());
    }
    Ok(())
}

/// Whether a certificate may issue certificates of servers. webpki does not check this for a
/// trusted certificate: the key of a server with a trusted certificate could sign for every name.
pub(super) fn is_authority(certificate: &CertificateDer<'_>) -> bool {
    Parts::of(certificate).is_some_and(|parts| parts.is_authority())
}

/// Reads a certificate of OpenSSL's trust store (openssl-x509(1), "Trust settings"): the certificate, then
/// its trusted and its rejected purposes.
///
/// # Errors
/// If it cannot be parsed, or if its trust settings exclude servers.
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
    if is_trusted { Ok(certificate) } else { Err("its trust settings exclude servers".into()) }
}

/// Parts of a certificate in DER.
struct Parts<'c> {
    version: Option<&'c [u8]>,
    issuer: &'c [u8],
    validity: &'c [u8],
    subject: &'c [u8],
    /// The sequence of extensions; empty in versions 1 and 2.
    extensions: &'c [u8],
}

impl<'c> Parts<'c> {
    fn of(certificate: &'c [u8]) -> Option<Self> {
        let (signed, _) = expect(SEQUENCE, certificate)?;
        let (mut rest, _) = expect(SEQUENCE, signed)?;
        let mut version = None;
        if let Some((content, after)) = expect(TAGGED_0, rest) {
            version = Some(expect(INTEGER, content)?.0);
            rest = after;
        }
        // The serial number and the algorithm of the signature.
        let (_, rest) = expect(INTEGER, rest)?;
        let (_, rest) = expect(SEQUENCE, rest)?;
        let (issuer, rest) = expect(SEQUENCE, rest)?;
        let (validity, rest) = expect(SEQUENCE, rest)?;
        let (subject, mut rest) = expect(SEQUENCE, rest)?;
        let mut extensions: &[u8] = &[];
        while let Some((tag, content, after)) = element(rest) {
            if tag == EXTENSIONS {
                (extensions, _) = expect(SEQUENCE, content)?;
            }
            rest = after;
        }
        Some(Parts { version, issuer, validity, subject, extensions })
    }

    /// The beginning and the end of its validity, in seconds since 1970.
    fn validity(&self) -> Option<(i64, i64)> {
        let (not_before, until) = time(self.validity)?;
        Some((not_before, time(until)?.0))
    }

    /// The content of an extension; empty if it cannot be parsed.
    fn extension(&self, wanted: &[u8]) -> Option<&'c [u8]> {
        let mut rest = self.extensions;
        while let Some((extension, after)) = expect(SEQUENCE, rest) {
            if let Some((name, mut value)) = expect(OBJECT_IDENTIFIER, extension)
                && name == wanted
            {
                // A flag may precede the value.
                while let Some((tag, content, behind)) = element(value) {
                    if tag == OCTET_STRING {
                        return Some(content);
                    }
                    value = behind;
                }
                return Some(&[]);
            }
            rest = after;
        }
        None
    }

    /// Whether it may be used for servers. Without a list of usages, it may.
    fn is_for_servers(&self) -> bool {
        let usages = |content| expect(SEQUENCE, content).is_some_and(|(usages, _)| has_purpose(usages));
        self.extension(EXTENDED_KEY_USAGE).is_none_or(usages)
    }

    fn is_authority(&self) -> bool {
        let is_marked = match self.extension(BASIC_CONSTRAINTS) {
            Some(content) => {
                let flag = expect(SEQUENCE, content).and_then(|(fields, _)| expect(BOOLEAN, fields));
                flag.is_some_and(|(flag, _)| flag != [0])
            }
            // Version 1 has no such field. As in OpenSSL, a self-issued certificate is a root.
            None => self.version != Some(VERSION_3) && self.issuer == self.subject,
        };
        let signs = |content| {
            let bits = expect(BIT_STRING, content).and_then(|(bits, _)| bits.get(1));
            bits.is_some_and(|bits| bits & KEY_CERT_SIGN != 0)
        };
        is_marked && self.extension(KEY_USAGE).is_none_or(signs) && self.is_for_servers()
    }
}

/// Whether a list of purposes contains that of a server.
fn has_purpose(mut purposes: &[u8]) -> bool {
    while let Some((purpose, after)) = expect(OBJECT_IDENTIFIER, purposes) {
        if purpose == SERVER_AUTH || purpose == ANY_USAGE {
            return true;
        }
        purposes = after;
    }
    false
}

/// Parses a time (RFC 5280, 4.1.2.5: in UTC, with seconds). Returns it in seconds since 1970, and the rest.
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

/// Returns the content of the first element if it has this tag, and the rest.
fn expect(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    element(bytes).filter(|(found, ..)| *found == tag).map(|(_, content, rest)| (content, rest))
}

/// Returns the tag and the content of the first DER element, and the rest.
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
