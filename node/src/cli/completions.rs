//! Completions for shells.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, output};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tillmesh completions bash > ~/.local/share/bash-completion/completions/tillmesh")]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tillmesh", &mut script);
    output::line(String::from_utf8(script)?.trim_end())
}
