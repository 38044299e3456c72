//! The `dacapo` command: stores lines in a replay log, replays them, follows them live, checks them.
//!
//! Here: the command line, errors as text, and exit codes. Each command has a file of its own.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use dacapo_log::{Log, OpenError};
use signal_hook::consts::SIGXFSZ;

mod amounts;
mod append;
mod backup;
mod bench;
mod cat;
mod compact;
mod cursor;
mod damage;
mod delete_topic;
mod demo;
mod figures;
mod input;
mod line;
mod printable;
mod producer;
mod prune;
mod repair;
mod selection;
mod serve;
mod stat;
mod tail;
mod topic_field;
mod topics;
mod verify;

/// The command did what it says. `--help` documents the codes, so they stay.
const OK: ExitCode = ExitCode::SUCCESS;
/// It failed, or what it read is damaged.
const FAILED: ExitCode = ExitCode::FAILURE;

/// What a failed write to standard output is called.
const CANNOT_PRINT: &str = "cannot write to standard output";

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed, or the log is damaged
  2  wrong usage, or the directory is not a log";

const EXAMPLES: &str = "\
Examples:
  dacapo demo                        See it work: write, kill -9, recover, replay
  seq 1000000 | dacapo append log    Store a record a line in the directory `log`
  dacapo cat log | tail -n 3         Replay everything from the first record
  dacapo tail log                    Replay, then follow what is appended, live
  dacapo topics log                  Which topics it has
  dacapo cursor list log             How far each consumer has come
  dacapo stat log                    How much it holds, and since when
  dacapo verify log                  Check every byte
  dacapo repair log new-log          Copy what is sound of a damaged log into a new one
  dacapo prune log --max-age 7d      Drop what is older than a week
  dacapo compact log                 Give back the space of deleted topics
  dacapo backup log copy             Make a backup while it is written, or bring it up to date
  dacapo serve log                   Serve it to clients over HTTP
  dacapo bench                       How fast this disk is, and how near Dacapo comes";

/// A replay log on disk: every record is kept, in order, and any reader can start from the first.
///
/// A log is a directory. One process at a time appends to it; any number of others may read it
/// meanwhile. What `append` has stored survives a killed process, and a power cut as well once it
/// is durable.
#[derive(Parser)]
#[command(
    name = "dacapo",
    version,
    arg_required_else_help = true,
    after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"),
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Append(append::Args),
    Cat(cat::Args),
    Tail(tail::Args),
    Topics(topics::Args),
    DeleteTopic(delete_topic::Args),
    Cursor(cursor::Args),
    Stat(stat::Args),
    Verify(verify::Args),
    Repair(repair::Args),
    Prune(prune::Args),
    Compact(compact::Args),
    Backup(backup::Args),
    Serve(Box<serve::Args>),
    Demo(demo::Args),
    Bench(bench::Args),
    Completions(CompletionsArgs),
}

/// Print a completion script for a shell
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dacapo completions bash > ~/.local/share/bash-completion/completions/dacapo
  dacapo completions zsh > ~/.zfunc/_dacapo
  dacapo completions fish > ~/.config/fish/completions/dacapo.fish")]
struct CompletionsArgs {
    /// The shell to print it for
    shell: clap_complete::Shell,
}

fn main() -> ExitCode {
    let given = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&given).unwrap_or_else(|error| error.exit());
    let outcome = outlive_file_size_limit().and_then(|()| match cli.command {
        Command::Append(args) => append::run(&args),
        Command::Cat(args) => cat::run(&args),
        Command::Tail(args) => tail::run(&args),
        Command::Topics(args) => topics::run(&args),
        Command::DeleteTopic(args) => delete_topic::run(&args),
        Command::Cursor(args) => cursor::run(&args),
        Command::Stat(args) => stat::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Repair(args) => repair::run(&args),
        Command::Prune(args) => prune::run(&args),
        Command::Compact(args) => compact::run(&args),
        Command::Backup(args) => backup::run(&args),
        // Of a setting, it matters where it was said.
        Command::Serve(_) => serve::run(given.subcommand_matches("serve").expect("it is this one")),
        Command::Demo(args) => demo::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Completions(args) => completions(&args),
    });
    outcome.unwrap_or_else(|error| report(&error))
}

/// A limit on the size of files is then an error with a name, instead of a dead process.
///
/// Here and not in the library: what a signal does is for the whole process to decide.
fn outlive_file_size_limit() -> anyhow::Result<()> {
    // A handler, because an ignored signal would be ignored by programs that are started, too.
    signal_hook::flag::register(SIGXFSZ, Arc::default()).context("cannot listen for signals")?;
    Ok(())
}

/// Opens a log that another process may be writing to.
fn open_read_only(dir: &Path) -> Result<Log, OpenError> {
    Log::options().open_read_only(dir)
}

fn completions(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    // By way of a buffer: `generate` panics where a write fails.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "dacapo", &mut script);
    print(&script)?;
    Ok(OK)
}

/// Writes to standard output, all at once.
fn print(text: impl AsRef<[u8]>) -> anyhow::Result<()> {
    io::stdout().write_all(text.as_ref()).context(CANNOT_PRINT)
}

/// Says on stderr what went wrong and picks the exit code.
fn report(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        // The reader of our output has what it wanted, as in `dacapo cat log | head`.
        return OK;
    }
    // Nobody is left to tell where stderr cannot be written either.
    let _ = writeln!(io::stderr(), "dacapo: {}", chain(error));
    exit_code(error)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<OpenError>() {
        Some(
            OpenError::NotFound { .. }
            | OpenError::NotADirectory { .. }
            | OpenError::NotALog { .. }
            | OpenError::UnfinishedBackup { .. }
            | OpenError::Version { .. }
            | OpenError::InvalidOption { .. },
        ) => ExitCode::from(2),
        _ if error.is::<UsageError>() => ExitCode::from(2),
        _ => FAILED,
    }
}

/// The error and its causes in one line, without those that an outer one already quotes.
fn chain(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

/// The command line asks for something that cannot be done.
#[derive(Debug)]
struct UsageError(String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_cause_that_is_already_quoted_is_not_repeated() {
        let error = anyhow::anyhow!("disk on fire").context("cannot sync: disk on fire");
        assert_eq!(chain(&error), "cannot sync: disk on fire");

        let error = anyhow::anyhow!("disk on fire").context("cannot sync");
        assert_eq!(chain(&error), "cannot sync: disk on fire");
    }
}
