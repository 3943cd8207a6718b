//! Renamed volumes, whose names are not those of their heads: assigns them to heads in the inbox and in quarantine.
//!
//! A file with an unknown name is untrusted. It belongs to a bundle only if a trusted key signed its digest. It is read
//! only if it has settled and has the size of a volume.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::bundle::volumes::{Volume, VolumeNumber};
use crate::bundle::{MANIFEST, SignedBundle, UnverifiedBundle, begins_with};
use crate::digest::Digest;
use crate::intake::file_sets::{Inputs, LinkedVolume, name_of};
use crate::intake::namesakes::{self, Digests};
use crate::intake::renamed::RenamedFiles;
use crate::trust::keyring::Keyring;
use crate::watch::portion::{Look, look};

/// The maximum number of heads in quarantine that are read.
const MAX_HEADS: usize = 256;

/// The renamed volumes that are remembered between two looks at the inbox.
#[derive(Default)]
pub(crate) struct RenamedVolumes {
    /// The files that may be renamed volumes: their properties, the time of the last change and of the first look.
    files: BTreeMap<PathBuf, (Look, Instant, Instant)>,
    /// Whether no file is new and about to settle.
    is_settled: bool,
    links: Vec<LinkedVolume>,
    /// The files for which the links were found.
    linked: Look,
    /// Settled files that belong to no head in the inbox.
    loose: Vec<PathBuf>,
    /// The files that were last compared with the quarantine.
    compared: Look,
}

/// A bundle in quarantine for which a volume has arrived.
pub(crate) struct Continued {
    /// The name of its head.
    pub(crate) name: String,
    /// The sha256 of its signed payload.
    pub(crate) identity: Digest,
    /// The indexes of the directories that hold its files.
    pub(crate) directories: BTreeSet<usize>,
}

impl RenamedVolumes {
    /// Assigns renamed volumes to their heads, so that they are handled together. Without a keyring, only volumes that
    /// were found before are assigned.
    pub(crate) fn link(&mut self, there: &mut Inputs, keyring: Option<&Keyring>, settle: Duration) {
        let now = Instant::now();
        let mut before = std::mem::take(&mut self.files);
        let candidates: Vec<PathBuf> = there.may_be_volumes().cloned().collect();
        let mut at_rest = Look::new();
        self.is_settled = true;
        for file in look(&candidates) {
            let (path, is_as) = (file.0.clone(), vec![file.clone()]);
            let (since, first) = match before.remove(&path) {
                Some((earlier, since, first)) if earlier == is_as => (since, first),
                Some((_, _, first)) => (now, first),
                None => (now, now),
            };
            if since.elapsed() >= settle {
                at_rest.push(file);
            } else if first.elapsed() < settle {
                self.is_settled = false;
            }
            self.files.insert(path, (is_as, since, first));
        }
        let usable: BTreeSet<PathBuf> = at_rest.iter().map(|(path, ..)| path.clone()).collect();
        at_rest.extend(look(&there.bundles));
        match keyring {
            Some(keyring) if at_rest != self.linked => {
                self.links = there.find_links(keyring, &usable);
                self.linked = at_rest;
            }
            Some(_) => {}
            None => self.links.retain(|link| usable.contains(&link.path)),
        }
        there.link_volumes(&self.links);
        let linked: BTreeSet<&PathBuf> = self.links.iter().map(|link| &link.path).collect();
        let is_loose = |path: &PathBuf| !linked.contains(path);
        self.loose = usable.into_iter().filter(is_loose).collect();
    }

    /// Whether no file that may be a volume is new and about to settle.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// Finds the bundles in quarantine whose missing volumes are in the inbox. `kept` are the files of each directory.
    /// Returns nothing if no file has changed since the last call.
    pub(crate) fn continued(
        &mut self,
        kept: &[Vec<PathBuf>],
        keyring: &Keyring,
        digests: &Digests,
    ) -> Vec<Continued> {
        let mut all = look(&self.loose);
        kept.iter().for_each(|files| all.extend(look(files)));
        if self.loose.is_empty() || all == self.compared {
            return Vec::new();
        }
        self.compared = all;
        let kept = KeptFiles::new(kept);
        let mut come = RenamedFiles::default();
        for path in &self.loose {
            come.add(path.clone());
        }
        let one_look = namesakes::Look::with(digests);
        let mut found = Vec::new();
        for (index, head) in &kept.heads {
            let Ok(opened) = UnverifiedBundle::open(head) else { continue };
            let identity = opened.identity();
            let Ok(signed) = opened.signed(keyring) else { continue };
            let has_come = come.search(signed.payload().volumes.len(), &one_look, std::iter::empty());
            let is_there = kept.files.search(signed.payload().volumes.len(), &one_look, std::iter::empty());
            // Look beside the head first. This avoids reading other files of the same size.
            let find_kept = |number: &str, volume: &Volume| {
                let is_beside = |path: &Path| kept.directory_of(path) == Some(*index);
                is_there.find(number, volume, &is_beside).or_else(|| is_there.find(number, volume, &|_| true))
            };
            let is_lacking = |(number, volume): (String, &Volume)| {
                has_come.find(&number, volume, &|_| true).is_some() && find_kept(&number, volume).is_none()
            };
            if !numbered(&signed).any(is_lacking) {
                continue;
            }
            let of = numbered(&signed).filter_map(|(number, volume)| find_kept(&number, volume));
            let directories = of.filter_map(|path| kept.directory_of(&path)).chain([*index]).collect();
            found.push(Continued { name: name_of(head), identity, directories });
        }
        found
    }

    /// Compares the quarantine again at the next look, because a bundle could not be put back.
    pub(crate) fn compare_again(&mut self) {
        self.compared = Look::new();
    }
}

/// Finds the directories in quarantine that hold missing volumes of a head in the inbox.
pub(crate) fn lacking_in(
    kept: &[Vec<PathBuf>],
    there: &Inputs,
    key: &str,
    keyring: &Keyring,
    digests: &Digests,
) -> BTreeSet<usize> {
    let kept = KeptFiles::new(kept);
    let one_look = namesakes::Look::with(digests);
    let mut found = BTreeSet::new();
    for signed in there.trusted_heads(key, keyring) {
        let search = kept.files.search(signed.payload().volumes.len(), &one_look, std::iter::empty());
        for (number, volume) in there.lacking(&signed) {
            let path = search.find(&number.to_string(), &volume, &|_| true);
            found.extend(path.and_then(|path| kept.directory_of(&path)));
        }
    }
    found
}

/// The files in quarantine.
struct KeptFiles {
    heads: Vec<(usize, PathBuf)>,
    files: RenamedFiles,
    directories: BTreeMap<PathBuf, usize>,
}

impl KeptFiles {
    fn new(kept: &[Vec<PathBuf>]) -> Self {
        let (mut heads, mut files, mut directories) = (Vec::new(), RenamedFiles::default(), BTreeMap::new());
        for (index, path) in
            kept.iter().enumerate().flat_map(|(index, all)| all.iter().map(move |path| (index, path)))
        {
            directories.insert(path.clone(), index);
            if begins_with(path, MANIFEST) {
                heads.push((index, path.clone()));
            } else {
                files.add(path.clone());
            }
        }
        heads.truncate(MAX_HEADS);
        KeptFiles { heads, files, directories }
    }

    fn directory_of(&self, path: &Path) -> Option<usize> {
        self.directories.get(path).copied()
    }
}

/// Returns the volumes of a bundle with their numbers as in names of files.
fn numbered(signed: &SignedBundle) -> impl Iterator<Item = (String, &Volume)> {
    let volumes = signed.payload().volumes.iter().enumerate();
    volumes.filter_map(|(index, volume)| Some((VolumeNumber::at(index)?.to_string(), volume)))
}
