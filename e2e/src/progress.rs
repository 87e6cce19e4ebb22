//! Shows the progress of a long step: a bar on a terminal, a line every 15 s elsewhere.

use crate::cluster::last_lines;
use anyhow::{Context, Result, bail};
use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, IsTerminal, Write, stderr},
    process::{Child, Command, Stdio},
    sync::mpsc::{RecvTimeoutError, sync_channel},
    time::{Duration, Instant},
};

/// Time between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(15);
/// Time between two updates of the bar.
const BAR_INTERVAL: Duration = Duration::from_millis(500);
/// Number of lines of a failed command that the error quotes.
const QUOTED: usize = 12;

/// Description of a step before it starts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    /// Title of the step, for example "Kubernetes 1.34.10".
    pub(crate) title: String,
    /// Unit of the counted parts, for example "packages compiled".
    pub(crate) unit: String,
    /// Total number of parts, if known.
    pub(crate) total: Option<usize>,
    /// Duration of the step in the previous run on this machine.
    pub(crate) last_time: Option<Duration>,
}

impl Plan {
    /// Returns one line with the title, the progress and the elapsed time.
    fn line(&self, done: usize, elapsed: Duration, with_bar: bool) -> String {
        let Self {
            title, unit, total, ..
        } = self;
        let picture = match total.filter(|total| with_bar && *total > 0) {
            Some(total) => format!(" {}", bar(done as f64 / total as f64, 30)),
            None => String::new(),
        };
        let count = match total {
            Some(total) => format!(" {} of {total} {unit},", done.min(*total)),
            None if unit.is_empty() => String::new(),
            None => format!(" {done} {unit},"),
        };
        let last = self.last_time.map_or(String::new(), |last| {
            format!(" (last time: {})", minutes(last))
        });
        format!("{title}:{picture}{count} {}{last}", minutes(elapsed))
    }
}

/// Result of a finished step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finished {
    /// Number of counted parts.
    pub(crate) parts: usize,
    /// Duration of the step.
    pub(crate) took: Duration,
}

/// Runs a command and shows its progress: `counts` picks the lines of its output that each stand for a finished part.
///
/// # Errors
/// Returns an error when the command cannot be started or fails; the error quotes the end of its other output.
pub(crate) fn run_with_progress(
    command: &mut Command,
    plan: &Plan,
    counts: impl Fn(&str) -> bool,
) -> Result<Finished> {
    let program = command.get_program().to_string_lossy().into_owned();
    let begin = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {program}"))?;
    let mut display = Display::new(plan, begin);
    let other = follow(&mut child, |line| match line {
        Some(line) if counts(line) => {
            display.done += 1;
            display.refresh();
            true
        }
        Some(_) => false,
        None => {
            display.refresh();
            true
        }
    })?;
    let status = child
        .wait()
        .with_context(|| format!("wait for {program}"))?;
    display.end(status.success());
    if !status.success() {
        bail!("{program}: {status}: {}", last_lines(&other, QUOTED));
    }
    Ok(Finished {
        parts: display.done,
        took: begin.elapsed(),
    })
}

/// Passes each line of the child's output to `take`, and `None` when there was no line for a while. Returns the last
/// lines that `take` did not use.
fn follow(child: &mut Child, mut take: impl FnMut(Option<&str>) -> bool) -> Result<String> {
    // a bounded channel: the child waits for a slow terminal
    let (send, lines) = sync_channel::<String>(64);
    let stdout = child.stdout.take().context("the output is piped")?;
    let stderr = child.stderr.take().context("the output is piped")?;
    let mut other = VecDeque::new();
    std::thread::scope(|scope| {
        let errors = send.clone();
        scope.spawn(move || forward(stdout, &send));
        scope.spawn(move || forward(stderr, &errors));
        loop {
            match lines.recv_timeout(BAR_INTERVAL) {
                Ok(line) if take(Some(&line)) => {}
                Ok(line) => {
                    other.push_back(line);
                    if other.len() > QUOTED {
                        other.pop_front();
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    take(None);
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    });
    Ok(Vec::from(other).join("\n"))
}

fn forward(from: impl std::io::Read, into: &std::sync::mpsc::SyncSender<String>) {
    for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
        if into
            .send(String::from_utf8_lossy(&line).into_owned())
            .is_err()
        {
            return;
        }
    }
}

/// Display of a running step, with its last output.
struct Display<'a> {
    plan: &'a Plan,
    begin: Instant,
    done: usize,
    live: bool,
    shown: Instant,
}

impl<'a> Display<'a> {
    fn new(plan: &'a Plan, begin: Instant) -> Self {
        let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        let display = Self {
            plan,
            begin,
            done: 0,
            live: stderr().is_terminal() && !dumb,
            shown: begin,
        };
        display.show();
        display
    }

    /// Shows the state if the interval has passed.
    fn refresh(&mut self) {
        let interval = if self.live {
            BAR_INTERVAL
        } else {
            LINE_INTERVAL
        };
        if self.shown.elapsed() >= interval {
            self.shown = Instant::now();
            self.show();
        }
    }

    fn show(&self) {
        let line = self.plan.line(self.done, self.begin.elapsed(), self.live);
        // a closed terminal must not stop the step
        let _ = if self.live {
            write!(stderr(), "\r\x1b[K{line}")
        } else {
            writeln!(stderr(), "{line}")
        };
        let _ = stderr().flush();
    }

    /// Replaces the bar by a line with the duration of the step.
    fn end(&self, success: bool) {
        let took = minutes(self.begin.elapsed());
        let before = if self.live { "\r\x1b[K" } else { "" };
        let how = if success { "finished" } else { "failed" };
        let title = &self.plan.title;
        let _ = writeln!(stderr(), "{before}{title}: {how} after {took}");
    }
}

/// Returns a bar of `width` characters for a part between 0 and 1.
pub(crate) fn bar(part: f64, width: usize) -> String {
    let full = (part.clamp(0.0, 1.0) * width as f64).round() as usize;
    format!("{}{}", "█".repeat(full), "░".repeat(width - full))
}

/// Formats a duration in whole seconds: `42 s`, `5 min 3 s`.
fn minutes(duration: Duration) -> String {
    match (duration.as_secs() / 60, duration.as_secs() % 60) {
        (0, seconds) => format!("{seconds} s"),
        (minutes, seconds) => format!("{minutes} min {seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            title: "Kubernetes".into(),
            unit: "packages compiled".into(),
            total: Some(200),
            last_time: Some(Duration::from_secs(303)),
        }
    }

    #[test]
    fn a_line_says_how_much_is_done_for_how_long_and_how_long_it_took_before() {
        assert_eq!(
            plan().line(50, Duration::from_secs(75), false),
            "Kubernetes: 50 of 200 packages compiled, 1 min 15 s (last time: 5 min 3 s)"
        );
        assert_eq!(
            plan().line(100, Duration::from_secs(9), true),
            "Kubernetes: ███████████████░░░░░░░░░░░░░░░ 100 of 200 packages compiled, 9 s (last time: 5 min 3 s)"
        );
        let unknown = Plan {
            title: "Debian packages".into(),
            ..Plan::default()
        };
        let line = unknown.line(0, Duration::from_secs(30), true);
        assert_eq!(line, "Debian packages: 30 s");
    }

    #[test]
    fn lines_that_do_not_count_are_quoted_when_the_command_fails() {
        let script = "echo part >&2; echo part; echo out of memory >&2; exit 3";
        let mut counted = std::sync::atomic::AtomicUsize::new(0);
        let error = run_with_progress(Command::new("sh").args(["-c", script]), &plan(), |line| {
            let is_part = line == "part";
            counted.fetch_add(usize::from(is_part), std::sync::atomic::Ordering::Relaxed);
            is_part
        })
        .unwrap_err()
        .to_string();
        assert_eq!(*counted.get_mut(), 2);
        assert!(error.contains("out of memory"), "{error}");
        assert!(!error.contains("part"), "{error}");
    }

    #[test]
    fn bars() {
        assert_eq!(bar(0.62, 10), "██████░░░░");
        assert_eq!(bar(7.0, 10), "██████████");
    }
}
