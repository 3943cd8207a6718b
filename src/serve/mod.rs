//! `serve`: verifies bundles, decides which datasets and images are acceptable, and serves them as a registry and a
//! web root.

pub(crate) mod content;
pub(crate) mod http;
pub mod options;
pub(crate) mod selecting;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use crate::bundle::Image;
use crate::delivery::admission::{admit_all, conclude};
use crate::delivery::context::{DeliveryContext, HostContext};
use crate::delivery::image_pattern;
use crate::delivery::ledger::Ledger;
use crate::delivery::report::{DeliveryStatus, TargetReport};
use crate::delivery::settings::{self, places_for_settings, write_files};
use crate::delivery::target_id::TargetId;
use crate::error::Error;
use crate::intake::open::{self, Blame, OpenedBundles, beside};
use crate::intake::rebuild::Rebuilt;
use crate::progress::Progress;
use crate::scanner::installed::trivy_version;
use crate::scanner::registry_settings::registry_settings;
use crate::scanner::vex_config::VexConfig;
use crate::serve::content::{ServeChoice, add};
use crate::serve::http::{AnsweredRequest, EndsAt, Server, ServerEvent, ServerOptions, Site};
use crate::serve::options::ServeOptions;
use crate::serve::selecting::ServeSelection;
use crate::trust::keyring::Keyring;
use crate::trust::state::{Side, StateDir, waits_for};
use crate::util::clock;
use crate::util::text::{escape, format_count, format_second};

/// A server that provides the datasets and images of bundles as a registry, and VEX repositories
/// as files.
pub struct BundleServer {
    listener: TcpListener,
    address: SocketAddr,
    url: String,
    site: Site,
    http_options: ServerOptions,
    events: Receiver<ServerEvent>,
    lost: Arc<AtomicU64>,
}

impl BundleServer {
    /// Verifies bundles and prepares a server for their acceptable datasets and images. It listens when this returns,
    /// and responds once it [runs](BundleServer::run) or is [started](BundleServer::start).
    ///
    /// # Errors
    /// If an option or a file that it names cannot be used, no key is trusted, no input can be read, there is nothing to
    /// serve, or the server cannot listen on the address. The report has the errors of single bundles, datasets and
    /// images.
    pub fn open(
        options: &ServeOptions,
        progress: &dyn Progress,
    ) -> Result<(TargetReport, BundleServer), Error> {
        check_url(options)?;
        let tls = options
            .tls
            .as_ref()
            .map(|(certificate, key)| http::configuration(certificate, key))
            .transpose()?;
        places_for_settings(&options.settings)?;
        let context = context(options)?;
        let mut found = open::open(&options.inputs, &context.keyring, None)?;
        let waits = |path: &std::path::Path| progress.info(&waits_for(path));
        let state = StateDir::open_telling(options.state_dir.as_deref(), Side::Import, &waits)?;
        // Reading the bundle takes a long time, so a port in use is reported first.
        let listener = Server::bind(options.listen)?;
        let address = listener.local_addr().map_err(Error::unexpected("listening"))?;
        let url = url(options, address, tls.is_some())?;
        let mut ledger = Ledger::open(state, options.acceptance.stream.as_str(), false)?;
        let (mut report, site) = prepare(options, &context, &url, &mut found, &mut ledger, progress)?;
        let why = report.failure().map(|error| escape(&error.to_string()));
        if !report.is_of_other_streams() {
            ledger.note_run(vec![(report.target.clone(), why)], context.host.now)?;
        }
        report.warnings.extend(ledger.warnings());
        report.warnings.splice(
            0..0,
            options
                .inputs
                .iter()
                .find_map(|input| beside(&context.keyring, input))
                .into_iter()
                .chain(found.warnings)
                .chain(found.rebuilt.iter().map(Rebuilt::to_string))
                .chain(found.not_rebuilt),
        );
        report.errors.splice(0..0, found.damaged.into_iter().map(Error::from));
        let (misspelled, unmatched) = image_pattern::unmatched(&options.image, &found.bundles);
        report.errors.extend(misspelled);
        report.warnings.extend(unmatched);
        drop(ledger);
        if !report.has_something_in_place() {
            let hint = "Run `trivy-ferry inspect` to see their content; images are served only if --image names them.";
            let nothing = || Error::usage("no bundle here holds a dataset or an image to serve", hint);
            return Err(report.errors.into_iter().next().unwrap_or_else(nothing));
        }
        advise(options, &context, &url, &mut report);
        let (log, events) = sync_channel(1024);
        let lost = Arc::new(AtomicU64::new(0));
        let count = lost.clone();
        let http_options = ServerOptions {
            tls,
            url: url.clone(),
            fixed: options.url.is_some(),
            // A slow reader of the log must not block clients.
            log: Box::new(move |event| {
                if log.try_send(event).is_err() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }),
            until: EndsAt::Signal,
        };
        Ok((report, BundleServer { listener, address, url, site, http_options, events, lost }))
    }

    /// Returns the address that the server listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the returned value is dropped. Requests are not logged.
    ///
    /// # Errors
    /// If the server cannot be started.
    pub fn start(self) -> Result<RunningServer, Error> {
        let options = ServerOptions { until: EndsAt::Dropped, log: Box::new(drop), ..self.http_options };
        let server = Server::start(self.listener, self.site, options)?;
        Ok(RunningServer { _server: server })
    }

    /// Serves until SIGTERM or SIGINT. The process handles these signals from now on, and its limit of open files is
    /// raised to the maximum. Reports each request to `progress`.
    ///
    /// # Errors
    /// If the server cannot be started.
    pub fn run(self, progress: &dyn Progress) -> Result<(), Error> {
        raise_open_file_limit();
        let server = Server::start(self.listener, self.site, self.http_options)?;
        progress.info(&format!("Serving {} from {}, until SIGTERM or Ctrl-C …", self.url, self.address));
        report_events(self.events, &self.lost, progress);
        server.wait();
        progress.info("Stopped.");
        Ok(())
    }
}

/// A running server. Dropping it stops the server, after running downloads have finished or 60 s have passed.
#[must_use = "the server ends when this is dropped"]
pub struct RunningServer {
    _server: Server,
}

/// Reports each event of the server on a line, until the server stops.
fn report_events(events: Receiver<ServerEvent>, lost: &AtomicU64, progress: &dyn Progress) {
    for event in events {
        let now = format_second(clock::now());
        match event {
            ServerEvent::Answered(request) => report_request(&now, &request, progress),
            ServerEvent::BadRequest { client, why } => {
                progress.info(&format!("{now} {client} - {}", escape(&why)))
            }
            ServerEvent::Ending(within) => progress.info(&format!(
                "Stopping: running downloads have {} s to finish. Another signal stops the server at once.",
                within.as_secs()
            )),
        }
        match lost.swap(0, Ordering::Relaxed) {
            0 => {}
            lost => {
                let lines = format_count(usize::try_from(lost).unwrap_or(usize::MAX), "line");
                progress.info(&format!("{now} - this log lacks {lines}: its reader is too slow"));
            }
        }
    }
}

fn report_request(now: &str, request: &AnsweredRequest, progress: &dyn Progress) {
    let AnsweredRequest { client, method, path, agent, status, sent, complete, took, fault } = request;
    let broken = if *complete { "" } else { " broken-off" };
    progress.info(&format!(
        "{now} {client} {} {} {status} {sent}{broken} {:.3}s \"{}\"",
        escape(method),
        escape(path),
        took.as_secs_f64(),
        // A quotation mark would end the field.
        escape(agent).replace('"', "'"),
    ));
    if let Some(fault) = fault {
        progress.warn(&format!("error: {}", escape(fault)));
    }
}

/// Raises the limit of open files, which is usually 1024: each connection of a scanner needs one.
fn raise_open_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Rejects an HTTP URL for a server that uses TLS. An HTTPS URL without TLS is valid, because a proxy in front of the
/// server may use TLS.
fn check_url(options: &ServeOptions) -> Result<(), Error> {
    match &options.url {
        Some(url) if options.tls.is_some() && url.is_plain() => Err(Error::usage(
            format!("--url {url} is plain HTTP, but with --tls-cert this server uses TLS"),
            "Write it as https://HOST[:PORT], or omit --tls-cert and --tls-key.",
        )),
        _ => Ok(()),
    }
}

/// Returns the URL under which scanners reach the server.
fn url(options: &ServeOptions, address: SocketAddr, tls: bool) -> Result<String, Error> {
    let scheme = if tls { "https" } else { "http" };
    match &options.url {
        Some(url) if url.has_path() => Err(Error::usage(
            format!("--url {url} has a path, but the URL of a registry cannot have one"),
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

fn context(options: &ServeOptions) -> Result<DeliveryContext, Error> {
    let host = HostContext {
        now: clock::now(),
        version: options.trivy_version.unwrap_or_else(trivy_version),
        vex: VexConfig::read_at(None)?,
        data_home: None,
    };
    let stream = options.acceptance.stream.as_str();
    let keyring = Keyring::load(&options.trust)?.requiring(options.min_signers, Some(stream))?;
    Ok(DeliveryContext::new(host, keyring, &options.acceptance))
}

/// Selects the datasets and images to serve, verifies them, and adds them to a site.
fn prepare(
    options: &ServeOptions,
    context: &DeliveryContext,
    url: &str,
    found: &mut OpenedBundles,
    ledger: &mut Ledger,
    progress: &dyn Progress,
) -> Result<(TargetReport, Site), Error> {
    let target = TargetId::from(options.listen);
    let mut ledger = ledger.for_target(&target);
    let ignored = found.ignored.clone();
    let ((mut report, admitted, chosen, site), damaged) = found.without_damaged(|bundles| {
        let mut report = TargetReport::new(target.clone(), context, ignored.clone());
        let mut admitted = admit_all(bundles, ledger.state(), context, &mut report);
        let selecting = ServeSelection { options, context, url, state: ledger.state(), bundles };
        let chosen = selecting.datasets(&admitted, &mut report)?;
        let images = selecting.images(&mut admitted, &mut report);
        let mut site = Site::default();
        for (index, bundle) in bundles.iter().enumerate() {
            let mine: Vec<&ServeChoice> =
                chosen.iter().filter(|choice| choice.candidate.bundle == index).collect();
            let images: Vec<&Image> =
                images.iter().filter(|(at, _)| *at == index).map(|(_, image)| image).collect();
            if !mine.is_empty() || !images.is_empty() {
                add(&mut site, bundle, &mine, &images, progress).map_err(Blame::on(index))?;
            }
        }
        Ok((report, admitted, chosen, site))
    })?;
    report.errors.splice(0..0, damaged);
    for (index, (bundle, admission)) in found.bundles.iter().zip(admitted).enumerate() {
        let Some(mut admission) = admission else { continue };
        let mine = || chosen.iter().filter(|choice| choice.candidate.bundle == index);
        if mine().any(|choice| choice.rollback) {
            report.rolls_back(bundle, &mut admission);
        }
        mine().for_each(|choice| {
            report.installs(&choice.candidate.dataset, None, DeliveryStatus::Served, None)
        });
        ledger.accept(bundle, &admission, &report.installed, context);
    }
    conclude(ledger, context, &mut report);
    Ok((report, site))
}

/// Adds the settings for scanners to the report, and writes them to the files that the options name.
fn advise(options: &ServeOptions, context: &DeliveryContext, url: &str, report: &mut TargetReport) {
    let insecure = url.starts_with("http:");
    let access = settings::ScannerAccess {
        insecure: &|_| insecure,
        login: &|_| false,
        own_ca: false,
        config: options.settings.write_config.as_deref(),
    };
    let pulled = settings::pulled(context.host.version, access.insecure, &[report]);
    settings::say(context.host.version, &pulled, &access, report);
    let settings = registry_settings(context.host.version, &pulled);
    if !insecure {
        report
            .advice
            .push("If your own CA issued the certificate, set SSL_CERT_FILE for the scanners.".into());
    } else if !options.listen.ip().is_loopback() {
        report.advice.push(
            "Plain HTTP does not protect data from changes on the network: use --tls-cert and --tls-key."
                .into(),
        );
    }
    if let Err(error) = write_files(&options.settings, &settings, report) {
        report.errors.push(error);
    }
}
