//! `man`: the manual pages, which say what `--help` says.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use clap::CommandFactory;
use serde::Serialize;

use crate::cli::Outcome;
use crate::cli::args::{Cli, Man};
use crate::error::Error;
use crate::util::fs::{self, Durability};

#[derive(Serialize)]
struct Report {
    #[serde(serialize_with = "crate::util::text::path")]
    folder: PathBuf,
    pages: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} pages in {}", self.pages.len(), self.folder.display())
    }
}

/// Writes the pages. Those of an earlier version are replaced.
pub(crate) fn run(args: &Man) -> Result<Outcome, Error> {
    let mut pages = Vec::new();
    write(Cli::command(), &args.dir, &mut pages).map_err(|error| Error::Destination {
        path: args.dir.clone(),
        what: error.to_string(),
        next: "Name a folder that you may write to.".into(),
    })?;
    Ok(Outcome::done(&Report { folder: args.dir.clone(), pages }))
}

fn write(command: clap::Command, folder: &Path, pages: &mut Vec<String>) -> io::Result<()> {
    fs::create_dir_all(folder, 0o777)?;
    // Every page is another verb's, and `help` is no verb.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    one(&command, folder, pages)
}

fn one(command: &clap::Command, folder: &Path, pages: &mut Vec<String>) -> io::Result<()> {
    let page = clap_mangen::Man::new(command.clone()).manual("trivy-ferry");
    let name = page.get_filename();
    // Replaced, not written to: a link of that name would lead elsewhere, and the folder may be another's.
    let mut text = Vec::new();
    page.render(&mut text)?;
    fs::replace(folder.join(&name), &text, 0o644, Durability::Unsynced)?;
    pages.push(name);
    command.get_subcommands().try_for_each(|verb| one(verb, folder, pages))
}
