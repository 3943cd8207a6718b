//! Runs `export`.

use crate::cli::args::ExportArgs;
use crate::cli::{CommandOutcome, interrupt, prompt};
use crate::error::Error;
use crate::export::Exporter;
use crate::export::options::{DeltaOptions, ExportOptions};
use crate::progress::Progress;
use crate::remote::RemoteOptions;
use crate::trust::signer::Signer;

pub(crate) fn run(args: &ExportArgs, progress: &dyn Progress) -> Result<CommandOutcome, Error> {
    let exporter = Exporter::new(options(args));
    let open = || -> Result<Box<dyn Signer>, Error> {
        let signer = prompt::signer(&args.signing)?;
        if let Some(path) = args.signing.key.as_ref().filter(|path| readable_by_others(path)) {
            progress.info(&format!(
                "warning: {} is readable by others, who could sign as you: run `chmod 600` on it",
                path.display()
            ));
        }
        // The handler is installed only now, because the prompt for a passphrase handles interrupts
        // itself.
        interrupt::says(
            "Interrupted. The data fetched so far is kept beside the output; run the same command again to resume.",
        );
        Ok(signer)
    };
    let report = match args.dry_run {
        true => exporter.preview(progress)?,
        false => exporter.run_with(&open, progress)?,
    };
    let outcome = CommandOutcome::done(&report);
    Ok(CommandOutcome { warnings: report.warnings, errors: report.errors, ..outcome })
}

fn options(args: &ExportArgs) -> ExportOptions {
    ExportOptions {
        output: args.output.clone(),
        volume_size: args.volume_size,
        parity: args.parity,
        stream: args.stream.clone(),
        sources: (&args.sources).into(),
        vex: args.vex.clone(),
        image: args.image.clone(),
        platform: args.platform.clone(),
        require: args.require.clone(),
        accept: args.accept.clone(),
        max_age: args.max_age.clone(),
        expires: args.expires,
        allow_earlier_date: args.allow_earlier_date,
        quorum: args.quorum,
        quorum_wait: args.quorum_wait,
        if_changed: args.if_changed,
        verify_after_write: args.verify_after_write,
        with_self: args.with_self,
        delta: args
            .delta
            .then(|| DeltaOptions { full_every: args.full_every, base_store: args.base_store.clone() }),
        keep: args.keep,
        drop_into: args.drop_into.clone(),
        repeat: args.repeat,
        heartbeat: args.heartbeat,
        exec_after: args.exec_after.clone(),
        remote: RemoteOptions {
            insecure: args.insecure,
            plain_http: args.plain_http,
            ca_cert: args.cacert.clone(),
            client_cert: args.client_cert.clone(),
            client_key: args.client_key.clone(),
            login: None,
        },
        limits: (&args.retry).into(),
        state_dir: args.state_dir.clone(),
    }
}

fn readable_by_others(path: &std::path::Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let own = rustix::process::geteuid().as_raw();
    // systemd and Kubernetes provide keys of another owner that this user reads through its group.
    path.metadata().is_ok_and(|metadata| {
        let theirs = if metadata.uid() == own { 0o077 } else { 0o007 };
        metadata.mode() & theirs != 0
    })
}
