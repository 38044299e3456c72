//! A server of the built command, and what a client sees of it: over real sockets.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::Value;

use crate::process::{dacapo, spawn_watched, tell};

/// `dacapo serve`, at a port of its own; killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    stderr: BufReader<ChildStderr>,
    address: SocketAddr,
}

impl Server {
    /// Returns once it listens.
    pub(crate) fn start(dir: &Path, options: &[&str]) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), dir, options)
    }

    /// At an address that clients know.
    pub(crate) fn start_at(address: SocketAddr, dir: &Path, options: &[&str]) -> Self {
        let mut command = dacapo([OsStr::new("serve"), dir.as_os_str()]);
        command
            .arg("--listen")
            .arg(address.to_string())
            .args(options);
        Self::spawn(command)
    }

    /// A server, however it is told what to do.
    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = spawn_watched(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut said).unwrap();
        let Some(address) = said.trim_end().strip_prefix("Listening on ") else {
            let mut errors = String::new();
            stderr.read_to_string(&mut errors).unwrap();
            panic!("it does not listen: {said}{errors}");
        };
        let (_, address) = address.split_once("://").unwrap();
        let address = address.parse().unwrap();
        Self {
            child,
            stderr,
            address,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Lets every sync fail from now on, until what is returned is dropped. It needs strace, and says so
    /// loudly where that may not attach to another process.
    pub(crate) fn fail_syncs(&self) -> Option<FailingSyncs> {
        let mut strace = Command::new("strace")
            .args(["-f", "-e", "trace=fdatasync,fsync,msync"])
            .args(["-e", "inject=fdatasync,fsync,msync:error=EIO", "-p"])
            .arg(self.child.id().to_string())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(strace.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("attached") {
            line.clear();
            if said.read_line(&mut line).unwrap() == 0 {
                strace.wait().unwrap();
                tell("SKIPPED: this test needs a strace that may attach to a process");
                return None;
            }
        }
        Some(FailingSyncs {
            strace,
            _said: said,
        })
    }

    /// Lets its files be no larger than `bytes` from now on, as if the disk was full; `None` for no limit.
    pub(crate) fn limit_files(&self, bytes: Option<u64>) {
        let limit = Rlimit {
            current: bytes,
            maximum: None,
        };
        prlimit(Some(self.pid()), Resource::Fsize, limit).unwrap();
    }

    /// Waits for a line on stderr that says so.
    pub(crate) fn wait_until_it_says(&mut self, what: &str) {
        let mut line = String::new();
        while !line.contains(what) {
            line.clear();
            assert!(
                self.stderr.read_line(&mut line).unwrap() > 0,
                "it never said {what}"
            );
        }
    }

    /// SIGKILL; returns once it is gone.
    pub(crate) fn kill(mut self) {
        self.kill_and_wait();
    }

    /// As [`kill`](Self::kill), where another one takes its place.
    pub(crate) fn kill_and_wait(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end, and returns it with the rest of what it said.
    pub(crate) fn ended(mut self) -> (ExitStatus, String) {
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap(), said)
    }

    /// Asks, and expects an answer.
    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        request(self.address, method, path, headers, body).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// strace, attached to a server.
pub(crate) struct FailingSyncs {
    strace: Child,
    _said: BufReader<ChildStderr>,
}

impl Drop for FailingSyncs {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// What a server has answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn next_offset(&self) -> &str {
        self.header("stream-next-offset").unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// One request on a connection of its own.
pub(crate) fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<Answer> {
    let mut reader = send(address, method, path, headers, body)?;
    let mut answer = read_head(&mut reader)?;
    match answer
        .header("content-length")
        .map(|bytes| bytes.parse().unwrap())
    {
        Some(bytes) if method != "HEAD" => {
            let mut body = vec![0; bytes];
            reader.read_exact(&mut body)?;
            answer.body = String::from_utf8(body).unwrap();
        }
        _ => {}
    }
    Ok(answer)
}

/// Sends a request, and returns what reads the answer.
pub(crate) fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<BufReader<TcpStream>> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    write!(head, "Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(head.as_bytes())?;
    Ok(BufReader::new(stream))
}

pub(crate) fn read_head(reader: &mut impl BufRead) -> io::Result<Answer> {
    let mut line = || {
        let mut line = String::new();
        match reader.read_line(&mut line)? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            _ => Ok(line.trim_end().to_owned()),
        }
    };
    let status = line()?.split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers = Vec::new();
    loop {
        let line = line()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap();
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok(Answer {
        status,
        headers,
        body: String::new(),
    })
}
