//! The channels of a log that others write too.

use dacapo_log::{Log, Topic};
use dacapo_server::phoenix::{Access, Anybody, Phoenix, RecordChannels};
use serde_json::json;

use crate::client::{Client, Server, error, ok};

#[tokio::test]
async fn a_topic_of_the_log_is_tailed_and_appended_to() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let records = RecordChannels::new(&log, |(): &(), topic, access| match access {
        Access::Read => !topic.starts_with("secret:"),
        Access::Append => topic.starts_with("public:"),
    });
    let phoenix = Phoenix::builder(Anybody)
        .channel("*", records.synced())
        .build();
    let server = Server::of(&phoenix).await;
    let topic = Topic::new("public:a").unwrap();
    for record in [&b"{\"n\":0}"[..], b"plain", b"\xff"] {
        log.append_to(&topic, record).unwrap();
    }
    log.sync().unwrap();

    let mut client = Client::open(&server).await;
    assert_eq!(
        client.join("public:a", json!({"from": "oldest"})).await,
        ok(json!({}))
    );
    let message = |payload| json!([null, null, "public:a", "message", payload]);
    assert_eq!(
        client.next().await,
        message(json!({"data": {"n": 0}, "offset": 0}))
    );
    assert_eq!(
        client.next().await,
        message(json!({"data": "plain", "offset": 1}))
    );
    let bytes = json!({"data": "/w==", "encoding": "base64", "offset": 2});
    assert_eq!(client.next().await, message(bytes));

    client
        .send(json!(["1", "2", "public:a", "publish", {"n": 3}]))
        .await;
    assert_eq!(
        client.next().await,
        message(json!({"data": {"n": 3}, "offset": 3}))
    );
    assert_eq!(client.next().await[4], ok(json!({"offset": 3})));
    assert_eq!(
        log.get(dacapo_log::Offset::new(3)).unwrap().payload(),
        b"{\"n\":3}"
    );
    client
        .send(json!(["1", "3", "public:a", "publish", 7]))
        .await;
    assert_eq!(client.next().await[4]["status"], "error");
    client
        .send(json!(["1", "4", "public:a", "delete", {}]))
        .await;
    assert_eq!(client.next().await[4], error("unknown event"));

    let mut again = Client::open(&server).await;
    assert_eq!(
        again
            .join("public:a", json!({"from": "oldest", "last_seen_id": 2}))
            .await,
        ok(json!({}))
    );
    assert_eq!(again.next().await[4]["offset"], 3);

    assert_eq!(
        again.join("secret:a", json!({})).await,
        error("unauthorized")
    );
    assert_eq!(
        again.join("a", json!({"from": "x"})).await,
        error("from is neither oldest nor latest")
    );
    again.join("a", json!({})).await;
    again.send(json!(["1", "2", "a", "publish", {}])).await;
    assert_eq!(again.next().await[4], error("unauthorized"));
}

#[tokio::test]
async fn what_another_part_of_the_program_appends_arrives_live() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let records = RecordChannels::new(&log, |(): &(), _, _| true);
    let phoenix = Phoenix::builder(Anybody).channel("*", records).build();
    let server = Server::of(&phoenix).await;
    let mut client = Client::open(&server).await;
    client.join("a", json!({})).await;
    for n in 0..10 {
        log.append_to(&Topic::new("a").unwrap(), n.to_string().as_bytes())
            .unwrap();
        assert_eq!(client.next().await[4]["data"], n);
    }
    log.close().unwrap();
    assert_eq!(
        client.next().await,
        json!(["1", "1", "a", "phx_error", {"reason": "log_closed"}])
    );
}
