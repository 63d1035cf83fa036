//! `cairn man`: the help as pages of the manual.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use crate::help;
use crate::report::{self, Outcome, Status, UsageError};

/// Print a page of the manual, or write all of them into a directory
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// The command, such as `append` or `stack push`; without it the page of `cairn`
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    names: Vec<String>,
    /// Write every page into this directory, named as man(1) looks for them
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

const HELP: &str = "\
Examples:
  cairn man append | man -l -
  cairn man stack push > cairn-stack-push.1
  cairn man --dir ~/.local/share/man/man1       then: man cairn-append

Exit codes:
  0  printed or written
  1  could not be written
  2  wrong usage, or no such command";

pub(crate) fn run(args: &Args, whole: &Command) -> Outcome {
    if let Some(dir) = &args.dir {
        write_all(whole, "cairn", dir)?;
        return Ok(Status::Done);
    }
    let (mut found, mut title) = (whole, "cairn".to_owned());
    for name in &args.names {
        let next = found.find_subcommand(name).filter(|command| !command.is_hide_set());
        found = next.ok_or_else(|| UsageError(format!("there is no command `{name}`")))?;
        title = format!("{title}-{name}");
    }
    report::print_bytes(&page(found, &title)?)?;
    Ok(Status::Done)
}

/// The page of one command, as roff.
fn page(command: &Command, title: &str) -> anyhow::Result<Vec<u8>> {
    // The page says `cairn append`, and is found as cairn-append.
    let command = command.clone().display_name(title.to_owned()).bin_name(title.replace('-', " "));
    let extra = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let has_commands = command.get_subcommands().any(|command| !command.is_hide_set());
    let man =
        Man::new(command).source(concat!("cairn ", env!("CARGO_PKG_VERSION"))).manual("Cairn");
    let mut roff = Vec::new();
    man.render_title(&mut roff)?;
    man.render_name_section(&mut roff)?;
    man.render_synopsis_section(&mut roff)?;
    man.render_description_section(&mut roff)?;
    man.render_options_section(&mut roff)?;
    if has_commands {
        man.render_subcommands_section(&mut roff)?;
    }
    sections(&help::break_lines(&extra, LINE)).to_writer(&mut roff)?;
    Ok(roff)
}

/// Columns of a line of the manual, behind its margin.
const LINE: usize = help::WIDTH - 8;

/// What follows the options in the help: each `Title:` is a section, its lines stand as they are.
fn sections(help: &str) -> Roff {
    let mut page = Roff::new();
    let mut is_open = false;
    for line in help.lines() {
        match line.strip_suffix(':').filter(|_| !line.starts_with(' ')) {
            Some(title) => {
                if std::mem::replace(&mut is_open, true) {
                    page.control("fi", []);
                }
                page.control("SH", [title.to_uppercase().as_str()]);
                page.control("nf", []);
            }
            None if is_open => _ = page.text([roman(line.strip_prefix("  ").unwrap_or(line))]),
            None if line.is_empty() => {}
            None => {
                is_open = true;
                page.control("SH", ["NOTES"]);
                page.control("nf", []);
                page.text([roman(line)]);
            }
        }
    }
    if is_open {
        page.control("fi", []);
    }
    page
}

/// Writes the page of a command and of all below it.
fn write_all(command: &Command, title: &str, dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let path = dir.join(format!("{title}.1"));
    fs::write(&path, page(command, title)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    for below in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        write_all(below, &format!("{title}-{}", below.get_name()), dir)?;
    }
    Ok(())
}
