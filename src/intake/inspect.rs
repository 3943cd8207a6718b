//! `inspect`: what is in a bundle, how old it is, and who signed it.
//!
//! Shows unverified bundles too, and says so. Every text from a bundle is made safe for the
//! terminal.

use std::fmt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use crate::bundle::volumes::Number;
use crate::bundle::{BundleError, Payload, UnverifiedBundle};
use crate::cli::Outcome;
use crate::cli::args::Inspect;
use crate::digest::Digest;
use crate::error::Error;
use crate::intake::file_sets::Inputs;
use crate::intake::open::{self, Ignored};
use crate::intake::signer::Signer;
use crate::progress::Progress;
use crate::trust::TrustError;
use crate::trust::keyring::Keyring;
use crate::util::clock;
use crate::util::redacted::Redacted;
use crate::util::text::{Unverified, age, line, moment, safe, size};

#[derive(Serialize)]
struct Report {
    bundles: Vec<Row>,
    ignored: Vec<Ignored>,
}

#[derive(Serialize)]
struct Row {
    #[serde(serialize_with = "crate::util::text::path")]
    path: PathBuf,
    /// Whether a trusted key signed it, and its file or all its volumes have the signed length. The content
    /// is only looked at by `verify` and `import`.
    verified: bool,
    /// Why it is not verified.
    why: Option<String>,
    identity: Digest,
    signers: Vec<Signer>,
    claimed_keyids: Vec<Unverified>,
    payload: Payload,
    #[serde(skip)]
    now: Timestamp,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.bundles {
            row.fmt(f)?;
        }
        for ignored in &self.ignored {
            writeln!(f, "ignored: {}: {}", ignored.name, ignored.why)?;
        }
        Ok(())
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let payload = &self.payload;
        writeln!(f, "{}", line(&self.path.display().to_string()))?;
        match &self.why {
            None => {
                for signer in &self.signers {
                    writeln!(f, "  signed by  {} ({})", signer.fingerprint, safe(&signer.name))?;
                }
            }
            Some(why) => {
                writeln!(f, "  NOT VERIFIED: {why}")?;
                match self.signers.as_slice() {
                    [] => writeln!(f, "  What follows is only what the file says of itself.")?,
                    signers => {
                        let names: Vec<String> = signers.iter().map(Signer::to_string).collect();
                        writeln!(f, "  What follows is signed by {}.", names.join(" and "))?;
                    }
                }
            }
        }
        writeln!(f, "  payload    {}", self.identity)?;
        writeln!(f, "  stream     {}", payload.stream)?;
        writeln!(f, "  created    {} ({} ago)", moment(payload.created), age(payload.created, self.now))?;
        if let Some(expires) = payload.expires {
            writeln!(f, "  expires    {}", moment(expires))?;
        }
        if let Some(sequence) = payload.sequence {
            writeln!(f, "  sequence   {sequence}")?;
        }
        writeln!(f, "  producer   {}", safe(&payload.producer))?;
        writeln!(f, "  length     {} in {} members", size(payload.length), payload.members.len() + 1)?;
        if !payload.volumes.is_empty() {
            writeln!(
                f,
                "  volumes    {}, the head with {}",
                payload.volumes.len() + 1,
                size(payload.head_length())
            )?;
            for (index, volume) in payload.volumes.iter().enumerate() {
                let number = Number::at(index).map(|number| number.to_string()).unwrap_or_default();
                writeln!(f, "    {} {:>12} {number}", volume.digest.hex(), volume.size)?;
            }
        }
        for dataset in &payload.datasets {
            let contents = &dataset.contents;
            let date =
                contents.updated_at.map(|date| format!("{} ({} old)", moment(date), age(date, self.now)));
            let version = dataset.version.as_deref().map(safe);
            let what = date.or(version).unwrap_or_default();
            writeln!(f, "\n  {} {}   {what}", dataset.name, dataset.tag)?;
            writeln!(f, "    from       {}", safe(&Redacted::new(&dataset.source).to_string()))?;
            writeln!(f, "    manifest   {}", dataset.manifest.digest)?;
            for layer in &dataset.layers {
                writeln!(f, "    layer      {} {}", layer.digest, size(layer.size))?;
            }
            for file in &contents.files {
                writeln!(f, "    file       {} {} {}", file.digest, size(file.size), file.path)?;
            }
            if let Some(tree) = &contents.tree {
                writeln!(f, "    tree       {} {} in {} files", tree.digest, size(tree.size), tree.files)?;
            }
        }
        for image in &payload.images {
            writeln!(f, "\n  image {}   {}", safe(&image.name), size(image.size()))?;
            writeln!(f, "    from       {}", safe(&Redacted::new(&image.source).to_string()))?;
            writeln!(f, "    manifest   {}", image.manifest.digest)?;
        }
        writeln!(f, "\n  members")?;
        for member in &payload.members {
            writeln!(f, "    {} {:>12} {}", member.digest.hex(), member.size, member.path)?;
        }
        Ok(())
    }
}

pub(crate) fn run(args: &Inspect, _: &dyn Progress) -> Result<Outcome, Error> {
    // Without any trusted key there is still something to show.
    let keyring = match Keyring::load(&args.keys.trust) {
        Err(TrustError::NoTrustedKeys { .. }) => Keyring::default(),
        other => other?,
    };
    let mut there = Inputs::read(&args.bundle)?;
    let mut passed_over = std::mem::take(&mut there.ignored);
    let (mut signed, mut unsigned) = (Rows::default(), Rows::default());
    for path in &there.bundles {
        match row(path, &there, &keyring) {
            Ok((row, length)) => {
                let rows = if row.signers.is_empty() { &mut unsigned } else { &mut signed };
                rows.add(row, length);
            }
            Err(error) if there.is_one_file => return Err(error.into()),
            Err(error) => passed_over.add(Ignored {
                name: safe(&path.file_name().unwrap_or_default().to_string_lossy()),
                why: safe(&error.to_string()),
            }),
        }
    }
    for (rows, of) in [(&signed, "a trusted key"), (&unsigned, "no trusted key")] {
        if rows.more > 0 {
            let why = format!("signed by {of}, and not shown because they are many or large");
            passed_over.add(Ignored { name: format!("{} bundles", rows.more), why });
        }
    }
    let bundles: Vec<Row> = signed.rows.into_iter().chain(unsigned.rows).collect();
    if let (true, Some((_, error))) = (bundles.is_empty(), there.headless().next()) {
        return Err(error.into());
    }
    if bundles.is_empty() {
        return Err(open::no_bundle(&args.bundle, passed_over));
    }
    Ok(Outcome::done(&Report { bundles, ignored: passed_over.list() }))
}

/// Bundles that are shown. What they say is in memory until all are shown.
#[derive(Default)]
struct Rows {
    rows: Vec<Row>,
    /// The bytes of their manifests.
    bytes: usize,
    /// How many are not shown.
    more: usize,
}

impl Rows {
    /// The most bytes of manifests, but for a single one.
    const MOST: usize = 1 << 20;

    fn add(&mut self, row: Row, length: usize) {
        if self.rows.is_empty() || self.bytes + length <= Self::MOST {
            self.bytes += length;
            self.rows.push(row);
        } else {
            self.more += 1;
        }
    }
}

/// A bundle, and the bytes of its payload.
fn row(path: &Path, there: &Inputs, keyring: &Keyring) -> Result<(Row, usize), BundleError> {
    let bundle = UnverifiedBundle::open(path)?;
    let claimed_keyids = bundle.claimed_keyids();
    let (identity, length) = (bundle.identity(), bundle.payload_length());
    let claims = bundle.claims();
    let (payload, signers, why) = match bundle.signed(keyring) {
        Ok(signed) => {
            let (payload, signers) = (signed.payload().clone(), Signer::of(signed.signers(), keyring));
            (payload, signers, there.complete(signed).err().map(|error| safe(&error.to_string())))
        }
        // Of what nobody signed, that is what is wrong, and not what it says.
        Err(error) => match claims {
            Ok(claims) => (claims, Vec::new(), Some(safe(&error.to_string()))),
            Err(_) => return Err(error),
        },
    };
    let (now, verified) = (clock::now(), why.is_none());
    let row = Row { path: path.into(), verified, why, identity, signers, claimed_keyids, payload, now };
    Ok((row, length))
}
