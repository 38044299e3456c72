//! Where each setting has its value from: a flag, the environment, the file, or its default.
//!
//! The file is read as if it were flags, of those settings that neither flags nor the environment say:
//! there is one definition of each, and one way to read its value.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args as _, Command, FromArgMatches, ValueHint};
use toml::{Table, Value};

use super::settings::Args;
use crate::UsageError;

/// What is no setting: it says where they are, and what to do with them.
const NO_SETTINGS: [&str; 3] = ["config", "print_config", "help"];

/// What the environment's variables begin with.
const ENVIRONMENT: &str = "DACAPO_";

/// All settings, each from where it is said first.
pub(super) struct Layers {
    pub(super) args: Args,
    matches: ArgMatches,
    /// Of those that are in the file and count.
    of_file: BTreeMap<String, Vec<OsString>>,
    file: Option<PathBuf>,
    given: ArgMatches,
}

impl Layers {
    /// From what flags and the environment say, and the file that these name.
    pub(super) fn resolve(given: &ArgMatches) -> anyhow::Result<Self> {
        let file = given.get_one::<PathBuf>("config").cloned();
        let mut said = match &file {
            Some(path) => File::read(path)?,
            None => File::default(),
        };
        let command = command();
        let mut line: Vec<OsString> = vec!["serve".into()];
        let mut last = Vec::new();
        let mut of_file = BTreeMap::new();
        for arg in settings(&command) {
            let name = name_of(arg);
            let in_file = said.settings.remove(&name);
            let values = if is_given(given, arg) {
                given
                    .get_raw(arg.get_id().as_str())
                    .into_iter()
                    .flatten()
                    .map(OsStr::to_owned)
                    .collect()
            } else if let Some(values) = in_file {
                let values = said.relative(arg, values);
                of_file.insert(name.clone(), values.clone());
                values
            } else {
                continue;
            };
            match arg.get_long() {
                None => last.extend(values),
                Some(long) => line.extend(values.into_iter().map(|value| {
                    let mut flag = OsString::from(format!("--{long}="));
                    flag.push(value);
                    flag
                })),
            }
        }
        if let Some(unknown) = said.settings.keys().next() {
            return Err(UsageError(format!(
                "{}: `{unknown}` is no setting; `dacapo serve --print-config` shows all there are",
                said.path.display()
            ))
            .into());
        }
        if !last.is_empty() {
            line.push("--".into());
            line.extend(last);
        }
        // Flags and the environment were read before: what fails is of the file.
        let failed =
            |error: clap::Error| UsageError(format!("{}: {}", said.path.display(), brief(&error)));
        let matches = command.try_get_matches_from(line).map_err(failed)?;
        let mut args = Args::from_arg_matches(&matches).map_err(failed)?;
        args.print_config = given.get_flag("print_config");
        Ok(Self {
            args,
            matches,
            of_file,
            file,
            given: given.clone(),
        })
    }

    /// All settings as a file that says the same, each with where it is from.
    pub(super) fn to_toml(&self) -> String {
        let mut text = String::new();
        if let Some(file) = &self.file {
            writeln!(text, "# file: {}", file.display()).expect("a text takes all");
        }
        for arg in settings(&command()) {
            let name = name_of(arg);
            let values = self.matches.get_raw(arg.get_id().as_str());
            let values: Vec<&OsStr> = values.into_iter().flatten().collect();
            let source = match self.given.value_source(arg.get_id().as_str()) {
                Some(ValueSource::CommandLine) => "flag",
                Some(ValueSource::EnvVariable) => "environment",
                _ if self.of_file.contains_key(&name) => "file",
                _ => "default",
            };
            let line = match values.is_empty() {
                true => writeln!(text, "# {name} is not set"),
                false => writeln!(text, "{name} = {} # {source}", value_of(arg, &values)),
            };
            line.expect("a text takes all");
        }
        text
    }
}

/// Variables of the environment that look like settings and are none: mistyped, most often.
pub(super) fn unknown_variables() -> Vec<String> {
    let command = command();
    let known: Vec<&OsStr> = command.get_arguments().filter_map(Arg::get_env).collect();
    let variables = std::env::vars_os().map(|(name, _)| name);
    let unknown = variables.filter(|name| !known.contains(&name.as_os_str()));
    unknown
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.starts_with(ENVIRONMENT))
        .collect()
}

fn command() -> Command {
    Args::augment_args(Command::new("dacapo serve"))
}

fn settings(command: &Command) -> impl Iterator<Item = &Arg> {
    let all = command.get_arguments();
    all.filter(|arg| !NO_SETTINGS.contains(&arg.get_id().as_str()))
}

/// In the file, and on the command line behind `--`.
fn name_of(arg: &Arg) -> String {
    arg.get_id().as_str().replace('_', "-")
}

fn is_given(given: &ArgMatches, arg: &Arg) -> bool {
    matches!(
        given.value_source(arg.get_id().as_str()),
        Some(ValueSource::CommandLine | ValueSource::EnvVariable)
    )
}

fn is_path(arg: &Arg) -> bool {
    matches!(
        arg.get_value_hint(),
        ValueHint::FilePath | ValueHint::DirPath
    )
}

/// What went wrong, in a line and without advice on flags.
fn brief(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().take_while(|line| !line.is_empty());
    let line = lines.map(str::trim).collect::<Vec<_>>().join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

/// A setting's value in TOML.
fn value_of(arg: &Arg, values: &[&OsStr]) -> Value {
    let scalar = |value: &&OsStr| {
        let text = value.to_string_lossy().into_owned();
        match text.parse() {
            Ok(number) => Value::Integer(number),
            Err(_) => match text.as_str() {
                "true" | "false" => Value::Boolean(text == "true"),
                _ => Value::String(without_secrets(&text)),
            },
        }
    };
    match (arg.get_value_delimiter(), values) {
        (None, [value]) => scalar(value),
        _ => Value::Array(
            values
                .iter()
                .flat_map(split)
                .map(|part| scalar(&part))
                .collect(),
        ),
    }
}

/// A default is one text with commas.
fn split<'a>(values: &&'a OsStr) -> Vec<&'a OsStr> {
    match values.to_str() {
        Some(text) => text.split(',').map(OsStr::new).collect(),
        None => vec![values],
    }
}

/// URLs may have a password in them, or a token.
fn without_secrets(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let (rest, query) = match rest.split_once('?') {
        Some((rest, _)) => (rest, "?…"),
        None => (rest, ""),
    };
    let authority = rest.find('/').unwrap_or(rest.len());
    let (user, host) = match rest[..authority].rfind('@') {
        Some(at) => ("…@", &rest[at + 1..]),
        None => ("", rest),
    };
    format!("{scheme}://{user}{host}{query}")
}

/// The settings of a file, by their names.
#[derive(Default)]
struct File {
    path: PathBuf,
    settings: BTreeMap<String, Vec<String>>,
}

impl File {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        let table: Table = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| {
                text[..span.start]
                    .bytes()
                    .filter(|&byte| byte == b'\n')
                    .count()
                    + 1
            });
            UsageError(format!(
                "{}, line {line}: {}",
                path.display(),
                error.message()
            ))
        })?;
        let mut file = Self {
            path: path.to_owned(),
            settings: BTreeMap::new(),
        };
        file.take("", table)?;
        Ok(file)
    }

    /// The keys of a table begin with its name.
    fn take(&mut self, prefix: &str, table: Table) -> Result<(), UsageError> {
        for (key, value) in table {
            let name = format!("{prefix}{key}");
            let values = match value {
                Value::Table(table) => {
                    self.take(&format!("{name}-"), table)?;
                    continue;
                }
                Value::Array(values) => values,
                value => vec![value],
            };
            let values = values.into_iter().map(|value| match value {
                Value::String(text) => Ok(text),
                Value::Integer(number) => Ok(number.to_string()),
                Value::Boolean(boolean) => Ok(boolean.to_string()),
                other => Err(UsageError(format!(
                    "{}: `{name}` is a {}; a text, a number, true, false, or a list of these is wanted",
                    self.path.display(),
                    other.type_str(),
                ))),
            });
            let values = values.collect::<Result<_, _>>()?;
            if self.settings.insert(name.clone(), values).is_some() {
                return Err(UsageError(format!(
                    "{}: `{name}` is there twice, once by itself and once in a table",
                    self.path.display()
                )));
            }
        }
        Ok(())
    }

    /// Paths are from the directory of the file, wherever the server is started.
    fn relative(&self, arg: &Arg, values: Vec<String>) -> Vec<OsString> {
        let base = self.path.parent().unwrap_or(Path::new(""));
        let values = values.into_iter().map(|value| match is_path(arg) {
            true => base.join(value).into_os_string(),
            false => value.into(),
        });
        values.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_is_a_variable_of_the_environment_by_the_same_name() {
        for arg in settings(&command()) {
            let variable = format!("{ENVIRONMENT}{}", arg.get_id().as_str().to_uppercase());
            assert_eq!(arg.get_env(), Some(OsStr::new(&variable)));
            if let Some(long) = arg.get_long() {
                assert_eq!(name_of(arg), long);
            }
        }
    }

    #[test]
    fn what_is_secret_in_a_url_is_not_printed() {
        for (url, shown) in [
            ("https://a.example/b", "https://a.example/b"),
            (
                "https://u:s3cret@a.example:8/b@c",
                "https://…@a.example:8/b@c",
            ),
            ("https://a.example/b?key=s3cret", "https://a.example/b?…"),
            ("http://s3cret@a.example", "http://…@a.example"),
            ("127.0.0.1:4437", "127.0.0.1:4437"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }
}
