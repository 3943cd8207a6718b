//! `completions`: what a shell needs to complete our command lines.

use std::fmt;

use clap::CommandFactory;
use serde::Serialize;

use crate::cli::Outcome;
use crate::cli::args::{Cli, Completions};

#[derive(Serialize)]
struct Report {
    shell: String,
    script: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.script)
    }
}

pub(crate) fn run(args: &Completions) -> Outcome {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    // Bash's script has two spellings of a name with a hyphen, and completes nothing behind a verb
    // (clap_complete 4.6.11; clap's issue 6421).
    let script = String::from_utf8_lossy(&script).replace("trivy__subcmd__ferry", "trivy__ferry");
    Outcome::done(&Report { shell: args.shell.to_string(), script })
}
