//! `dacapo serve`: kills, restarts, an orderly end, and who is let in.

use std::fs;
use std::io::{BufRead, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use dacapo_log::Log;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::process::{can_run, dacapo, expect_code, stat, text};
use crate::server::{Answer, Server, read_head, request, send};

const JSON: (&str, &str) = ("content-type", "application/json");
const TEXT: (&str, &str) = ("content-type", "text/plain");

/// Messages of one POST, which are there all or not at all.
const BATCH: u64 = 3;

/// A publisher that resends what it has no answer for.
#[derive(Clone)]
struct Publisher {
    number: usize,
    /// The sequence that has no answer yet.
    next: u64,
    last_offset: String,
}

impl Publisher {
    fn publish(&self, address: SocketAddr) -> std::io::Result<Answer> {
        let messages: Vec<Value> = (0..BATCH)
            .map(|part| json!([self.number, self.next, part]))
            .collect();
        let (id, seq) = (format!("p{}", self.number), self.next.to_string());
        let headers = [
            JSON,
            ("producer-id", &id),
            ("producer-epoch", "0"),
            ("producer-seq", &seq),
        ];
        let body = Value::from(messages).to_string();
        request(address, "POST", "/v1/stream/load", &headers, &body)
    }

    /// Publishes until the server is gone, telling of each acknowledgement.
    fn publish_until_the_end(mut self, address: SocketAddr, acks: &mpsc::Sender<()>) -> Self {
        // What was sent again may have been stored already.
        let mut accepted: &[u16] = &[200, 204];
        while let Ok(answer) = self.publish(address) {
            assert!(accepted.contains(&answer.status), "{answer:?}");
            assert!(
                answer.next_offset() > self.last_offset.as_str(),
                "{answer:?}"
            );
            self.last_offset = answer.next_offset().to_owned();
            self.next += 1;
            accepted = &[200];
            let _ = acks.send(());
        }
        self
    }
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_when_the_server_is_killed_under_load() {
    let dir = tempdir().unwrap();
    let first = Server::start(dir.path(), &[]);
    assert_eq!(first.ask("PUT", "/v1/stream/load", &[JSON], "").status, 201);
    first.kill();
    let mut publishers: Vec<Publisher> = (0..4)
        .map(|number| Publisher {
            number,
            next: 0,
            last_offset: String::new(),
        })
        .collect();

    for round in 0..6 {
        let server = Server::start(dir.path(), &[]);
        let address = server.address();
        publishers = thread::scope(|scope| {
            let (told, acks) = mpsc::channel();
            let publishing: Vec<_> = publishers
                .drain(..)
                .map(|publisher| {
                    let told = told.clone();
                    scope.spawn(move || publisher.publish_until_the_end(address, &told))
                })
                .collect();
            drop(told);
            for _ in 0..30 + 7 * round {
                acks.recv()
                    .expect("they publish until the server is killed");
            }
            server.kill();
            publishing
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
    }

    let server = Server::start(dir.path(), &[]);
    let stored = read_all(&server, "/v1/stream/load");
    for publisher in &publishers {
        let of_it = stored
            .iter()
            .filter(|message| message[0] == publisher.number);
        let of_it: Vec<&Value> = of_it.collect();
        let batches = of_it.len() as u64 / BATCH;
        // The last one was stored, or it was not; nobody was told.
        let acknowledged = publisher.next;
        assert!(
            (acknowledged..=acknowledged + 1).contains(&batches),
            "{batches} {acknowledged}"
        );
        let expected: Vec<Value> = (0..batches)
            .flat_map(|seq| (0..BATCH).map(move |part| (seq, part)))
            .map(|(seq, part)| json!([publisher.number, seq, part]))
            .collect();
        assert_eq!(of_it, expected.iter().collect::<Vec<_>>());
    }
    let tail = server.ask("HEAD", "/v1/stream/load", &[], "");
    let highest = publishers
        .iter()
        .map(|publisher| publisher.last_offset.as_str())
        .max();
    assert!(tail.next_offset() >= highest.unwrap());
}

/// All messages of a JSON stream, page by page.
fn read_all(server: &Server, path: &str) -> Vec<Value> {
    let mut messages = Vec::new();
    let mut offset = "-1".to_owned();
    loop {
        let page = server.ask("GET", &format!("{path}?offset={offset}"), &[], "");
        assert_eq!(page.status, 200, "{page:?}");
        messages.extend(page.json().as_array().unwrap().clone());
        page.next_offset().clone_into(&mut offset);
        if page.header("stream-up-to-date") == Some("true") {
            return messages;
        }
    }
}

/// A server that was killed, and then started anew.
fn killed_and_restarted(server: Server, dir: &Path) -> Server {
    server.kill();
    Server::start(dir, &[])
}

#[test]
fn what_a_stream_allows_next_is_known_after_a_kill() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let path = "/v1/stream/notes";
    let of_producer = |seq| {
        [
            TEXT,
            ("producer-id", "p"),
            ("producer-epoch", "2"),
            ("producer-seq", seq),
        ]
    };
    let of_seq = |seq| [TEXT, ("stream-seq", seq)];
    let ttl = ("stream-ttl", "3600");
    assert_eq!(server.ask("PUT", path, &[TEXT, ttl], "").status, 201);
    assert_eq!(server.ask("POST", path, &of_producer("0"), "a").status, 200);
    assert_eq!(server.ask("POST", path, &of_seq("b"), "b").status, 204);

    let server = killed_and_restarted(server, dir.path());

    assert_eq!(server.ask("PUT", path, &[TEXT, ttl], "").status, 200);
    assert_eq!(server.ask("PUT", path, &[TEXT], "").status, 409);
    assert_eq!(
        server.ask("HEAD", path, &[], "").header("stream-ttl"),
        Some("3600")
    );
    assert_eq!(
        server.ask("POST", path, &of_producer("0"), "again").status,
        204
    );
    let gap = server.ask("POST", path, &of_producer("2"), "c");
    assert_eq!(
        (gap.status, gap.header("producer-expected-seq")),
        (409, Some("1"))
    );
    assert_eq!(server.ask("POST", path, &of_seq("a"), "c").status, 409);
    assert_eq!(
        server
            .ask("POST", path, &[("stream-closed", "true")], "")
            .status,
        204
    );

    let server = killed_and_restarted(server, dir.path());

    let closed = server.ask("POST", path, &[TEXT], "d");
    assert_eq!(
        (closed.status, closed.header("stream-closed")),
        (409, Some("true"))
    );
    let read = server.ask("GET", path, &[], "");
    assert_eq!(
        (read.body.as_str(), read.header("stream-closed")),
        ("ab", Some("true"))
    );
    assert_eq!(server.ask("DELETE", path, &[], "").status, 204);

    let server = killed_and_restarted(server, dir.path());

    assert_eq!(server.ask("GET", path, &[], "").status, 404);
    assert_eq!(server.ask("PUT", path, &[TEXT], "new").status, 201);
    let old = format!("{path}?offset={}", closed.next_offset());
    assert_eq!(
        server.ask("GET", &old, &[], "").status,
        410,
        "an offset of the deleted stream"
    );
    assert_eq!(server.ask("GET", path, &[], "").body, "new");
}

#[test]
fn many_steps_of_a_stream_are_one_state_after_a_kill() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let path = "/v1/stream/steps";
    let append = |server: &Server, seq: usize| {
        let seq = seq.to_string();
        let headers = [
            TEXT,
            ("producer-id", "p"),
            ("producer-epoch", "0"),
            ("producer-seq", &seq),
        ];
        server.ask("POST", path, &headers, "x").status
    };
    server.ask("PUT", path, &[TEXT], "");
    // More than are stored before a whole state is, and then some.
    for seq in 0..150 {
        assert_eq!(append(&server, seq), 200);
    }

    let server = killed_and_restarted(server, dir.path());

    assert_eq!(append(&server, 149), 204);
    assert_eq!(append(&server, 151), 409);
    assert_eq!(append(&server, 150), 200);
    assert_eq!(server.ask("GET", path, &[], "").body, "x".repeat(151));
}

#[test]
fn a_fork_and_what_it_is_made_of_are_there_after_a_kill() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let (source, fork) = ("/v1/stream/source", "/v1/stream/fork");
    let created = server.ask("PUT", source, &[TEXT], "hello");
    let at = created.next_offset().to_owned();
    server.ask("POST", source, &[TEXT], " world");
    let from = [
        ("stream-forked-from", source),
        ("stream-fork-offset", &at),
        ("stream-fork-sub-offset", "3"),
    ];
    assert_eq!(server.ask("PUT", fork, &from, "!").status, 201);
    assert_eq!(server.ask("DELETE", source, &[], "").status, 204);

    let server = killed_and_restarted(server, dir.path());

    assert_eq!(server.ask("GET", source, &[], "").status, 410);
    assert_eq!(server.ask("PUT", source, &[TEXT], "").status, 409);
    assert_eq!(server.ask("GET", fork, &[], "").body, "hello wo!");
    assert_eq!(server.ask("DELETE", fork, &[], "").status, 204);

    let server = killed_and_restarted(server, dir.path());

    assert_eq!(server.ask("GET", fork, &[], "").status, 404);
    assert_eq!(server.ask("PUT", source, &[TEXT], "").status, 201);
}

#[test]
fn a_stream_whose_time_is_over_gives_its_space_back_though_nobody_asks_for_it() {
    let dir = tempdir().unwrap();
    let mut server = Server::start(dir.path(), &["--sweep-interval", "20ms"]);
    let expires = ("stream-expires-at", "2020-01-01T00:00:00Z");
    server.ask("PUT", "/v1/stream/old", &[TEXT, expires], "hello");
    server.ask("PUT", "/v1/stream/young", &[TEXT], "hello");

    server.wait_until_it_says("the time of some streams was over");

    let log = Log::options().open_read_only(dir.path()).unwrap();
    let topics: Vec<String> = log
        .topics()
        .map(|found| found.unwrap().topic.to_string())
        .collect();
    assert_eq!(topics, ["__ds/young", "young"]);
    assert_eq!(server.ask("GET", "/v1/stream/young", &[], "").body, "hello");
}

#[test]
fn a_server_that_is_asked_to_stop_ends_what_waits_and_closes_the_log() {
    for signal in [Signal::INT, Signal::TERM] {
        let dir = tempdir().unwrap();
        let server = Server::start(dir.path(), &[]);
        server.ask("PUT", "/v1/stream/a", &[TEXT], "hello");
        let path = "/v1/stream/a?offset=-1&live=sse";
        let mut events = send(server.address(), "GET", path, &[], "").unwrap();
        assert_eq!(read_head(&mut events).unwrap().status, 200);
        let mut said = String::new();
        while !said.contains("upToDate") {
            assert!(events.read_line(&mut said).unwrap() > 0);
        }

        server.signal(signal);

        events.read_to_string(&mut said).unwrap();
        let (status, log_lines) = server.ended();
        assert_eq!(status.code(), Some(0), "{log_lines}");
        assert!(said.contains("data:hello\n"), "{said}");
        assert_eq!(stat(dir.path())["clean"], true);
    }
}

#[test]
fn an_event_source_that_comes_back_goes_on_where_it_was() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let path = "/v1/stream/a?offset=-1&live=sse";
    let until_closed = |headers: &[(&str, &str)]| {
        let mut events = send(server.address(), "GET", path, headers, "").unwrap();
        let mut said = String::new();
        events.read_to_string(&mut said).unwrap();
        said
    };
    let created = server.ask("PUT", "/v1/stream/a", &[TEXT], "one");
    let end = [TEXT, ("stream-closed", "true")];
    let closed = server.ask("POST", "/v1/stream/a", &end, "two");

    let said = until_closed(&[]);
    assert!(said.contains("data:onetwo\n"), "{said}");
    assert!(
        said.contains(&format!("id: {}\n", closed.next_offset())),
        "{said}"
    );
    let said = until_closed(&[("last-event-id", created.next_offset())]);
    assert!(
        said.contains("data:two\n") && !said.contains("one"),
        "{said}"
    );
}

#[test]
fn what_is_refused_is_said_in_a_problem_document() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--body-bytes-max", "1K"]);
    let path = "/v1/stream/a";
    let large = "x".repeat(1025);
    for (method, headers, body, status) in [
        ("GET", &[] as &[_], "", 404),
        ("PATCH", &[], "", 405),
        ("PUT", &[("stream-ttl", "1e3")], "", 400),
        ("PUT", &[TEXT], large.as_str(), 413),
        ("PUT", &[("stream-forked-from", "/v1/stream/b")], "", 404),
    ] {
        let answer = server.ask(method, path, headers, body);
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json")
        );
        assert_eq!(answer.json()["status"], status);
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
}

#[test]
fn what_the_disk_has_not_taken_is_not_acknowledged_and_not_shown() {
    if !can_run("strace", &["-f", "-o", "/dev/null", "true"]) {
        return;
    }
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let path = "/v1/stream/a";
    server.ask("PUT", path, &[TEXT], "safe");
    let Some(failing) = server.fail_syncs() else {
        return;
    };

    let refused = server.ask("POST", path, &[TEXT], "in the page cache only");

    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(server.ask("GET", path, &[], "").body, "safe");
    assert_eq!(server.ask("POST", path, &[TEXT], "later").status, 503);
    drop(failing);
    assert_eq!(
        server.ask("POST", path, &[TEXT], "after a failure").status,
        503
    );
    let server = killed_and_restarted(server, dir.path());
    assert_eq!(server.ask("POST", path, &[TEXT], "!").status, 204);
    let read = server.ask("GET", path, &[], "");
    assert!(
        read.body.starts_with("safe") && read.body.ends_with('!'),
        "{read:?}"
    );
}

#[test]
fn a_full_disk_refuses_appends_and_they_go_on_once_there_is_space() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let (path, body) = ("/v1/stream/a", "x".repeat(8 << 10));
    server.ask("PUT", path, &[TEXT], "");
    server.limit_files(Some(0));
    let mut stored = 0;
    let refused = loop {
        let answer = server.ask("POST", path, &[TEXT], &body);
        match answer.status {
            204 => stored += 1,
            _ => break answer,
        }
        assert!(stored < 1000, "it is never full");
    };
    assert_eq!(refused.status, 507, "{refused:?}");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(
        server.ask("GET", path, &[], "").body.len(),
        stored * body.len()
    );

    server.limit_files(None);

    assert_eq!(server.ask("POST", path, &[TEXT], &body).status, 204);
    let server = killed_and_restarted(server, dir.path());
    assert_eq!(
        server.ask("GET", path, &[], "").body.len(),
        (stored + 1) * body.len()
    );
}

#[test]
fn a_client_that_says_nothing_does_not_keep_its_place() {
    let dir = tempdir().unwrap();
    let options = [
        "--long-poll-timeout",
        "10ms",
        "--idle-timeout",
        "500ms",
        "--faces",
        "streams",
        "--connections-max",
        "1",
    ];
    let server = Server::start(dir.path(), &options);
    let mut silent = TcpStream::connect(server.address()).unwrap();

    // There is no other place than that of the first one, and each request needs it to be given back.
    let answered = || loop {
        match server.ask("PUT", "/v1/stream/a", &[TEXT], "").status {
            503 => {}
            status => return status,
        }
    };
    assert_eq!([answered(), answered()], [201, 200]);

    assert_eq!(silent.read(&mut [0]).unwrap_or(0), 0);
}

#[test]
fn what_was_done_can_be_counted() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    server.ask("PUT", "/v1/stream/a", &[TEXT], "");
    server.ask("POST", "/v1/stream/a", &[TEXT], "hello");
    server.ask("GET", "/v1/stream/b", &[], "");
    let metrics = server.ask("GET", "/metrics", &[], "");
    for line in [
        "dacapo_appends_total 2",
        "dacapo_append_bytes_total 5",
        "dacapo_errors_total{status=\"404\"} 1",
    ] {
        assert!(
            metrics.body.lines().any(|other| other == line),
            "{line}\n{}",
            metrics.body
        );
    }
}

#[test]
fn other_machines_are_served_only_with_tokens_or_on_demand() {
    let dir = tempdir().unwrap();
    let file = |name| dir.path().join(name).to_str().unwrap().to_owned();
    let (tokens, certificate, key) = (file("tokens"), file("certificate"), file("key"));
    let with_tokens = ["--token-file", &tokens];
    let with_tls = ["--tls-certificate", &certificate, "--tls-key", &key];
    for (options, missing) in [
        (
            &[][..],
            "--token-file or --jwt-keys, and a --tls-certificate",
        ),
        (&with_tokens, "name a --tls-certificate and a --tls-key"),
        (&with_tls, "name a --token-file or --jwt-keys"),
    ] {
        let mut command = dacapo(["serve", "--listen", "0.0.0.0:0"]);
        command.arg(dir.path().join("log")).args(options);
        let output = command.output().unwrap();
        expect_code(&output, 2);
        let said = text(&output.stderr);
        assert!(
            said.contains(missing) && said.contains("--insecure"),
            "{said}"
        );
        assert!(!dir.path().join("log").exists());
    }
    let every = ([0, 0, 0, 0], 0).into();
    let server = Server::start_at(every, &dir.path().join("log"), &["--insecure"]);
    assert!(server.address().ip().is_unspecified());
}

#[test]
fn tokens_let_in_and_are_read_again_on_demand() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("tokens");
    fs::write(&file, "0ld read,append\n").unwrap();
    let options = ["--token-file", file.to_str().unwrap()];
    let mut server = Server::start(&dir.path().join("log"), &options);
    let with = |token| [TEXT, ("authorization", token)];
    let path = "/v1/stream/a";
    assert_eq!(server.ask("PUT", path, &[TEXT], "").status, 401);
    assert_eq!(server.ask("PUT", path, &with("Bearer 0ld"), "").status, 201);
    assert_eq!(
        server.ask("DELETE", path, &with("Bearer 0ld"), "").status,
        403
    );
    let read = server.ask("GET", path, &with("Bearer 0ld"), "");
    assert!(read.header("cache-control").unwrap().starts_with("private"));

    fs::write(&file, "n3w admin\n").unwrap();
    server.signal(Signal::HUP);
    server.wait_until_it_says("the tokens were read again");

    assert_eq!(server.ask("GET", path, &with("Bearer 0ld"), "").status, 401);
    assert_eq!(
        server.ask("DELETE", path, &with("Bearer n3w"), "").status,
        204
    );
}
