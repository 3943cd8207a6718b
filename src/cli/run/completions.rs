//! `completions`: scripts with which shells complete command lines of trivy-ferry.

use std::fmt;

use serde::Serialize;

use crate::cli::CommandOutcome;
use crate::cli::args::{Cli, CompletionsArgs};

#[derive(Serialize)]
struct CompletionsReport {
    shell: String,
    script: String,
}

impl fmt::Display for CompletionsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.script)
    }
}

pub(crate) fn run(args: &CompletionsArgs) -> CommandOutcome {
    let mut command = Cli::whole();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    // The script for Bash has two spellings of a name with a hyphen, and so completes nothing after a command
    // (`clap_complete` 4.6.11; clap's issue 6421).
    let script = String::from_utf8_lossy(&script).replace("trivy__subcmd__ferry", "trivy__ferry");
    CommandOutcome::done(&CompletionsReport { shell: args.shell.to_string(), script })
}
