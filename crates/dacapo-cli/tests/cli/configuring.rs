//! The settings of `dacapo serve`: where each is from, and what is said of mistakes.

use std::fs;
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::process::{dacapo, expect_code, text};
use crate::server::{Server, read_head, send};

/// `dacapo serve`, without what the environment of the tests says.
fn serve<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = dacapo(["serve"]);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DACAPO_") {
            command.env_remove(name);
        }
    }
    command.args(arguments);
    command
}

/// What a command prints, which must succeed.
fn printed(mut command: Command) -> String {
    let output = command.output().unwrap();
    expect_code(&output, 0);
    text(&output.stdout)
}

fn file(dir: &Path, settings: &str) -> PathBuf {
    let path = dir.join("serve.toml");
    fs::write(&path, settings).unwrap();
    path
}

/// What `--print-config` prints of a setting.
fn line<'a>(printed: &'a str, name: &str) -> &'a str {
    let begin = format!("{name} = ");
    let mut lines = printed.lines();
    lines.find_map(|line| line.strip_prefix(&begin)).unwrap()
}

#[test]
fn a_flag_counts_before_the_environment_before_the_file_before_the_default() {
    let dir = tempdir().unwrap();
    let settings =
        "dir = \"log\"\ngrace = \"2s\"\nsse-duration = \"2s\"\nlong-poll-timeout = \"2s\"\n";
    let path = file(dir.path(), settings);
    let mut command = serve(["--print-config", "--sse-duration", "4s", "--config"]);
    command.arg(&path);
    command.env("DACAPO_SSE_DURATION", "3s");
    command.env("DACAPO_LONG_POLL_TIMEOUT", "3s");

    let printed = printed(command);

    assert_eq!(line(&printed, "sse-duration"), "\"4s\" # flag");
    assert_eq!(line(&printed, "long-poll-timeout"), "\"3s\" # environment");
    assert_eq!(line(&printed, "grace"), "\"2s\" # file");
    assert_eq!(line(&printed, "idle-timeout"), "\"2m\" # default");
    // From where the file is, and not from where the server is started.
    let log = dir.path().join("log");
    assert_eq!(line(&printed, "dir"), format!("{log:?} # file"));
    assert!(
        printed
            .lines()
            .any(|line| line == "# token-file is not set"),
        "{printed}"
    );
}

#[test]
fn a_file_may_say_everything_in_every_form_and_is_what_is_printed() {
    let dir = tempdir().unwrap();
    let settings = r#"
        dir = "log"
        listen = "127.0.0.1:0"
        cors = true
        faces = ["phoenix", "streams", "megaphone"]
        body-bytes-max = 1024
        allow-origin = "https://a.example,https://b.example"

        [megaphone]
        unread-max = 7
        webhook = ["https://user:s3cret@a.example/gone?key=s3cret", "https://b.example"]

        [megaphone.write]
        timeout = "3s"
    "#;
    let path = file(dir.path(), settings);
    let print = |path: &Path| {
        let mut command = serve(["--print-config", "--config"]);
        command.arg(path);
        printed(command)
    };

    let first = print(&path);

    for (name, value) in [
        ("cors", "true"),
        ("faces", r#"["phoenix", "streams", "megaphone"]"#),
        ("body-bytes-max", "1024"),
        (
            "allow-origin",
            r#"["https://a.example", "https://b.example"]"#,
        ),
        ("megaphone-unread-max", "7"),
        ("megaphone-write-timeout", "\"3s\""),
        (
            "megaphone-webhook",
            r#"["https://…@a.example/gone?…", "https://b.example"]"#,
        ),
    ] {
        assert_eq!(line(&first, name), format!("{value} # file"));
    }
    assert!(!first.contains("s3cret"), "{first}");
    let values = |printed: &str| {
        let lines = printed.lines().filter(|line| !line.starts_with('#'));
        let values = lines.map(|line| line.rsplit_once(" # ").unwrap().0.to_owned());
        values.collect::<Vec<_>>()
    };
    let again = dir.path().join("again.toml");
    fs::write(&again, &first).unwrap();
    assert_eq!(values(&print(&again)), values(&first));
}

#[test]
fn a_server_does_what_its_file_and_its_environment_say() {
    let dir = tempdir().unwrap();
    let settings =
        "dir = \"log\"\nlisten = \"127.0.0.1:0\"\n[realtime]\nretry = \"7s\"\ntopic = \"news\"\n";
    let path = file(dir.path(), settings);
    let mut command = serve(["--config"]);
    command.arg(&path).env("DACAPO_LOG_FORMAT", "json");
    command.env("DACAPO_LISTNE", "127.0.0.1:1");
    let server = Server::spawn(command);

    let json = [("content-type", "application/json")];
    let news = "/v1/stream/news";
    assert_eq!(server.ask("PUT", news, &json, r#"{"a":1}"#).status, 201);
    let path = "/v1/events?from=oldest";
    let mut events = send(server.address(), "GET", path, &[], "").unwrap();
    assert_eq!(read_head(&mut events).unwrap().status, 200);
    let mut said = String::new();
    while !said.contains("\"a\":1") {
        assert!(events.read_line(&mut said).unwrap() > 0);
    }
    assert!(said.contains("retry: 7000\n"), "{said}");
    server.signal(Signal::TERM);
    events.read_to_string(&mut said).unwrap();

    let (status, log_lines) = server.ended();
    assert_eq!(status.code(), Some(0));
    let lines: Vec<Value> = log_lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let said: Vec<&Value> = lines
        .iter()
        .map(|line| &line["fields"]["message"])
        .collect();
    assert_eq!(
        said,
        [
            "no setting has this name",
            "serving",
            "shutting down",
            "closed"
        ]
    );
    assert_eq!(lines[0]["fields"]["variable"], "DACAPO_LISTNE");
    assert!(dir.path().join("log/LOCK").exists());
}

#[test]
fn mistakes_in_a_file_are_named_with_the_file() {
    let dir = tempdir().unwrap();
    for (settings, said) in [
        ("listne = \"127.0.0.1:1\"", "`listne` is no setting"),
        ("config = \"other.toml\"", "`config` is no setting"),
        (
            "[megaphone]\nagnet = \"here\"",
            "`megaphone-agnet` is no setting",
        ),
        ("[streams]\ncors = true", "`streams-cors` is no setting"),
        (
            "grace = \"soon\"",
            "invalid value 'soon' for '--grace <DURATION>': a duration, such as 30s",
        ),
        (
            "faces = [\"streams\", \"gopher\"]",
            "invalid value 'gopher' for '--faces <FACES>' [possible values: streams, realtime",
        ),
        (
            "grace = [\"1s\", \"2s\"]",
            "'--grace <DURATION>' cannot be used multiple times",
        ),
        ("grace = 1.5", "`grace` is a float; a text, a number"),
        (
            "grace = 2026-01-01",
            "`grace` is a datetime; a text, a number",
        ),
        ("\n\ngrace = 1s", "serve.toml, line 3: "),
        (
            "megaphone-agent = \"a\"\n[megaphone]\nagent = \"b\"",
            "`megaphone-agent` is there twice",
        ),
        (
            "cors = \"perhaps\"",
            "invalid value 'perhaps' for '--cors[=<BOOL>]'",
        ),
        (
            "listen = \"0.0.0.0:1\"",
            "0.0.0.0:1 can be reached from other machines",
        ),
        (
            "insecure = true\ntoken-file = \"tokens\"",
            "insecure lets everybody in, and token-file does not",
        ),
        (
            "idle-timeout = \"20s\"",
            "--idle-timeout must be longer than --long-poll-timeout: 20s is not longer than 20s",
        ),
    ] {
        let path = file(dir.path(), settings);
        let mut command = serve(["log", "--config"]);
        let output = command.arg(&path).current_dir(dir.path()).output().unwrap();
        expect_code(&output, 2);
        let stderr = text(&output.stderr);
        assert!(stderr.contains(said), "{settings}\n{stderr}");
        let is_of_one_setting = !stderr.contains("other machines")
            && !stderr.contains("lets everybody")
            && !stderr.contains("must be longer");
        assert_eq!(stderr.contains("serve.toml"), is_of_one_setting, "{stderr}");
        assert!(!dir.path().join("log").exists());
    }
}

#[test]
fn a_server_that_is_told_too_little_says_what_it_needs() {
    let output = serve([]).output().unwrap();
    expect_code(&output, 2);
    let said = text(&output.stderr);
    assert!(said.contains("DACAPO_DIR, or `dir` in the file"), "{said}");

    let output = serve(["log", "--config", "/nowhere/serve.toml"])
        .output()
        .unwrap();
    expect_code(&output, 1);
    let said = text(&output.stderr);
    assert!(said.contains("cannot read /nowhere/serve.toml: "), "{said}");

    let mut command = serve(["log"]);
    let output = command.env("DACAPO_GRACE", "soon").output().unwrap();
    expect_code(&output, 2);
    let said = text(&output.stderr);
    assert!(said.contains("invalid value 'soon' for '--grace"), "{said}");
}

const DOCUMENT: &str = include_str!("../../../../docs/serve.md");

#[test]
fn the_example_in_the_documentation_is_a_file_that_is_taken() {
    let dir = tempdir().unwrap();
    let (_, rest) = DOCUMENT.split_once("```toml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let path = file(dir.path(), example);
    let mut command = serve(["--print-config", "--config"]);
    command.arg(&path);

    let printed = printed(command);

    let settings = example.lines().filter(|line| line.contains(" = "));
    let of_file = printed.lines().filter(|line| line.ends_with(" # file"));
    assert_eq!(of_file.count(), settings.count(), "{printed}");
}

#[test]
fn the_documentation_has_every_setting_with_its_default() {
    let printed = printed(serve(["log", "--print-config"]));
    let (_, table) = DOCUMENT.split_once("| setting | default | |\n").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let rows = table.lines().skip(1).map(|row| {
        let mut cells = row.split('|').skip(1).map(str::trim);
        (cells.next().unwrap(), cells.next().unwrap())
    });
    let mut rows = rows.map(|(name, default)| (name.trim_matches('`'), default.trim_matches('`')));
    for line in printed.lines().filter(|line| !line.starts_with("dir = ")) {
        let (name, default) = rows.next().expect(line);
        let expected = match line.strip_prefix("# ") {
            Some(unset) => (unset.strip_suffix(" is not set").unwrap(), "".to_owned()),
            None => {
                let (name, value) = line.split_once(" = ").unwrap();
                let value = value.strip_suffix(" # default").unwrap();
                (name, value.replace('"', ""))
            }
        };
        assert_eq!((name, json!(default)), (expected.0, json!(expected.1)));
    }
    assert_eq!(rows.next(), None);
}
