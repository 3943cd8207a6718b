//! `man`: the manual pages, which say what `--help` says.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use serde::Serialize;

use super::Outcome;
use crate::cli::{Cli, Man};
use crate::error::Error;

#[derive(Serialize)]
struct Report {
    #[serde(serialize_with = "crate::text::path")]
    folder: PathBuf,
    pages: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} pages in {}", self.pages.len(), self.folder.display())
    }
}

/// Writes the pages. Those of an earlier version are replaced.
pub(super) fn run(args: &Man) -> Result<Outcome, Error> {
    let mut pages = Vec::new();
    write(Cli::command(), &args.dir, &mut pages).map_err(|error| Error::Destination {
        path: args.dir.clone(),
        what: error.to_string(),
        next: "Name a folder that you may write to.".into(),
    })?;
    Ok(Outcome::done(&Report { folder: args.dir.clone(), pages }))
}

fn write(command: clap::Command, folder: &Path, pages: &mut Vec<String>) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    // Every page is another verb's, and `help` is no verb.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    one(&command, folder, pages)
}

fn one(command: &clap::Command, folder: &Path, pages: &mut Vec<String>) -> io::Result<()> {
    let page = clap_mangen::Man::new(command.clone()).manual("trivy-ferry");
    page.generate_to(folder)?;
    pages.push(page.get_filename());
    command.get_subcommands().try_for_each(|verb| one(verb, folder, pages))
}
