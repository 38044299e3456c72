//! The examples with a page, in a browser: Debian's Chromium, driven by npm's `playwright-core`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Under one of these names people have it.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

#[test]
fn an_event_source_page_sees_a_killed_server_come_back_and_misses_and_doubles_nothing() {
    tell("event_source", "web_chat");
}

#[test]
fn a_window_of_the_phoenix_chat_that_was_offline_catches_up_and_so_do_all_after_a_kill() {
    tell("phoenix_chat", "phoenix_chat");
}

/// Has a story of `stories.cjs` told, with an example's server.
fn tell(story: &str, example: &str) {
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/npm");
    let npm = std::env::var_os("DACAPO_NPM").map_or(here.into(), PathBuf::from);
    if !npm.join("node_modules/playwright-core").exists() {
        return skipped(&format!(
            "a browser takes node, and npm's playwright-core in {}; .ci/install has both",
            npm.display()
        ));
    }
    let Some(browser) = std::env::var_os("DACAPO_BROWSER")
        .map(PathBuf::from)
        .or_else(installed)
    else {
        return skipped("there is no chromium; .ci/install has it");
    };
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new("node")
        .arg("-e")
        .arg(include_str!("stories.cjs"))
        .arg(story)
        .current_dir(npm)
        .env("BROWSER", browser)
        .env("SERVER", built(example))
        .env("DIRECTORY", dir.path().join("log"))
        .output();
    let output = output.expect("node is there, since its packages are");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Cargo builds examples beside the tests, unless it is asked for one test, or for all targets.
fn built(example: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let built = test.parent().and_then(Path::parent).unwrap();
    let path = built.join("examples").join(example);
    assert!(
        path.exists(),
        "{} is not built: `cargo build -p dacapo-server --examples` does that",
        path.display()
    );
    path
}

fn installed() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let places = std::env::split_paths(&path);
    let mut all = places.flat_map(|place| BROWSERS.map(|browser| place.join(browser)));
    all.find(|browser| browser.exists())
}

/// Says loudly, also where the output of tests that pass is not shown, what was not tested.
fn skipped(what: &str) {
    // The harness catches what `eprintln!` writes, and not this.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}");
}
