//! Runs `settings`.

use crate::bundle::Stream;
use crate::cli::args::SettingsArgs;
use crate::cli::print::delivery;
use crate::cli::run::import::layout;
use crate::cli::{CommandOutcome, prompt};
use crate::delivery::options::RegistryOptions;
use crate::error::Error;
use crate::import::Importer;
use crate::import::options::ImportOptions;

pub(crate) fn run(args: &SettingsArgs) -> Result<CommandOutcome, Error> {
    // No bundle is read, so the stream does not matter.
    let no_stream = |error| Error::unexpected("naming a stream")(std::io::Error::other(error));
    let mut options = ImportOptions::new("default".parse::<Stream>().map_err(no_stream)?);
    options.cache_dirs = args.cache_dir.clone();
    options.layout = layout(args.layout);
    if !args.places.is_empty() {
        let (places, remote) = (args.places.clone(), prompt::remote(&args.connection)?);
        options.registry = RegistryOptions { places, remote, ..RegistryOptions::default() };
    }
    options.web_root = args.web_root.clone();
    options.web_url = args.web_url.clone();
    options.selection = (&args.selection).into();
    options.trivy_version = args.trivy_version;
    options.data_home = args.data_home.clone();
    options.settings = (&args.settings).into();
    let report = Importer::new(options).settings()?;
    let mut warnings = delivery::warnings(&report.targets);
    warnings.extend(report.warnings.iter().cloned());
    let outcome = CommandOutcome::done(&report);
    Ok(CommandOutcome { warnings, errors: report.into_errors(), ..outcome })
}
