//! Records of many topics: storing, reading, following, listing and deleting them.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use tempfile::tempdir;

use crate::keystrokes;
use crate::process::{
    Appender, append, cat, dacapo, expect_code, run, run_with_input, spawn_watched, stat, text,
};

#[test]
fn the_section_of_the_readme_shows_what_the_commands_print() {
    let readme = include_str!("../../../../README.md");
    let section = readme.split("\n## Topics\n").nth(1).unwrap();
    let block = section.split("```console\n").nth(1).unwrap();
    let block = block.split("```").next().unwrap();
    let dir = tempdir().unwrap();
    let built = Path::new(env!("CARGO_BIN_EXE_dacapo")).parent().unwrap();
    let path = format!("{}:{}", built.display(), std::env::var("PATH").unwrap());

    let shown = format!("\n{block}");
    let commands: Vec<&str> = shown.split("\n$ ").skip(1).collect();
    assert_eq!(commands.len(), 8);
    for shown in commands {
        let (command, expected) = shown.split_once('\n').unwrap_or((shown, ""));
        let ran = Command::new("sh")
            .args(["-c", command])
            .env("PATH", &path)
            .current_dir(&dir)
            .output()
            .unwrap();
        expect_code(&ran, 0);
        assert_eq!(text(&ran.stdout).trim_end(), expected.trim_end());
        assert_eq!(text(&ran.stderr), "", "{command}");
    }
}

#[test]
fn the_section_of_the_readme_shows_what_the_library_does() -> Result<(), Box<dyn std::error::Error>>
{
    use dacapo_log::{Log, Start, Topic};
    let dir = tempdir()?;

    let log = Log::open(dir.path())?;
    let (lobby, hall) = (Topic::new("rooms:lobby")?, Topic::new("rooms:hall")?);
    log.append_to(&lobby, b"hello")?;
    log.append_batch_to([(&hall, "tea?"), (&lobby, "bye")])?;

    assert_eq!(log.replay(Start::Oldest).topic(&lobby).count(), 2);
    let mut rooms = log.tail(Start::Oldest).prefix("rooms:");
    assert_eq!(rooms.next_blocking()?.topic(), "rooms:lobby");
    log.delete_topic(&lobby)?;
    assert_eq!(log.topics().count(), 1);
    Ok(())
}

#[test]
fn all_lines_go_to_the_topic_that_is_named() {
    let dir = tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    append(dir.path(), b"none\n");
    append_with(path, &["--topic", "lobby"], b"one\n\ntwo");
    let acks = run_with_input(
        ["append", "--topic=hall", "--acks", "--durable", path],
        b"three\n",
    );
    assert_eq!(text(&acks.stdout), "4\n");
    append_with(path, &["--topic", "lobby", "--raw"], b"fo\nur");

    assert_eq!(
        text(&cat(dir.path())),
        "none\none\n\ntwo\nthree\nfo\nur\n",
        "the order of the log"
    );
    assert_eq!(printed(&["cat", "--topic", "hall", path]), "three\n");
    let lobby = printed(&["cat", "--topic", "lobby", path]);
    assert_eq!(lobby, "one\n\ntwo\nfo\nur\n");
    assert_eq!(
        printed(&["cat", "--raw", "--topic", "lobby", path]),
        "onetwofo\nur"
    );
    assert_eq!(printed(&["cat", "--topic", "cellar", path]), "");
    let topics: Vec<Value> = objects(&["cat", "--json", path])
        .into_iter()
        .map(|record| record["topic"].clone())
        .collect();
    let (none, lobby, hall) = (Value::Null, json!("lobby"), json!("hall"));
    assert_eq!(
        topics,
        [&none, &lobby, &lobby, &lobby, &hall, &lobby].map(Clone::clone)
    );
}

#[test]
fn each_line_goes_to_the_topic_in_its_field() {
    let dir = tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let options = ["--topic-field", "room", "--acks", "--durable"];
    let args = [&["append"], &options[..], &[path]].concat();
    let acks = run_with_input(
        &args,
        b"{\"room\":\"lobby\",\"n\":1}\n{\"n\":2,\"room\":\"h\\u00e4ll\"}\n{\"room\":\"lobby\"}",
    );
    expect_code(&acks, 0);
    assert!(text(&acks.stdout).ends_with("2\n"), "{acks:?}");
    append_with(
        path,
        &["--topic-field", "at.room"],
        b"{\"at\":{\"room\":\"lobby\"}}\n",
    );
    append_with(
        path,
        &["--topic-field", "room", "--raw"],
        b"{\n  \"room\": \"lobby\"\n}\n",
    );

    assert_eq!(
        printed(&["cat", "--topic", "lobby", path]),
        "{\"room\":\"lobby\",\"n\":1}\n{\"room\":\"lobby\"}\n{\"at\":{\"room\":\"lobby\"}}\n{\n  \"room\": \"lobby\"\n}\n\n",
        "each line as it came in"
    );
    assert_eq!(
        printed(&["cat", "--topic", "häll", path]),
        "{\"n\":2,\"room\":\"h\\u00e4ll\"}\n"
    );
}

#[test]
fn a_line_without_a_topic_ends_an_append_and_what_came_before_it_is_stored() {
    let longest = "x".repeat(255);
    let too_long = format!(r#"{{"room":"{longest}x"}}"#);
    for (line, found) in [
        (r#"{"n":3}"#, r#"there is no field `room`: {"n":3}"#),
        ("hello", "no JSON, where the topic is in field `room`"),
        ("", "no JSON, where the topic is in field `room`"),
        (r#"{"room":7}"#, "field `room` is no text: 7"),
        (r#"{"room":""}"#, "field `room` is no topic"),
        (&too_long, "this name has 256"),
    ] {
        for options in [&["--acks"][..], &["--acks", "--durable"]] {
            let dir = tempdir().unwrap();
            let path = dir.path().to_str().unwrap();
            let before = format!("{{\"room\":\"{longest}\"}}\n{{\"room\":\"b\"}}\n");
            let input = format!("{before}{line}\n{{\"room\":\"behind\"}}\n");

            let args = ["append", "--topic-field", "room", path];
            let output = run_with_input([&args, options].concat(), input.as_bytes());

            expect_code(&output, 1);
            let said = text(&output.stderr);
            assert!(said.contains("dacapo: line 3 of the input: "), "{said}");
            assert!(
                said.contains(found) && said.contains("Stored 2 records"),
                "{said}"
            );
            assert_eq!(text(&output.stdout), "1\n", "acknowledged");
            assert_eq!(text(&cat(dir.path())), before);
        }
    }
}

#[test]
fn a_first_or_a_last_line_without_a_topic_is_told_with_its_number() {
    let dir = tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let mut appender = Appender::start(dir.path(), &["--topic-field", "room"]);
    assert!(appender.feed(b"{\"room\":\"lobby\"}\n"));
    appender.wait_for(1);
    assert!(appender.feed(b"{\"room\":null}\n"));
    let (status, said) = appender.finish();
    assert_eq!(status.code(), Some(1));
    assert!(
        said.contains("line 2 of the input: field `room` is no text: null"),
        "{said}"
    );

    let unended = run_with_input(
        ["append", "--topic-field", "room", path],
        b"{\"room\":\"lobby\"}\n{",
    );
    expect_code(&unended, 1);
    let said = text(&unended.stderr);
    assert!(said.contains("line 2 of the input: no JSON"), "{said}");

    let nothing = run_with_input(["append", "--acks", "--topic-field", "room", path], b"1\n");
    expect_code(&nothing, 1);
    let said = text(&nothing.stderr);
    assert!(said.contains("Stored no records."), "{said}");
    assert!(
        said.contains("line 1 of the input: there is no field"),
        "{said}"
    );
    assert_eq!(text(&nothing.stdout), "", "nothing to acknowledge");
    assert_eq!(stat(dir.path())["records"], 2);
}

#[test]
fn a_tail_of_a_topic_sees_exactly_its_lines_as_they_come() {
    let dir = tempdir().unwrap();
    let mut appender = Appender::start(dir.path(), &["--topic-field", "room"]);
    let line = |room: &str, n: u64| format!("{{\"room\":\"{room}\",\"n\":{n}}}\n");
    assert!(appender.feed(line("lobby", 0).as_bytes()));
    appender.wait_for(1);
    let mut of_lobby = Following::start(dir.path(), &["--topic", "lobby"]);
    let mut of_durable = Following::start(dir.path(), &["--topic=lobby", "--durable"]);
    let mut of_both = Following::start(dir.path(), &["--topic=lobby", "--topic=hall", "--json"]);
    let mut of_all = Following::start(dir.path(), &["--prefix", ""]);
    let mut of_l = Following::start(dir.path(), &["--prefix=l", "--topic=hall"]);
    assert_eq!(of_lobby.line(), line("lobby", 0));
    assert_eq!(of_all.line(), line("lobby", 0));
    assert_eq!(of_l.line(), line("lobby", 0));
    assert_eq!(of_both.line(), "lobby");

    for n in 1..=50 {
        // Each line of the lobby is seen before the next is written.
        let lines = line("hall", n) + &line("lobby", n) + &line("cellar", n);
        assert!(appender.feed(lines.as_bytes()));
        appender.wait_for(3 * n + 1);
        assert_eq!(of_lobby.line(), line("lobby", n));
        assert_eq!([of_both.line(), of_both.line()], ["hall", "lobby"]);
        assert_eq!(
            [of_l.line(), of_l.line()],
            [line("hall", n), line("lobby", n)]
        );
        for room in ["hall", "lobby", "cellar"] {
            assert_eq!(of_all.line(), line(room, n));
        }
    }
    assert!(appender.finish().0.success());
    // Closing makes durable what nobody has synced.
    for n in 0..=50 {
        assert_eq!(of_durable.line(), line("lobby", n));
    }
}

#[test]
fn a_tail_of_a_topic_from_the_latest_is_counted_by_its_own_records() {
    let dir = tempdir().unwrap();
    append_with(
        dir.path().to_str().unwrap(),
        &["--topic", "lobby"],
        b"old\n",
    );
    let mut appender = Appender::start(dir.path(), &["--topic-field", "room"]);
    let options = ["--from", "latest", "--count", "3", "--topic", "lobby"];
    let mut tail = Following::start(dir.path(), &options);

    let mut number = 0;
    while tail.child.try_wait().unwrap().is_none() {
        number += 1;
        let lines = format!("{{\"room\":\"hall\"}}\n{{\"room\":\"lobby\",\"n\":{number}}}\n");
        assert!(appender.feed(lines.as_bytes()));
        appender.wait_for(2 * number + 1);
    }

    let seen: Vec<u64> = (0..3)
        .map(|_| {
            let record: Value = serde_json::from_str(&tail.line()).unwrap();
            assert_eq!(record["room"], "lobby");
            record["n"].as_u64().unwrap()
        })
        .collect();
    assert_eq!(seen, [seen[0], seen[0] + 1, seen[0] + 2]);
    assert!(tail.lines.next().is_none(), "no more than it was asked for");
}

#[test]
fn documents_written_at_the_same_time_are_each_read_back_from_their_topics() {
    const KEYS: usize = 19_749;
    let keys = keystrokes::unpack();
    let starts = keystrokes::line_starts(&keys);
    let key = |number: usize| text(&keys[starts[number] + 1..starts[number + 1]]);
    let mut input = String::new();
    // The second document is some way behind the first.
    for step in 0..KEYS + 500 {
        for (document, number) in [("one", Some(step)), ("two", step.checked_sub(500))] {
            if let Some(number) = number.filter(|number| *number < KEYS) {
                write!(input, "{{\"doc\":\"docs:{document}\",{}", key(number)).unwrap();
            }
        }
    }
    let dir = tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    append(dir.path(), b"of no document\n");
    let tail = spawn_watched(
        dacapo(["tail", "--topic", "docs:two", "--count", "19749", path])
            .stdin(Stdio::null())
            .stdout(Stdio::piped()),
    );
    append_with(
        path,
        &["--topic-field", "doc", "--segment-bytes-max", "128K"],
        input.as_bytes(),
    );
    assert!(stat(dir.path())["segments"].as_u64().unwrap() > 10);

    for document in ["docs:one", "docs:two"] {
        let lines = run(["cat", "--topic", document, path]).stdout;
        let written = keystrokes::write_text(&lines);
        assert!(written == keystrokes::FINAL_TEXT, "{document}");
    }
    let followed = tail.wait_with_output().unwrap();
    let written = keystrokes::write_text(&followed.stdout);
    assert!(written == keystrokes::FINAL_TEXT, "live");
    let listed = objects(&["topics", "--json", path]);
    assert_eq!(listed[0]["topic"], "docs:one");
    assert_eq!(listed[0]["records"], KEYS);
    assert_eq!(listed[1]["records"], KEYS);
    assert_eq!(listed.len(), 2);
    let docs = run(["cat", "--prefix", "docs:", path]).stdout;
    assert!(docs == input.as_bytes());
}

#[test]
fn topics_are_listed_in_the_order_of_their_names() {
    let dir = tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    append(dir.path(), b"of no topic\n");
    assert_eq!(printed(&["topics", path]), "0 topics, 0 records\n");
    let rooms = ["b", "a:2", "ä", "a:1", "a:2", "line\\nbreak", "b", "b"];
    let lines: String = rooms
        .iter()
        .map(|room| format!("{{\"room\":\"{room}\"}}\n"))
        .collect();
    append_with(path, &["--topic-field", "room"], lines.as_bytes());

    let expected = "\
records  first   last  topic
      1      4      4  a:1
      2      2      5  a:2
      3      1      8  b
      1      6      6  line\\nbreak
      1      3      3  ä
5 topics, 8 records
";
    assert_eq!(printed(&["topics", path]), expected);
    let expected = "\
records  first   last  topic
      1      4      4  a:1
      2      2      5  a:2
2 topics, 3 records
";
    assert_eq!(printed(&["topics", path, "--prefix", "a:"]), expected);
    assert_eq!(
        printed(&["topics", path, "--prefix", "line", "--json"]),
        "{\"topic\":\"line\\nbreak\",\"records\":1,\"first_offset\":6,\"last_offset\":6}\n"
    );
}

#[test]
fn a_hundred_thousand_topics_are_listed_from_many_segments() {
    let dir = tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let mut input = String::new();
    for number in 0..200_000 {
        writeln!(input, "{{\"id\":\"t{:06}\"}}", number % 100_000).unwrap();
    }
    let options = ["--topic-field", "id", "--segment-bytes-max", "1M"];
    append_with(path, &options, input.as_bytes());
    assert!(stat(dir.path())["segments"].as_u64().unwrap() > 5);

    let listed = printed(&["topics", path]);

    let mut lines = listed.lines();
    assert_eq!(lines.next(), Some("records   first    last  topic"));
    for number in 0..100_000 {
        let expected = format!("      2  {number:>6}  {}  t{number:06}", number + 100_000);
        assert_eq!(lines.next(), Some(expected.as_str()));
    }
    assert_eq!(lines.next(), Some("100,000 topics, 200,000 records"));
    assert_eq!(lines.next(), None);
}

#[test]
fn a_deleted_topic_is_gone_from_its_readers_and_begins_anew() {
    let dir = tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    append_with(path, &["--topic", "lobby"], b"one\ntwo\n");
    append_with(path, &["--topic", "lobby2"], b"other\n");
    let mut tail = Following::start(dir.path(), &["--topic", "lobby", "--json", "-n", "4"]);
    assert_eq!([tail.line(), tail.line()], ["lobby", "lobby"]);

    let deleted = printed(&["delete-topic", path, "lobby"]);

    assert_eq!(
        deleted,
        "Deleted 2 records of topic `lobby`, by the record at offset 3.\n\
         The space comes back by a compaction.\n"
    );
    assert_eq!(tail.line(), "lobby deleted");
    assert_eq!(stat(dir.path())["durable_offset"], 4);
    assert_eq!(printed(&["cat", "--topic", "lobby", path]), "");
    append_with(path, &["--topic", "lobby"], b"new\n");
    assert_eq!(tail.line(), "lobby");
    assert!(tail.child.wait().unwrap().success(), "a deletion counts");

    assert_eq!(printed(&["cat", "--topic", "lobby", path]), "new\n");
    assert_eq!(printed(&["cat", path]), "one\ntwo\nother\nnew\n");
    assert_eq!(printed(&["cat", "--raw", path]), "onetwoothernew");
    let resumed = objects(&["cat", "--json", "--topic", "lobby", "--from", "1", path]);
    assert_eq!(resumed.len(), 2);
    assert_eq!(resumed[0]["deleted"], true);
    assert_eq!(resumed[0]["offset"], 3);
    assert_eq!(resumed[0].get("payload"), None);
    assert_eq!(resumed[1].get("deleted"), None);
    assert_eq!(resumed[1]["payload"], "new");
    let listed = printed(&["topics", path]);
    assert!(listed.ends_with("2 topics, 2 records\n"), "{listed}");

    let log = dacapo_log::Log::open(dir.path()).unwrap();
    log.compact(|_| ()).unwrap();
    log.close().unwrap();
    assert_eq!(printed(&["cat", path]), "other\nnew\n");
    assert_eq!(printed(&["cat", "--to", "2", path]), "");
    assert_eq!(printed(&["cat", "--to", "3", path]), "other\n");
    assert_eq!(printed(&["topics", path]), listed);
}

#[test]
fn a_topic_that_is_not_there_cannot_be_deleted() {
    let dir = tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    append_with(path, &["--topic", "lobby"], b"one\n");
    append_with(path, &["--topic", "hall"], b"two\n");
    expect_code(&run(["delete-topic", path, "hall"]), 0);

    // A name that begins another one, and one whose records are deleted.
    for name in ["lob", "hall", "lobby\n"] {
        let refused = run(["delete-topic", path, name]);
        expect_code(&refused, 1);
        let said = text(&refused.stderr);
        let shown = name.replace('\n', "\\n");
        assert!(said.contains(&format!("has no topic `{shown}`")), "{said}");
        assert_eq!(text(&refused.stdout), "");
        assert_eq!(stat(dir.path())["records"], 3);
    }
}

#[test]
fn a_topic_is_deleted_in_a_log_that_is_there_and_not_being_written() {
    let dir = tempdir().unwrap();
    let missing = dir.path().join("missing");
    expect_code(
        &run(["delete-topic", missing.to_str().unwrap(), "lobby"]),
        2,
    );
    assert!(!missing.exists());

    let log = dir.path().join("log");
    let mut appender = Appender::start(&log, &["--topic", "lobby"]);
    assert!(appender.feed(b"one\n"));
    appender.wait_for(1);
    let refused = run(["delete-topic", log.to_str().unwrap(), "lobby"]);
    expect_code(&refused, 1);
    let said = text(&refused.stderr);
    assert!(
        said.contains(&format!("process {}", appender.pid())),
        "{said}"
    );
    assert!(appender.finish().0.success());
    assert_eq!(text(&cat(&log)), "one\n");
}

#[test]
fn a_range_of_a_topic_ends_before_its_end() {
    let dir = tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    append_with(path, &["--topic", "lobby"], b"zero\none\n");
    append_with(path, &["--topic", "hall"], b"two\nthree\nfour\n");
    append_with(path, &["--topic", "lobby"], b"five\n");
    let lobby = |options: &[&str]| printed(&[&["cat", path, "--topic", "lobby"], options].concat());
    assert_eq!(lobby(&["--to", "5"]), "zero\none\n");
    assert_eq!(lobby(&["--from", "1", "--to", "6"]), "one\nfive\n");
    assert_eq!(lobby(&["--from", "2", "--to", "4"]), "");
}

#[test]
fn damage_in_a_topic_is_told_where_it_is_and_nowhere_else() {
    let dir = tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    append_with(path, &["--topic", "lobby"], b"zero\n");
    append_with(path, &["--topic", "hall"], b"one\ntwo\n");
    append_with(path, &["--topic", "lobby"], b"the damaged one\nfour\n");
    damage(dir.path(), b"the damaged one");

    let lobby = run(["cat", "--topic", "lobby", path]);
    expect_code(&lobby, 1);
    assert_eq!(text(&lobby.stdout), "zero\n");
    let said = text(&lobby.stderr);
    assert!(
        said.contains("record 3") && said.contains("--skip-damaged"),
        "{said}"
    );

    let skipping = run(["cat", "--skip-damaged", "--topic", "lobby", path]);
    expect_code(&skipping, 1);
    assert_eq!(text(&skipping.stdout), "zero\nfour\n");
    let said = text(&skipping.stderr);
    assert!(said.contains("left out record 3\n"), "{said}");

    assert_eq!(
        printed(&["cat", "--topic", "lobby", "--to", "3", path]),
        "zero\n"
    );
}

#[test]
fn a_log_without_topics_is_printed_without_a_word_of_them() {
    let dir = tempdir().unwrap();
    append(dir.path(), b"one\n\xff\n");
    let path = dir.path().to_str().unwrap();
    for command in [&["cat", "--json"][..], &["tail", "--json", "-n", "2"]] {
        let lines = printed(&[command, &[path]].concat());
        let times: Vec<String> = lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["time"].to_string())
            .collect();
        assert_eq!(
            lines,
            format!(
                "{{\"offset\":0,\"time\":{},\"payload\":\"one\"}}\n{{\"offset\":1,\"time\":{},\"payload_base64\":\"/w==\"}}\n",
                times[0], times[1]
            )
        );
    }
}

/// Appends with options, which must succeed.
fn append_with(path: &str, options: &[&str], input: &[u8]) {
    let args = [&["append"], options, &[path]].concat();
    expect_code(&run_with_input(args, input), 0);
}

/// What a command prints, which must succeed.
fn printed(args: &[&str]) -> String {
    let output = run(args);
    expect_code(&output, 0);
    text(&output.stdout)
}

/// What a command prints, an object a line.
fn objects(args: &[&str]) -> Vec<Value> {
    let objects = printed(args);
    let lines = objects.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Changes a byte of a stored payload.
fn damage(dir: &Path, payload: &[u8]) {
    let paths = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    for path in paths.filter(|path| path.extension().is_some_and(|ext| ext == "seg")) {
        let mut bytes = fs::read(&path).unwrap();
        let found = bytes
            .windows(payload.len())
            .position(|part| part == payload);
        if let Some(at) = found {
            bytes[at] ^= 1;
            return fs::write(&path, bytes).unwrap();
        }
    }
    panic!("there is no such payload");
}

/// `dacapo tail`, read line by line, and killed in the end.
struct Following {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    json: bool,
}

impl Following {
    fn start(dir: &Path, options: &[&str]) -> Self {
        let mut child = spawn_watched(
            dacapo(["tail"])
                .args(options)
                .arg(dir)
                .stdin(Stdio::null())
                .stdout(Stdio::piped()),
        );
        Self {
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            json: options.contains(&"--json"),
            child,
        }
    }

    /// The next line; of JSON, the topic, and whether it is deleted.
    fn line(&mut self) -> String {
        let line = self.lines.next().expect("the tail ended early").unwrap();
        if !self.json {
            return line + "\n";
        }
        let record: Value = serde_json::from_str(&line).unwrap();
        let deleted = if record["deleted"] == true {
            " deleted"
        } else {
            ""
        };
        format!("{}{deleted}", record["topic"].as_str().unwrap())
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // One that was counted has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
