//! `dacapo-load`: what a server takes, and what that costs it.
//!
//! How to run it, and what each figure means: docs/load.md. Client and server share the machine, so
//! figures count beside those of another server in the same run.

mod http;
mod phoenix;
mod process;
mod report;
mod scenario;
mod server;
mod stamp;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use indicatif::ProgressBar;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use report::{Figure, Measured};
use scenario::fan_out::{Face, Pace};
use scenario::{fan_out, idle, megaphone, publish, replay, slow};
use server::{Kind, Programs, Server};

/// Put a server under load: `dacapo serve`, and others beside it
///
/// Without --url, it starts each server itself, on a directory that it deletes, and ends it. Figures
/// are those of clients and a server that share this machine: compare what one run says of two.
#[derive(Parser)]
#[command(
    name = "dacapo-load",
    after_help = "\
Examples:
  cargo build --release -p dacapo-cli && cargo run --release -p dacapo-load
  dacapo-load publish fan-out --against nchan --against durable-streams
  dacapo-load replay --url http://127.0.0.1:4437 --pid $(pgrep -x dacapo)

nchan is Debian's nginx with libnginx-mod-nchan; durable-streams is `cargo install durable-streams`."
)]
struct Args {
    /// What to measure; all of it if nothing is named
    #[arg(value_enum)]
    questions: Vec<Question>,

    /// A dacapo that runs already
    #[arg(long, value_name = "URL", conflicts_with = "against", value_parser = address_of)]
    url: Option<SocketAddr>,

    /// Its process, for its processor time and memory
    #[arg(long, requires = "url")]
    pid: Option<u32>,

    /// Another server, asked the same where it can be
    #[arg(long, value_enum)]
    against: Vec<Kind>,

    /// One JSON object a line, instead of tables
    #[arg(long)]
    json: bool,

    /// How long to publish
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,

    /// The size of a message
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    bytes: usize,

    /// Publishers that wait for each acknowledgement
    #[arg(long, value_name = "COUNT", default_value_t = 32)]
    connections: usize,

    /// Those who follow one topic
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    subscribers: usize,

    /// Messages of the unthrottled publisher
    #[arg(long, value_name = "COUNT", default_value_t = 5000)]
    messages: u64,

    /// Records that are replayed; a multiple of 100
    #[arg(long, value_name = "COUNT", default_value_t = 100_000)]
    records: u64,

    /// Phoenix sockets of which nothing is heard
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    sockets: usize,

    /// Megaphone's channels
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    channels: usize,

    /// Connections that write to Megaphone's channels
    #[arg(long, value_name = "COUNT", default_value_t = 128)]
    writers: usize,

    /// The command dacapo; that beside this one if it is not named
    #[arg(long, value_name = "FILE")]
    dacapo: Option<PathBuf>,

    #[arg(long, value_name = "FILE", default_value = "nginx")]
    nginx: PathBuf,

    /// The command of the crate durable-streams
    #[arg(long, value_name = "FILE", default_value = "durable-streams-server")]
    durable_streams: PathBuf,

    /// Where servers keep their files: on the disk that is asked about
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Question {
    /// Publishers that wait for acknowledgements, one message a request and a hundred
    Publish,
    /// One publisher and many subscribers over server-sent events, at a pace and without one
    FanOut,
    /// One reader from the beginning
    Replay,
    /// One publisher and many joined Phoenix sockets, beside server-sent events of the same server
    Phoenix,
    /// Joined Phoenix sockets of which nothing is heard
    Idle,
    /// Many of Megaphone's channels, each with a writer and a reader
    Megaphone,
    /// Subscribers that do not keep up, beside others that do
    Slow,
}

impl Question {
    /// Whether such a server can be asked it, too.
    fn is_for(self, kind: Kind) -> bool {
        match self {
            Self::Publish | Self::FanOut | Self::Slow => true,
            // nchan takes minutes for what is one request here.
            Self::Replay => kind != Kind::Nchan,
            Self::Phoenix | Self::Idle | Self::Megaphone => kind == Kind::Dacapo,
        }
    }
}

/// How much load there shall be.
struct Load {
    time: Duration,
    bytes: usize,
    connections: usize,
    subscribers: usize,
    messages: u64,
    records: u64,
    sockets: usize,
    channels: usize,
    writers: usize,
    topics: AtomicU64,
}

impl Load {
    fn time(&self) -> Duration {
        self.time
    }

    /// A name that nobody else has used, whichever server it is for.
    fn topic(&self, what: &str) -> String {
        let number = self.topics.fetch_add(1, Relaxed);
        format!("load-{what}-{}-{number}", std::process::id())
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    allow_many_connections();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        // What it has started ends with it, whoever ends it.
        tokio::select! {
            measured = measure(&args) => measured.map(|()| ExitCode::SUCCESS),
            _ = interrupt.recv() => Ok(ExitCode::from(130)),
            _ = terminate.recv() => Ok(ExitCode::from(143)),
        }
    })
}

async fn measure(args: &Args) -> anyhow::Result<()> {
    let programs = Programs {
        dacapo: match &args.dacapo {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("dacapo"),
        },
        nginx: args.nginx.clone(),
        durable_streams: args.durable_streams.clone(),
        dir: args.dir.clone(),
    };
    let load = Load {
        time: Duration::from_secs(args.seconds),
        bytes: args.bytes,
        connections: args.connections,
        subscribers: args.subscribers,
        messages: args.messages,
        records: args.records,
        sockets: args.sockets,
        channels: args.channels,
        writers: args.writers,
        topics: AtomicU64::new(0),
    };
    let questions = match args.questions.is_empty() {
        true => Question::value_variants(),
        false => &args.questions,
    };
    for question in questions {
        let mut kinds = vec![Kind::Dacapo];
        kinds.extend(args.against.iter().filter(|&&kind| question.is_for(kind)));
        let mut answers = Vec::new();
        for kind in kinds {
            let name = name_of(kind);
            let waiting =
                ProgressBar::new_spinner().with_message(format!("{question:?} at {name}"));
            waiting.enable_steady_tick(Duration::from_millis(100));
            let server = Arc::new(match args.url {
                Some(address) => Server::running(address, args.pid),
                None => Server::start(kind, &programs).await?,
            });
            let measured = ask(*question, &load, &server).await;
            waiting.finish_and_clear();
            answers.extend(measured.with_context(|| format!("{question:?} at {name}"))?);
        }
        show(args.json, merged(answers));
    }
    Ok(())
}

/// What one server, or one face of it, answers: a title and its figures, once or several times.
type Answers = Vec<(String, Vec<Figure>)>;

/// Asks one server; the answers by what stands at the head of a column.
async fn ask(
    question: Question,
    load: &Load,
    server: &Arc<Server>,
) -> anyhow::Result<Vec<(String, Answers)>> {
    let (connections, subscribers) = (load.connections, load.subscribers);
    let mut answers = Answers::new();
    match question {
        Question::Publish => {
            let title = format!(
                "publish: {connections} connections, {} B, one a request",
                load.bytes
            );
            answers.push((title, publish::run(load, server, 1).await?));
            if server.has_batches() {
                let title = format!(
                    "publish: {connections} connections, {} B, 100 a request",
                    load.bytes
                );
                answers.push((title, publish::run(load, server, 100).await?));
            }
        }
        Question::FanOut => {
            let title = format!("fan-out: 20 messages a second to {subscribers} subscribers");
            let paced = fan_out::run(load, server, Face::Sse, Pace::PerSecond(20)).await?;
            answers.push((title, paced));
            let title = format!(
                "fan-out: {} messages to {subscribers} subscribers",
                load.messages
            );
            let pace = Pace::Unthrottled(load.messages);
            answers.push((title, fan_out::run(load, server, Face::Sse, pace).await?));
        }
        Question::Phoenix => return fan_out_by_face(load, server).await,
        Question::Idle => {
            let title = format!("idle: {} joined sockets", load.sockets);
            answers.push((title, idle::sockets(load, server).await?));
        }
        Question::Megaphone => {
            let title = format!(
                "megaphone: {} channels, {} writers",
                load.channels, load.writers
            );
            answers.push((title, megaphone::run(load, server).await?));
        }
        Question::Slow => {
            let title = "slow: 100 that stop reading, 100 at a KiB a second, 100 normal ones";
            answers.push((title.to_owned(), slow::run(load, server).await?));
        }
        Question::Replay => {
            let title = format!(
                "replay: {} records of {} B to one reader",
                load.records, load.bytes
            );
            answers.push((title, replay::run(load, server).await?));
        }
    }
    Ok(vec![(name_of(server.kind), answers)])
}

/// The same fan-out by channels and by server-sent events of one server.
async fn fan_out_by_face(
    load: &Load,
    server: &Arc<Server>,
) -> anyhow::Result<Vec<(String, Answers)>> {
    let subscribers = load.subscribers;
    let paced = format!("phoenix fan-out: 20 messages a second to {subscribers} sockets");
    let all = format!(
        "phoenix fan-out: {} messages to {subscribers} sockets",
        load.messages
    );
    let mut faces = Vec::new();
    for (name, face) in [("phoenix", Face::Phoenix), ("events", Face::Sse)] {
        let mut answers = Answers::new();
        for (title, pace) in [
            (&paced, Pace::PerSecond(20)),
            (&all, Pace::Unthrottled(load.messages)),
        ] {
            answers.push((title.clone(), fan_out::run(load, server, face, pace).await?));
        }
        faces.push((name.to_owned(), answers));
    }
    Ok(faces)
}

/// The answers of all servers to each question.
fn merged(servers: Vec<(String, Answers)>) -> Vec<Measured> {
    let mut all: Vec<Measured> = Vec::new();
    for (server, answers) in servers {
        for (question, figures) in answers {
            match all
                .iter_mut()
                .find(|measured| measured.question == question)
            {
                Some(measured) => measured.servers.push((server.clone(), figures)),
                None => all.push(Measured {
                    question,
                    servers: vec![(server.clone(), figures)],
                }),
            }
        }
    }
    all
}

fn show(as_json: bool, measured: Vec<Measured>) {
    for measured in measured {
        match as_json {
            true => println!("{}", measured.json()),
            false => print!("{}", measured.table()),
        }
    }
}

fn name_of(kind: Kind) -> String {
    let name = kind.to_possible_value().expect("none is hidden");
    name.get_name().to_owned()
}

fn address_of(url: &str) -> Result<SocketAddr, String> {
    let address = url
        .strip_prefix("http://")
        .unwrap_or(url)
        .trim_end_matches('/');
    address
        .parse()
        .map_err(|_| format!("{url} is not of the form http://ADDRESS:PORT"))
}

/// Each connection is a descriptor, of which a process may often have no more than 1,024 unless it asks.
fn allow_many_connections() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Where it fails, so does a connection later on, and says why.
    let _ = setrlimit(Resource::Nofile, raised);
}
