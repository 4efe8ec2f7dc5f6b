//! How far an import is: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows acknowledged rows.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    plain: bool,
    begun: Instant,
    last_line: Instant,
    /// Rows that an earlier attempt had brought in.
    before: u64,
}

impl Progress {
    /// Of `rows` in all.
    pub(super) fn new(rows: u64) -> Self {
        let plain = !std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(
            Some(rows),
            if plain { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() },
        );
        let template = "{bar:32} {human_pos} of {human_len} documents, {per_sec}, {eta} left";
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, plain, begun: Instant::now(), last_line: Instant::now(), before: 0 }
    }

    /// `rows` were durable before this attempt began.
    pub(super) fn resumed(&mut self, rows: u64) {
        self.before = rows;
        self.bar.set_position(rows);
        self.bar.reset_eta();
        if rows > 0 {
            self.print(&format!("going on after {rows} documents that are durable already"));
        }
    }

    /// `rows` are durable now.
    pub(super) fn acknowledged(&mut self, rows: u64) {
        self.bar.set_position(rows);
        if self.plain && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let done = rows.saturating_sub(self.before);
            let total = self.bar.length().unwrap_or(rows);
            let seconds = self.begun.elapsed().as_secs_f64();
            let left = seconds * to_f64(total.saturating_sub(rows)) / to_f64(done.max(1));
            self.print(&format!("{rows} of {total} documents, {:.0}/s, {left:.0} s left", to_f64(done) / seconds));
        }
    }

    /// All is durable.
    pub(super) fn finish(&self, rows: u64) {
        let seconds = self.begun.elapsed().as_secs_f64().max(0.001);
        let done = rows.saturating_sub(self.before);
        self.bar.finish_and_clear();
        self.print(&format!("{done} documents acknowledged in {seconds:.1} s ({:.0}/s)", to_f64(done) / seconds));
    }

    /// A line beside the bar.
    #[allow(clippy::print_stderr, reason = "a command's messages to its user")]
    pub(super) fn print(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }
}

#[allow(clippy::cast_precision_loss, reason = "shown to three digits")]
fn to_f64(number: u64) -> f64 {
    number as f64
}
