//! `cairn completions`: what a shell needs to complete the command line.

use clap::Command;
use clap_complete::Shell;

use crate::report::{self, Outcome, Status};

/// Print a script by which a shell completes `cairn` commands and options
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// The shell that the script is for
    #[arg(value_enum)]
    shell: Shell,
}

const HELP: &str = "\
Examples:
  cairn completions bash > ~/.local/share/bash-completion/completions/cairn
  cairn completions zsh > ~/.zfunc/_cairn
  cairn completions fish > ~/.config/fish/completions/cairn.fish
  source <(cairn completions bash)        in this shell only

Exit codes:
  0  printed
  2  wrong usage";

pub(crate) fn run(args: &Args, whole: &Command) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut visible(whole), "cairn", &mut script);
    report::print_bytes(&script)?;
    Ok(Status::Done)
}

/// The command line without what only Cairn itself calls.
fn visible(whole: &Command) -> Command {
    let shown: Vec<_> = whole.get_subcommands().filter(|c| !c.is_hide_set()).cloned().collect();
    let bare = Command::new("cairn").version(env!("CARGO_PKG_VERSION"));
    let about = whole.get_about().cloned().unwrap_or_default();
    bare.about(about).subcommands(shown)
}
