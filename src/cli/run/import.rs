//! Runs `import`.

use crate::cli::args::{DeliveryFlags, ImportArgs, Layout};
use crate::cli::print::delivery;
use crate::cli::{CommandOutcome, interrupt, prompt};
use crate::error::Error;
use crate::import::Importer;
use crate::import::options::ImportOptions;
use crate::progress::Progress;
use crate::targets;

pub(crate) fn run(args: &ImportArgs, progress: &dyn Progress) -> Result<CommandOutcome, Error> {
    let options = options(&args.import, args.dry_run, progress)?;
    let importer = Importer::new(options);
    interrupt::says(
        "Interrupted. Each dataset is old or new, never a mixture; run the same command again to finish.",
    );
    let mut report = match &args.staging {
        Some(staging) => importer.run_staged(staging, &args.bundle, progress)?,
        None if args.restore => importer.restore(progress)?,
        None => importer.run(&args.bundle, progress)?,
    };
    report.targets.iter_mut().for_each(|target| target.shows_all_settings = args.show_settings);
    let mut warnings = delivery::warnings(&report.targets);
    warnings.extend(report.warnings.iter().cloned());
    let outcome = CommandOutcome::done(&report);
    Ok(CommandOutcome { warnings, errors: report.into_errors(), ..outcome })
}

/// Returns the options from the flags that `import` and `watch` share. Reads the password from standard input. Errors
/// are recorded in the metrics, too.
///
/// # Errors
/// If a flag's value is not valid, or if standard input has no password.
pub(crate) fn options(
    args: &DeliveryFlags,
    dry_run: bool,
    progress: &dyn Progress,
) -> Result<ImportOptions, Error> {
    let mut options = ImportOptions::new(args.acceptance.stream.clone());
    options.dry_run = dry_run;
    options.metrics = args.metrics.clone();
    options.state_dir = args.state_dir.clone();
    match complete(&mut options, args) {
        Ok(()) => Ok(options),
        Err(error) => {
            Importer::new(options).note_no_start(&error, progress);
            Err(error)
        }
    }
}

fn complete(options: &mut ImportOptions, args: &DeliveryFlags) -> Result<(), Error> {
    options.trust = args.keys.trust.clone();
    options.min_signers = args.signers.min_signers;
    options.cache_dirs = args.cache_dir.clone();
    options.layout = layout(args.layout);
    options.owner = args.owner.as_deref().map(owner).transpose()?;
    options.keep_previous = args.keep_previous > 0;
    options.registry = prompt::registry(&args.registry, &args.connection, &args.retry)?;
    options.web_root = args.web_root.clone();
    options.web_url = args.web_url.clone();
    options.image = args.image.clone();
    options.replace_image_tags = args.replace_image_tags;
    options.selection = (&args.selection).into();
    options.acceptance = (&args.acceptance).into();
    options.trivy_version = args.scanner.trivy_version;
    options.settings = (&args.scanner.settings).into();
    options.clear_scan_cache = args.clear_scan_cache;
    options.exec_after = args.exec_after.clone();
    options.data_home = args.data_home.clone();
    Ok(())
}

/// Converts the layout of a flag.
pub(crate) fn layout(layout: Layout) -> targets::Layout {
    match layout {
        Layout::Trivy => targets::Layout::Trivy,
        Layout::Harbor => targets::Layout::Harbor,
    }
}

fn owner(text: &str) -> Result<targets::Owner, Error> {
    let wrong = || {
        Error::usage(format!("{text:?} is not a valid owner"), "Write --owner UID or UID:GID, in numbers.")
    };
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    Ok(targets::Owner { uid: uid.parse().map_err(|_| wrong())?, gid: gid.parse().map_err(|_| wrong())? })
}
