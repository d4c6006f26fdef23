//! Progress of long work, on standard error and only where a person looks at it.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_millis(100);
const WIDTH: u64 = 30;

/// A bar that is drawn over itself.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
    drawn: Option<Instant>,
    width: usize,
}

impl Progress {
    /// Nothing is drawn if standard error is no terminal.
    pub fn new() -> Self {
        Self {
            shown: std::io::stderr().is_terminal(),
            drawn: None,
            width: 0,
        }
    }

    /// So much is done, of nobody knows how much.
    pub fn count(&mut self, done: u64, what: &str) {
        self.draw(|| format!("{done} {what}"));
    }

    /// So much is done; `what` says what is going on.
    pub fn at(&mut self, done: u64, total: u64, what: &str) {
        self.draw(|| bar(done, total, what));
    }

    fn draw(&mut self, line: impl FnOnce() -> String) {
        let soon = self.drawn.is_some_and(|drawn| drawn.elapsed() < EVERY);
        if !self.shown || soon {
            return;
        }
        self.drawn = Some(Instant::now());
        let line = line();
        let blanks = self.width.saturating_sub(line.chars().count());
        self.width = line.chars().count();
        let mut out = std::io::stderr();
        let _ = write!(out, "\r{line}{:blanks$}", "");
        let _ = out.flush();
    }

    /// Takes the bar away, before something else is written.
    pub fn clear(&mut self) {
        if self.width > 0 {
            let _ = write!(std::io::stderr(), "\r{:1$}\r", "", self.width);
            self.width = 0;
            self.drawn = None;
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn bar(done: u64, total: u64, what: &str) -> String {
    let done = done.min(total);
    let of = |whole: u64| done.saturating_mul(whole).checked_div(total).unwrap_or(0);
    let full = usize::try_from(of(WIDTH)).unwrap_or(0);
    let rest = usize::try_from(WIDTH).unwrap_or(0).saturating_sub(full);
    format!(
        "[{}{}] {:3} %  {what}",
        "#".repeat(full),
        ".".repeat(rest),
        of(100)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_it_is_far() {
        assert_eq!(
            bar(1, 2, "journal"),
            "[###############...............]  50 %  journal"
        );
        assert!(bar(0, 0, "x").contains("  0 %"));
        assert!(bar(9, 3, "x").contains("100 %"));
    }
}
