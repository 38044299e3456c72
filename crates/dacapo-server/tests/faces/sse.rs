//! Server-sent events over a socket: the wire, the resuming, and what a client hears that missed
//! something.

use std::error::Error;
use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use dacapo::{Broadcaster, Json, Lag, Message, Offset, ReplayChannel, Start};
use dacapo_server::sse::{self, EventError, Sender};
use dacapo_server::{Event, LastEventId, Sse, SseConfig};
use futures_util::future::poll_immediate;
use futures_util::{StreamExt, stream};
use tokio::sync::{Notify, mpsc};

use crate::client::{Frames, Logged, serve, soon, until};

type Rooms = Broadcaster<String, String>;

/// What a user writes: the messages of the room `lobby`.
fn lobby(rooms: &Rooms) -> Router {
    lobby_with(rooms, Lag::Never, |_| {})
}

/// The same; `meanwhile` is called when the subscription is made, and nothing of it was read.
fn lobby_with(
    rooms: &Rooms,
    lag: Lag,
    meanwhile: impl Fn(&Rooms) + Clone + Send + Sync + 'static,
) -> Router {
    let rooms = rooms.clone();
    let follow = async move |last: LastEventId| {
        let subscription = rooms.subscribe_from("lobby", last.start()).unwrap();
        meanwhile(&rooms);
        Sse::subscription(subscription.on_lag(lag), |line| {
            Ok(Event::named("line")?.data(line))
        })
    };
    Router::new().route("/", get(follow))
}

fn line(id: u64, text: &str) -> String {
    format!("id: {id}\nevent: line\ndata: {text}")
}

fn gap(reason: &str, requested: u64, resume_at: u64) -> String {
    format!(
        r#"event: gap
data: {{"reason":"{reason}","requested":{requested},"resume_at":{resume_at}}}"#
    )
}

async fn whole_body(response: Response) -> String {
    let body = axum::body::to_bytes(response.into_body(), usize::MAX);
    String::from_utf8(soon(body).await.unwrap().to_vec()).unwrap()
}

/// Acceptance 6.
#[tokio::test]
async fn the_headers_are_those_of_an_event_stream_that_nothing_holds_back() {
    let rooms = Rooms::temporary().unwrap();
    let server = serve(lobby(&rooms)).await;
    let frames = server.frames("/").await;
    let headers = frames.response.headers();
    assert_eq!(headers["content-type"], "text/event-stream");
    assert_eq!(headers["cache-control"], "no-cache");
    assert_eq!(headers["x-accel-buffering"], "no");
}

/// Acceptance 6.
#[tokio::test]
async fn an_idle_stream_is_kept_alive_by_comments() {
    let nothing = || async {
        let config = SseConfig::default().keep_alive_interval(Duration::from_millis(5));
        let config = config.retry(Duration::from_secs(3));
        Sse::new(stream::pending::<Result<Event, EventError>>()).config(config)
    };
    let server = serve(Router::new().route("/", get(nothing))).await;
    let mut frames = server.frames("/").await;
    assert_eq!(frames.next().await.unwrap(), "retry: 3000");
    for _ in 0..3 {
        assert_eq!(frames.next().await.unwrap(), ":");
    }
}

#[tokio::test]
async fn what_has_piled_up_goes_out_in_one_chunk_and_no_chunk_is_without_bound() {
    let event = |n: u32| Ok::<_, EventError>(Event::message(n.to_string()).number(n.into()));
    let chunks_of = |numbers: std::ops::Range<u32>| {
        let body = Sse::new(stream::iter(numbers.map(event))).into_response();
        let chunks = Body::into_data_stream(body.into_body());
        chunks.map(|chunk| chunk.unwrap().len()).collect::<Vec<_>>()
    };
    assert_eq!(chunks_of(0..100).await.len(), 1);
    let chunks = chunks_of(0..100_000).await;
    assert!(chunks.len() > 10, "{chunks:?}");
    assert!(chunks.iter().all(|&bytes| bytes < 33 << 10), "{chunks:?}");
}

#[tokio::test]
async fn an_error_in_a_stream_is_logged_and_ends_the_response_behind_what_came_before() {
    let logged = Logged::default();
    let _guard = logged.listen();
    let items = [
        Ok(Event::message("one")),
        Err("the tea is out"),
        Ok(Event::message("never")),
    ];
    let response = Sse::new(stream::iter(items)).into_response();
    assert_eq!(whole_body(response).await, "data: one\n\n");
    assert!(
        logged.text().contains("the tea is out"),
        "{}",
        logged.text()
    );
}

#[tokio::test]
async fn a_response_that_never_ends_ends_when_it_is_told_to() {
    let end = Arc::new(Notify::new());
    let ending = Arc::clone(&end);
    let endless = move || async move {
        let begun = stream::iter([Ok::<_, EventError>(Event::message("one"))]);
        Sse::new(begun.chain(stream::pending())).end_when(async move { ending.notified().await })
    };
    let server = serve(Router::new().route("/", get(endless))).await;
    let mut frames = server.frames("/").await;
    assert_eq!(frames.next().await.unwrap(), "data: one");
    end.notify_one();
    assert_eq!(frames.next().await, None);
}

type Work = Result<(), Box<dyn Error + Send + Sync>>;

/// Acceptance 7.
#[tokio::test]
async fn a_channel_ends_with_its_closure_however_that_ends_and_the_process_lives() {
    async fn one(events: &Sender) {
        events.send(Event::message("one")).await.unwrap();
    }
    let logged = Logged::default();
    let _guard = logged.listen();
    let ok = async |events: Sender| -> Work {
        one(&events).await;
        Ok(())
    };
    let config = SseConfig::default();
    let response = sse::channel(config, move |events| async move { ok(events).await });
    assert_eq!(whole_body(response).await, "data: one\n\n");
    assert_eq!(logged.text(), "");

    let response = sse::channel(config, |events| async move {
        one(&events).await;
        Err("the tea is out".into())
    });
    assert_eq!(whole_body(response).await, "data: one\n\n");
    until(|| logged.text().contains("the tea is out")).await;

    let response = sse::channel(config, |events| async move {
        one(&events).await;
        panic!("the kettle burst");
    });
    assert_eq!(whole_body(response).await, "data: one\n\n");
    until(|| logged.text().contains("the kettle burst")).await;
}

/// Acceptance 7.
#[tokio::test]
async fn sending_into_a_channel_fails_once_the_client_has_gone() {
    let (failed, mut failures) = mpsc::unbounded_channel();
    let endless = move || async move {
        sse::channel(SseConfig::default(), move |events| async move {
            events.send(Event::message("one")).await?;
            events.disconnected().await;
            let sent = events.send(Event::message("two")).await;
            failed.send(sent.unwrap_err().to_string())?;
            Ok(())
        })
    };
    let server = serve(Router::new().route("/", get(endless))).await;
    let mut frames = server.frames("/").await;
    assert_eq!(frames.next().await.unwrap(), "data: one");
    drop(frames);
    assert_eq!(soon(failures.recv()).await.unwrap(), "the client has gone");
}

#[tokio::test]
async fn a_channel_waits_for_a_slow_client_with_32_events() {
    let (told, mut heard) = mpsc::unbounded_channel();
    let response = sse::channel(SseConfig::default(), move |events| async move {
        for n in 0..32 {
            let sent = poll_immediate(Box::pin(events.send(Event::message(n.to_string()))));
            assert!(sent.await.is_some(), "{n}");
        }
        let mut one_more = Box::pin(events.send(Event::message("32")));
        told.send(poll_immediate(&mut one_more).await.is_none())?;
        one_more.await?;
        Ok(())
    });
    assert!(soon(heard.recv()).await.unwrap());
    assert!(whole_body(response).await.ends_with("data: 32\n\n"));
}

#[tokio::test]
async fn a_client_goes_on_behind_its_last_event_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let rooms = Rooms::open(dir.path()).unwrap();
    let server = serve(lobby(&rooms)).await;
    let mut live = server.frames("/").await;
    assert_eq!(live.position().await, "-1");
    for text in ["one", "two", "three"] {
        rooms.send("lobby", text).unwrap();
        rooms.send("kitchen", text).unwrap();
    }
    assert_eq!(live.next().await.unwrap(), line(0, "one"));
    server.stop(|| rooms.log().close().unwrap()).await;
    drop(live);

    let rooms = Rooms::open(dir.path()).unwrap();
    let server = serve(lobby(&rooms)).await;
    let mut again = server.frames_behind("/", "0").await;
    assert_eq!(again.position().await, "0");
    assert_eq!(again.next().await.unwrap(), line(2, "two"));
    assert_eq!(again.next().await.unwrap(), line(4, "three"));
    rooms.send("lobby", "four").unwrap();
    assert_eq!(again.next().await.unwrap(), line(6, "four"));
    // And from the very beginning, by the position that the first client was given.
    let mut all = server.frames_behind("/", "-1").await;
    assert_eq!(all.position().await, "-1");
    assert_eq!(all.next().await.unwrap(), line(0, "one"));
}

#[tokio::test]
async fn a_client_that_lost_its_connection_before_the_first_message_misses_none() {
    let rooms = Rooms::temporary().unwrap();
    rooms.send("lobby", "before").unwrap();
    let server = serve(lobby(&rooms)).await;
    let position = server.frames("/").await.position().await;
    rooms.send("lobby", "while it was away").unwrap();
    let mut again = server.frames_behind("/", &position).await;
    let [first] = again.events().await;
    assert_eq!(first.0, line(1, "while it was away"));
}

#[tokio::test]
async fn junk_as_the_last_event_is_live_only() {
    let rooms = Rooms::temporary().unwrap();
    rooms.send("lobby", "before").unwrap();
    let server = serve(lobby(&rooms)).await;
    let mut frames = server.frames_behind("/", "junk").await;
    assert_eq!(frames.position().await, "0");
    rooms.send("lobby", "live").unwrap();
    assert_eq!(frames.next().await.unwrap(), line(1, "live"));
}

/// Sends three messages while nothing is read.
fn three(rooms: &Rooms) {
    if rooms.log().next_offset() == Offset::ZERO {
        let texts = ["one", "two", "three"].map(str::to_owned);
        rooms.send_batch("lobby", &texts).unwrap();
    }
}

/// Acceptance 5.
#[tokio::test]
async fn a_client_that_fell_behind_is_ended_and_comes_back_for_exactly_what_it_missed() {
    let rooms = Rooms::temporary().unwrap();
    let server = serve(lobby_with(&rooms, Lag::End { buffer: 2 }, three)).await;
    let mut frames = server.frames("/").await;
    assert_eq!(frames.position().await, "-1");
    assert_eq!(frames.next().await, None);

    let server = serve(lobby(&rooms)).await;
    let mut again = server.frames_behind("/", "-1").await;
    let [one, two, three] = again.events().await;
    assert_eq!(
        [one.0, two.0, three.0],
        [line(0, "one"), line(1, "two"), line(2, "three")]
    );
}

/// Acceptance 5.
#[tokio::test]
async fn a_client_that_fell_behind_is_told_of_the_gap_unless_it_is_to_skip() {
    let rooms = Rooms::temporary().unwrap();
    let server = serve(lobby_with(&rooms, Lag::Error { buffer: 2 }, three)).await;
    let mut frames = server.frames("/").await;
    let [told, two, three_] = frames.events().await;
    assert_eq!(told.0, gap("lagged", 0, 1));
    assert_eq!([two.0, three_.0], [line(1, "two"), line(2, "three")]);

    let rooms = Rooms::temporary().unwrap();
    let server = serve(lobby_with(&rooms, Lag::Skip { buffer: 2 }, three)).await;
    let mut frames = server.frames("/").await;
    let [two] = frames.events().await;
    assert_eq!(two.0, line(1, "two"));
}

/// Acceptance 11.
#[tokio::test]
async fn an_id_older_than_what_is_retained_is_answered_with_a_gap() {
    let rooms = Rooms::builder().segment_bytes_max(64 << 10).temporary();
    let rooms = rooms.unwrap();
    let text = "x".repeat(10_000);
    while rooms.log().status().unwrap().segments < 4 {
        rooms.send("lobby", text.as_str()).unwrap();
    }
    rooms.log().sync().unwrap();
    let end = rooms.log().next_offset();
    rooms.log().prune(end).unwrap();
    let oldest = rooms.log().oldest().get();
    assert!(oldest > 4, "something was dropped");

    let server = serve(lobby(&rooms)).await;
    let mut frames = server.frames_behind("/", "2").await;
    let [told] = frames.events().await;
    assert_eq!(told.0, gap("pruned", 3, oldest));
    assert_eq!(frames.position().await, (oldest - 1).to_string());
    let [first] = frames.events().await;
    assert_eq!(first.id(), Some(oldest.to_string().as_str()));
}

#[tokio::test]
async fn an_id_beyond_the_end_is_answered_with_a_gap_and_the_stream_goes_on() {
    let rooms = Rooms::temporary().unwrap();
    rooms.send("lobby", "one").unwrap();
    let server = serve(lobby(&rooms)).await;
    for id in [41, u64::MAX - 1, u64::MAX] {
        let next = rooms.log().next_offset().get();
        let mut frames = server.frames_behind("/", &id.to_string()).await;
        let [told] = frames.events().await;
        assert_eq!(told.0, gap("beyond_end", id.saturating_add(1), next));
        // Only then: with this position the client would not hear of the gap again.
        assert_eq!(frames.position().await, (next - 1).to_string());
        rooms.send("lobby", "two").unwrap();
        let [two] = frames.events().await;
        assert_eq!(two.0, line(next, "two"));
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_decoded_is_said_and_the_stream_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = dacapo::Log::open(dir.path()).unwrap();
    let numbers = ReplayChannel::<u32>::builder().codec(Json).on(&log);
    let numbers = numbers.unwrap();
    log.append(b"1").unwrap();
    log.append(b"tea").unwrap();
    log.append(b"3").unwrap();
    let follow = move || async move {
        let receiver = numbers.receiver_at(Start::Oldest);
        Sse::subscription(receiver, |number| Event::named("number")?.json(&number))
    };
    let logged = Logged::default();
    let _guard = logged.listen();
    let server = serve(Router::new().route("/", get(follow))).await;
    let mut frames = server.frames("/").await;
    let [one, error, three] = frames.events().await;
    assert_eq!(one.0, "id: 0\nevent: number\ndata: 1");
    assert_eq!((error.id(), error.name()), (Some("1"), Some("error")));
    let said = "message 1 is no u32 in json: expected ident at line 1 column 2";
    assert_eq!(error.data(), format!(r#"{{"id":1,"error":"{said}"}}"#));
    assert_eq!(three.0, "id: 2\nevent: number\ndata: 3");
    assert!(logged.text().contains("message 1 is no u32"));
}

#[tokio::test]
async fn a_response_may_choose_among_messages_and_say_their_topics() {
    let prices = Broadcaster::<String, u32>::temporary().unwrap();
    for (tea, price) in [
        ("tea:green", 7),
        ("coffee", 9),
        ("tea:black", 2),
        ("tea:black", 4),
    ] {
        prices.send(tea, &price).unwrap();
    }
    let follow = move || async move {
        let teas = prices.subscribe_prefix("tea:", Start::Oldest);
        Sse::messages(teas, |message: &Message<u32>| {
            let price = message.decode()?;
            let event = Event::named(message.topic())?.json(&price)?;
            Ok::<_, Box<dyn Error>>((price > 3).then_some(event))
        })
    };
    let server = serve(Router::new().route("/", get(follow))).await;
    let mut frames = server.frames("/").await;
    let [green, black] = frames.events().await;
    assert_eq!(green.0, "id: 0\nevent: tea:green\ndata: 7");
    assert_eq!(black.0, "id: 3\nevent: tea:black\ndata: 4");
}

#[tokio::test]
async fn damage_is_said_and_the_stream_goes_on_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let rooms = Rooms::open(dir.path()).unwrap();
    for text in ["one", "two two two", "three"] {
        rooms.send("lobby", text).unwrap();
    }
    let files = fs::read_dir(dir.path()).unwrap();
    let mut paths = files.map(|file| file.unwrap().path());
    let segment = paths.find(|path| path.extension().is_some_and(|end| end == "seg"));
    let segment = segment.unwrap();
    let bytes = fs::read(&segment).unwrap();
    let place = bytes.windows(11).position(|text| text == b"two two two");
    // In place: a mapped file that is cut short kills who reads it.
    let file = fs::OpenOptions::new().write(true).open(&segment).unwrap();
    file.write_all_at(b"T", place.unwrap() as u64).unwrap();

    let server = serve(lobby(&rooms)).await;
    let mut frames = server.frames_behind("/", "-1").await;
    let [one, told, three] = frames.events().await;
    assert_eq!(one.0, line(0, "one"));
    assert_eq!(told.0, gap("damaged", 1, 2));
    assert_eq!(three.0, line(2, "three"));
}

#[tokio::test]
async fn the_end_of_a_key_ends_its_responses_behind_what_was_sent() {
    let rooms = Rooms::temporary().unwrap();
    let server = serve(lobby(&rooms)).await;
    let mut frames: Frames = server.frames("/").await;
    assert_eq!(frames.position().await, "-1");
    rooms.send("lobby", "one").unwrap();
    assert_eq!(rooms.remove("lobby"), 1);
    assert_eq!(frames.next().await.unwrap(), line(0, "one"));
    assert_eq!(frames.next().await, None);
    until(|| rooms.total_subscribers() == 0).await;
}
