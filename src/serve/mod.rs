//! `serve`: verifies bundles, decides what is acceptable, and serves it as a registry and a web root.

pub(crate) mod content;
pub(crate) mod http;
pub mod options;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use crate::bundle::{Image, VerifiedBundle};
use crate::dataset::Kind;
use crate::delivery::admission::{admit_all, conclude};
use crate::delivery::candidates::{newest, offers};
use crate::delivery::context::{Host, Setup};
use crate::delivery::decision::{Judged, decide};
use crate::delivery::image_pattern;
use crate::delivery::ledger::{Memory, image_key};
use crate::delivery::report::{ImageRow, Report, Row, Status, Target};
use crate::delivery::settings::{self, places_for_settings, write_files};
use crate::error::Error;
use crate::intake::open::{self, Found, beside};
use crate::progress::Progress;
use crate::scanner::installed::trivy_version;
use crate::scanner::registry_settings::registry_settings;
use crate::scanner::vex_config::VexConfig;
use crate::serve::content::{Choice, add, place_of};
use crate::serve::http::{Event, Options, Request, Server, Site, Until};
use crate::serve::options::ServeOptions;
use crate::trust::Refusal;
use crate::trust::acceptance::{Admission, Verdict, judge};
use crate::trust::keyring::Keyring;
use crate::trust::state::{Side, StateDir};
use crate::util::clock;
use crate::util::text::{safe, second};

/// Verifies bundles and prepares a server for what is acceptable of them. It is listening when this returns, and
/// answers once it runs.
///
/// # Errors
/// If there is nothing to serve, or the address cannot be listened on.
pub(crate) fn serve(
    options: &ServeOptions,
    progress: &dyn Progress,
) -> Result<(Report, BundleServer), Error> {
    let tls =
        options.tls.as_ref().map(|(certificate, key)| http::configuration(certificate, key)).transpose()?;
    more_files();
    places_for_settings(&options.settings)?;
    let setup = setup(options)?;
    let mut found = open::open(&options.inputs, &setup.keyring, None)?;
    let state = StateDir::open(options.state_dir.as_deref(), Side::Import)?;
    // Whoever cannot listen need not read the bundle first.
    let listener = Server::bind(options.listen)?;
    let address = listener.local_addr().map_err(Error::unexpected("listening"))?;
    let url = url(options, address, tls.is_some())?;
    let mut memory = Memory::open(state, options.acceptance.stream.as_str(), false)?;
    let (mut report, site) = prepare(options, &setup, &url, &mut found, &mut memory, progress)?;
    report.warnings.extend(memory.warnings());
    report.warnings.splice(
        0..0,
        options
            .inputs
            .iter()
            .find_map(|input| beside(&setup.keyring, input))
            .into_iter()
            .chain(found.warnings)
            .chain(found.mended)
            .chain(found.not_mended),
    );
    report.errors.splice(0..0, found.damaged.into_iter().map(Error::from));
    let (misspelled, unmatched) = image_pattern::unmatched(&options.image, &found.bundles);
    report.errors.extend(misspelled);
    report.warnings.extend(unmatched);
    drop(memory);
    if !report.has_something_in_place() {
        let next = "See `trivy-ferry inspect`; images are served only if --image names them.";
        let nothing = || Error::usage("no bundle here holds what is to be served", next);
        return Err(report.errors.into_iter().next().unwrap_or_else(nothing));
    }
    advise(options, &setup, &url, &mut report);
    let (log, events) = sync_channel(1024);
    let lost = Arc::new(AtomicU64::new(0));
    let count = lost.clone();
    let http_options = Options {
        tls,
        url: url.clone(),
        fixed: options.url.is_some(),
        // A log that nobody reads must not hold up those who are served.
        log: Box::new(move |event| {
            if log.try_send(event).is_err() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }),
        until: Until::Signal,
    };
    Ok((report, BundleServer { listener, address, url, site, http_options, events, lost }))
}

/// A server that is listening.
pub(crate) struct BundleServer {
    listener: TcpListener,
    address: SocketAddr,
    url: String,
    site: Site,
    http_options: Options,
    events: Receiver<Event>,
    lost: Arc<AtomicU64>,
}

impl BundleServer {
    /// Serves until a signal ends it. Says a line for each request.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn run(self, progress: &dyn Progress) -> Result<(), Error> {
        let server = Server::start(self.listener, self.site, self.http_options)?;
        progress.note(&format!("Serving {} from {}, until SIGTERM or Ctrl-C …", self.url, self.address));
        tell(self.events, &self.lost, progress);
        server.wait();
        progress.note("Ended.");
        Ok(())
    }
}

/// Says a line for each request, until the server ends.
fn tell(events: Receiver<Event>, lost: &AtomicU64, progress: &dyn Progress) {
    for event in events {
        let now = second(clock::now());
        match event {
            Event::Answered(request) => tell_request(&now, &request, progress),
            Event::Refused { client, why } => progress.note(&format!("{now} {client} - {}", safe(&why))),
            Event::Ending(within) => progress.note(&format!(
                "Ending when the answers under way are sent, within {} s; told again, at once.",
                within.as_secs()
            )),
        }
        match lost.swap(0, Ordering::Relaxed) {
            0 => {}
            lost => {
                progress.note(&format!("{now} - {lost} lines of this log were lost: it is read too slowly"))
            }
        }
    }
}

fn tell_request(now: &str, request: &Request, progress: &dyn Progress) {
    let Request { client, method, path, agent, status, sent, whole, took, fault } = request;
    let broken = if *whole { "" } else { " broken-off" };
    progress.note(&format!(
        "{now} {client} {} {} {status} {sent}{broken} {:.3}s \"{}\"",
        safe(method),
        safe(path),
        took.as_secs_f64(),
        // A quote would end the field.
        safe(agent).replace('"', "'"),
    ));
    if let Some(fault) = fault {
        progress.alarm(&format!("error: {}", safe(fault)));
    }
}

/// A thousand scanners are a thousand open files, and the usual limit is 1024.
fn more_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// The URL under which scanners are told to reach the server.
fn url(options: &ServeOptions, address: SocketAddr, tls: bool) -> Result<String, Error> {
    let scheme = if tls { "https" } else { "http" };
    match &options.url {
        Some(url) if url.has_path() => Err(Error::usage(
            format!("--url {url} has a path, and registries have none"),
            "Write it as https://HOST[:PORT].",
        )),
        Some(url) => Ok(url.to_string()),
        None if address.ip().is_unspecified() => {
            let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
            Ok(format!("{scheme}://{name}:{}", address.port()))
        }
        None => Ok(format!("{scheme}://{address}")),
    }
}

fn setup(options: &ServeOptions) -> Result<Setup, Error> {
    let host = Host {
        now: clock::now(),
        version: options.trivy_version.unwrap_or_else(trivy_version),
        vex: VexConfig::read_at(None)?,
        data_home: None,
    };
    Ok(Setup::new(host, Keyring::load(&options.trust)?, &options.acceptance))
}

/// Decides what is served, verifies it, and puts it together.
fn prepare(
    options: &ServeOptions,
    setup: &Setup,
    url: &str,
    found: &mut Found,
    memory: &mut Memory<'_>,
    progress: &dyn Progress,
) -> Result<(Report, Site), Error> {
    let target = Target::Serve(options.listen);
    // Scanners know the port: on which of this host's addresses it is open is nothing new to them.
    memory.of(&format!("serve:{}", options.listen.port()));
    let ignored = found.ignored.clone();
    let ((mut report, admitted, chosen, site), damaged) = found.without_damaged(|bundles| {
        let mut report = Report::new(target.clone(), setup, ignored.clone());
        let mut admitted = admit_all(bundles, memory.state(), setup, &mut report);
        let chosen = choose(options, bundles, &admitted);
        let chosen = sift(setup, url, memory, chosen, &mut report).map_err(|error| (None, error))?;
        let images = choose_images(options, setup, url, memory, bundles, &mut admitted, &mut report);
        let mut site = Site::default();
        for (index, bundle) in bundles.iter().enumerate() {
            let mine: Vec<&Choice> = chosen.iter().filter(|choice| choice.offer.bundle == index).collect();
            let images: Vec<&Image> =
                images.iter().filter(|(at, _)| *at == index).map(|(_, image)| image).collect();
            if !mine.is_empty() || !images.is_empty() {
                add(&mut site, bundle, &mine, &images, progress).map_err(|error| (Some(index), error))?;
            }
        }
        Ok((report, admitted, chosen, site))
    })?;
    report.errors.splice(0..0, damaged);
    for (index, (bundle, admission)) in found.bundles.iter().zip(admitted).enumerate() {
        let Some(mut admission) = admission else { continue };
        let mine = || chosen.iter().filter(|choice| choice.offer.bundle == index);
        if mine().any(|choice| choice.rollback) {
            report.rolls_back(bundle, &mut admission);
        }
        mine().for_each(|choice| report.set(&choice.offer.dataset, Status::Served, None));
        memory.accept(bundle, &admission, &report, setup.host.now);
    }
    conclude(memory, setup, &mut report);
    Ok((report, site))
}

/// Of each dataset and tag the newest among the admitted bundles.
fn choose(options: &ServeOptions, bundles: &[VerifiedBundle], admitted: &[Option<Admission>]) -> Vec<Choice> {
    let offers = offers(bundles, admitted, &options.selection).into_iter();
    let placed = offers.map(|offer| (offer.dataset.reference(), (), offer));
    newest(placed).into_iter().map(|((), offer)| Choice { offer, rollback: false }).collect()
}

/// Of each requested image the newest among the admitted bundles, if nothing newer was served before; with
/// the index of its bundle.
fn choose_images(
    options: &ServeOptions,
    setup: &Setup,
    url: &str,
    memory: &Memory<'_>,
    bundles: &[VerifiedBundle],
    admitted: &mut [Option<Admission>],
    report: &mut Report,
) -> Vec<(usize, Image)> {
    let host = url.split_once("://").map_or(url, |(_, host)| host);
    let mut taken: BTreeMap<String, String> = BTreeMap::new();
    let mut chosen = Vec::new();
    for (index, image) in newest_images(bundles, admitted) {
        if !options.image.iter().any(|pattern| pattern.matches(&image.name)) {
            report.images.push(ImageRow::not_requested(&image));
            continue;
        }
        let mut row = ImageRow::new(&image);
        let (Some(place), Some(bundle), Some(Some(admission))) =
            (place_of(&image), bundles.get(index), admitted.get_mut(index))
        else {
            report.images.push(row);
            report.errors.push(Error::usage(
                format!("{} is not served: it has no usable name", image.name),
                "Export it under another name with --image NAME=SOURCE; everything else is served.",
            ));
            continue;
        };
        row.reference = Some(format!("{host}/{place}"));
        row.key = image_key(&place);
        let created = bundle.payload().created;
        let older = match judge(Some(created), memory.state().floors.get(&row.key).copied()) {
            Verdict::Older { floor } => Some(floor),
            Verdict::Take => None,
        };
        let name = || image.name.clone();
        let refusal = match (taken.get(&row.key).cloned(), older) {
            (Some(other), _) => {
                let reference = place.to_string();
                Some(Refusal::SamePlace { image: name(), what: "served", reference, other })
            }
            (None, Some(floor)) if !setup.policy.allow_rollback => {
                Some(Refusal::MissingAndOlder { dataset: name(), date: created, floor })
            }
            _ => None,
        };
        row.status = if refusal.is_some() { Status::Refused } else { Status::Served };
        report.errors.extend(refusal.map(Error::from));
        if row.status == Status::Served {
            taken.insert(row.key.clone(), name());
            if older.is_some() {
                report.rolls_back(bundle, admission);
            }
            chosen.push((index, image));
        }
        report.images.push(row);
    }
    chosen
}

/// Of each image by its name the newest among the admitted bundles, with the index of its bundle.
fn newest_images(bundles: &[VerifiedBundle], admitted: &[Option<Admission>]) -> Vec<(usize, Image)> {
    let mut newest: BTreeMap<&str, (usize, &Image)> = BTreeMap::new();
    for (index, (bundle, admission)) in bundles.iter().zip(admitted).enumerate() {
        for image in bundle.payload().images.iter().filter(|_| admission.is_some()) {
            newest.insert(&image.name, (index, image));
        }
    }
    newest.into_values().map(|(index, image)| (index, image.clone())).collect()
}

/// Leaves out what is too old.
fn sift(
    setup: &Setup,
    url: &str,
    memory: &Memory<'_>,
    chosen: Vec<Choice>,
    report: &mut Report,
) -> Result<Vec<Choice>, Error> {
    let host = url.split_once("://").map_or(url, |(_, host)| host);
    let mut left = Vec::new();
    for mut choice in chosen {
        let dataset = &choice.offer.dataset;
        let mut row = Row::new(dataset, None, Status::Installing);
        row.reference = Some(match dataset.name.kind() {
            Kind::Vex => format!("{url}/{}", dataset.name),
            _ => format!("{host}/{}:{}", dataset.name, dataset.tag),
        });
        let (date, late) = (Some(choice.offer.date), choice.offer.late);
        let (floor, vacant, version) = (None, true, None);
        let judged = Judged { row, date, floor, vacant, late, otherwise: "not served", version };
        if let Some(taken) = decide(setup, memory.state(), judged, || Ok(false), report)? {
            choice.rollback = taken.rollback;
            left.push(choice);
        }
    }
    Ok(left)
}

/// What scanners must be told.
fn advise(options: &ServeOptions, setup: &Setup, url: &str, report: &mut Report) {
    let insecure = url.starts_with("http:");
    let way = settings::Way {
        insecure: &|_| insecure,
        login: &|_| false,
        own_ca: false,
        config: options.settings.write_config.as_deref(),
    };
    let pulled = settings::pulled(setup.host.version, way.insecure, &[report]);
    settings::say(setup.host.version, &pulled, &way, report);
    let settings = registry_settings(setup.host.version, &pulled);
    if !insecure {
        report
            .advice
            .push("If your own CA issued the certificate, set SSL_CERT_FILE for the scanners.".into());
    } else if !options.listen.ip().is_loopback() {
        report.advice.push(
            "Anybody on the way can change what goes over plain HTTP: --tls-cert and --tls-key are better."
                .into(),
        );
    }
    if let Err(error) = write_files(&options.settings, &settings, report) {
        report.errors.push(error);
    }
}
