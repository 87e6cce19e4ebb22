//! `status --watch` and `status --wait`: a tree that is redrawn on a terminal, and lines that are appended elsewhere.

use std::time::Duration;

use anyhow::Result;
use crds::{EdgeFunction, RolloutPolicy};
use jiff::Timestamp;

use crate::Code;
use crate::cli::StatusArgs;
use crate::cluster::Cluster;
use crate::follow::{Follow, Report};
use crate::progress::{Outcome, changes, first_line, outcome};
use crate::screen::Screen;
use crate::text::moment;
use crate::view::{self, Snapshot};

/// Interval at which ages on the terminal are drawn again. Nothing is read for it.
const TICK: Duration = Duration::from_secs(1);

/// What is shown, and what was shown before.
struct Shown {
    screen: Screen,
    /// Whether the tree is drawn. Otherwise, transitions are printed as lines.
    is_tree: bool,
    before: Option<EdgeFunction>,
    policy: Option<RolloutPolicy>,
    interruption: Option<String>,
}

pub(super) async fn watch(cluster: &Cluster, args: &StatusArgs) -> Result<Code> {
    let name = &args.name;
    // A wrong name, namespace or permission ends the command at once; a watch would be repeated.
    let first = cluster.function(name).await?;
    let screen = Screen::new();
    let mut shown = Shown {
        is_tree: args.watch && screen.is_terminal(),
        screen,
        before: None,
        policy: cluster.policy(&first).await,
        interruption: None,
    };
    let mut follow = Follow::start(cluster, name, shown.is_tree);
    let is_limited = args.wait && !args.timeout.is_zero();
    let limit = tokio::time::sleep(if is_limited {
        args.timeout
    } else {
        Duration::MAX
    });
    tokio::pin!(limit);
    let mut ticks = tokio::time::interval(TICK);
    loop {
        let report = tokio::select! {
            report = follow.next() => report,
            () = &mut limit, if is_limited => {
                shown.line("the time limit has passed; the rollout goes on")?;
                return Ok(Code::TimedOut);
            }
            _ = ticks.tick(), if shown.is_tree && follow.function.is_some() => Report::Changed,
        };
        match report {
            Report::Interrupted(why) => shown.interrupted(why)?,
            Report::Missing => {
                shown.line("the function does not exist any longer")?;
                return Ok(Code::Refused);
            }
            Report::Changed => {
                if let Some(code) = shown.update(&follow, args.wait)? {
                    return Ok(code);
                }
            }
        }
    }
}

impl Shown {
    /// Shows the newest version. Returns the exit code when a wait is over.
    fn update(&mut self, follow: &Follow, wait: bool) -> Result<Option<Code>> {
        let Some(function) = &follow.function else {
            return Ok(None);
        };
        self.interruption = None;
        if self.is_tree {
            let snapshot = Snapshot {
                function: function.clone(),
                revisions: follow.revisions.clone(),
                policy: self.policy.clone(),
            };
            let lines = view::status(&snapshot, self.screen.style());
            self.screen.draw(&lines)?;
        } else {
            let lines = match &self.before {
                Some(before) => changes(before, function),
                None => vec![first_line(function)],
            };
            for line in lines {
                self.line(&line)?;
            }
        }
        self.before = Some(function.clone());
        if !wait {
            return Ok(None);
        }
        let (code, sentence) = match outcome(function) {
            Outcome::Pending => return Ok(None),
            Outcome::Live(sentence) => (Code::Done, sentence),
            Outcome::Stalled(sentence) => (Code::Refused, sentence),
        };
        self.line(&sentence)?;
        Ok(Some(code))
    }

    /// Prints a line with the time. A tree stays above it.
    fn line(&mut self, text: &str) -> Result<()> {
        self.screen.keep();
        let line = format!("{}  {text}", moment(Timestamp::now()));
        self.screen.print(&[line])?;
        Ok(())
    }

    fn interrupted(&mut self, why: String) -> Result<()> {
        if self.interruption.as_ref() != Some(&why) {
            self.line(&format!("the watch is interrupted and tried again: {why}"))?;
            self.interruption = Some(why);
        }
        Ok(())
    }
}
