//! A chat in terminals, between several processes, without a server.
//!
//! One process writes a log, and any number read it: so each person writes a channel of their own in
//! the room's directory, and follows everybody's. Who comes late, or comes back, reads the whole story.
//!
//! ```text
//! cargo run -p dacapo --example chat room ada     # in one terminal
//! cargo run -p dacapo --example chat room grace   # in another
//! ```

use std::collections::HashSet;
use std::error::Error;
use std::fs;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use dacapo::{Json, ReplayChannel, Sender};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(room), Some(name)) = (args.next(), args.next()) else {
        return Err("say which room, and who you are: chat ROOM NAME".into());
    };
    let room = PathBuf::from(room);
    fs::create_dir_all(&room)?;
    let own = ReplayChannel::<String>::builder()
        .codec(Json)
        .open(room.join(&name))?; // a second one of this name is refused

    thread::spawn(move || follow_everybody(&room));
    say(&own.sender())
}

/// Sends what is typed, until the input ends.
fn say(sender: &Sender<String, Json>) -> Result<(), Box<dyn Error>> {
    for line in io::stdin().lock().lines() {
        sender.send(&line?)?;
    }
    sender.log().sync()?;
    Ok(())
}

/// Looks for people now and then, and follows each of them.
fn follow_everybody(room: &Path) {
    let mut known = HashSet::new();
    loop {
        for person in fs::read_dir(room).into_iter().flatten().flatten() {
            if known.insert(person.file_name()) {
                thread::spawn(move || {
                    let name = person.file_name();
                    if let Err(error) = follow(&person.path(), &name.to_string_lossy()) {
                        eprintln!("{}: {error}", name.display());
                    }
                });
            }
        }
        thread::sleep(Duration::from_millis(500));
    }
}

fn follow(dir: &Path, name: &str) -> Result<(), Box<dyn Error>> {
    let channel = ReplayChannel::<String>::builder()
        .codec(Json)
        .open_read_only(dir)?;
    for text in &channel.receiver() {
        println!("{name}: {}", text?);
    }
    Ok(())
}
