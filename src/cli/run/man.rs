//! `man`: writes the manual pages, which have the text of `--help`.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use serde::Serialize;

use crate::cli::CommandOutcome;
use crate::cli::args::{Cli, ManArgs};
use crate::error::Error;
use crate::util::dir::FileMode;
use crate::util::fs::{self, Durability};

#[derive(Serialize)]
struct ManReport {
    #[serde(serialize_with = "crate::util::text::serialize_path")]
    #[serde(rename = "folder")]
    directory: PathBuf,
    pages: Vec<String>,
}

impl fmt::Display for ManReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} pages in {}", self.pages.len(), self.directory.display())
    }
}

/// Writes the pages, and replaces existing ones.
pub(crate) fn run(args: &ManArgs) -> Result<CommandOutcome, Error> {
    let mut pages = Vec::new();
    write(Cli::whole(), &args.dir, &mut pages).map_err(|error| Error::Destination {
        path: args.dir.clone(),
        what: error.to_string(),
        hint: "Choose a directory that you may write to.".into(),
    })?;
    Ok(CommandOutcome::done(&ManReport { directory: args.dir.clone(), pages }))
}

fn write(command: clap::Command, directory: &Path, pages: &mut Vec<String>) -> io::Result<()> {
    fs::create_dir_all(directory, 0o777)?;
    // Each command has its page, but `help` needs none.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    one(&command, directory, pages)
}

fn one(command: &clap::Command, directory: &Path, pages: &mut Vec<String>) -> io::Result<()> {
    let page = clap_mangen::Man::new(command.clone()).manual("trivy-ferry");
    let name = page.get_filename();
    // Replace the file, because it may be a symbolic link of another user.
    let mut text = Vec::new();
    page.render(&mut text)?;
    fs::replace(directory.join(&name), &text, FileMode::AtMost(0o644), Durability::Unsynced)?;
    pages.push(name);
    command.get_subcommands().try_for_each(|subcommand| one(subcommand, directory, pages))
}
