//! What a person sees of the demo: steps on stdout; on a terminal, bars and the text as it grows.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use console::{Term, style, truncate_str};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::document::Document;

/// Where the demo's lines go.
pub(crate) struct Screen {
    animated: bool,
    steps: u32,
}

/// Lines of the growing text that are shown.
const WINDOW_LINES: usize = 9;
/// As often as a film shows a picture.
const FRAME: Duration = Duration::from_millis(40);

impl Screen {
    pub(crate) fn new() -> Self {
        let animated = io::stdout().is_terminal() && io::stderr().is_terminal();
        Self { animated, steps: 0 }
    }

    /// Whether a person is watching, who can follow only so fast.
    pub(crate) fn is_animated(&self) -> bool {
        self.animated
    }

    /// Announces the next step.
    pub(crate) fn step(&mut self, text: &str) -> io::Result<()> {
        self.steps += 1;
        let number = style(self.steps).cyan().bold();
        writeln!(io::stdout(), "\n{number}  {}", style(text).bold())
    }

    /// Says how a step went.
    pub(crate) fn say(&self, text: &str) -> io::Result<()> {
        writeln!(io::stdout(), "   {text}")
    }

    /// Time to read what was said; none where nobody is watching.
    pub(crate) fn pause(&self) {
        if self.animated {
            std::thread::sleep(Duration::from_millis(600));
        }
    }

    /// A bar up to `records`.
    pub(crate) fn bar(&self, records: u64) -> ProgressBar {
        self.progress(
            records,
            "   {bar:40.cyan/dim} {human_pos} of {human_len} records",
        )
    }

    /// A bar up to `records`, and a window on a text.
    pub(crate) fn window(&self, records: u64) -> Window {
        let bar = self.progress(
            records,
            "   {bar:40.cyan/dim} {human_pos} of {human_len} records\n{msg}",
        );
        Window { bar, drawn: None }
    }

    fn progress(&self, length: u64, template: &str) -> ProgressBar {
        let target = match self.animated {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let style = ProgressStyle::with_template(template)
            .expect("the template is well-formed")
            .progress_chars("━━─");
        ProgressBar::with_draw_target(Some(length), target).with_style(style)
    }
}

/// A bar above the part of a text that is being written.
pub(crate) struct Window {
    bar: ProgressBar,
    drawn: Option<Instant>,
}

impl Window {
    pub(crate) fn show(&mut self, records: u64, document: &Document) {
        if self.bar.is_hidden() || self.drawn.is_some_and(|drawn| drawn.elapsed() < FRAME) {
            return;
        }
        self.drawn = Some(Instant::now());
        let width = usize::from(Term::stderr().size().1).saturating_sub(6);
        let lines = document.around_cursor(WINDOW_LINES);
        let lines = lines.iter().map(|line| {
            format!(
                "   {} {}",
                style("│").for_stderr().dim(),
                truncate_str(line, width, "…")
            )
        });
        self.bar.set_message(lines.collect::<Vec<_>>().join("\n"));
        self.bar.set_position(records);
    }

    pub(crate) fn close(self) {
        self.bar.finish_and_clear();
    }
}
