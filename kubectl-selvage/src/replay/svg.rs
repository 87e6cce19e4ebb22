//! A play as a picture: weight, failure rates and evidence over time.

use std::fmt::Write as _;

use delivery::rollout::{RequestCounts, Tolerance};

use super::play::{Outcome, Play, Point};
use super::report::summary;
use crate::text::{moment, percent, weight};

const WIDTH: f64 = 860.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 830.0;
/// Top of the first panel, height of a panel, and distance of two tops.
const TOP: f64 = 84.0;
const PANEL: f64 = 130.0;
const NEXT: f64 = 185.0;
/// Largest number of points of a line, about one for each pixel.
const POINTS: usize = 800;

const STABLE: &str = "#2b6cb0";
const CANDIDATE: &str = "#dd6b20";
const LIMIT: &str = "#c53030";

/// Draws a play. `errors` is the tolerance of failed requests.
pub(crate) fn draw(play: &Play, errors: Tolerance) -> String {
    let step = play.points.len().div_ceil(POINTS).max(1);
    let last = play.points.last();
    let mut points: Vec<&Point> = play.points.iter().step_by(step).collect();
    points.extend(last.filter(|_| !(play.points.len().max(1) - 1).is_multiple_of(step)));
    let picture = Picture {
        play,
        points,
        seconds: play.took().as_secs_f64().max(1.0),
    };
    let height = TOP + 2.0 * NEXT + PANEL + 60.0;
    let title = escape(&format!("{} against {}", play.candidate, play.stable));
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"16\">{title}</text>\n\
         <text x=\"{LEFT}\" y=\"44\" fill=\"#555\">{}</text>\n",
        escape(&summary(play))
    );
    picture.weights(&mut out);
    picture.rates(&mut out, errors);
    picture.evidence(&mut out);
    picture.times(&mut out, height);
    out.push_str("</svg>\n");
    out
}

struct Picture<'a> {
    play: &'a Play,
    points: Vec<&'a Point>,
    seconds: f64,
}

impl Picture<'_> {
    fn x(&self, at: jiff::Timestamp) -> f64 {
        let passed = at.duration_since(self.play.started_at).as_secs_f64();
        LEFT + (RIGHT - LEFT) * (passed / self.seconds).clamp(0.0, 1.0)
    }

    fn weights(&self, out: &mut String) {
        frame(
            out,
            TOP,
            "Weight of the candidate",
            &[(0.0, "0 %"), (0.5, "50 %"), (1.0, "100 %")],
        );
        let mut line: Vec<(f64, f64)> = Vec::new();
        let mut before = 0.0;
        for one in &self.play.decisions {
            let share = one.weight.share();
            line.push((self.x(one.at), before));
            line.push((self.x(one.at), share));
            before = share;
        }
        line.push((self.x(self.play.ended_at), before));
        path(out, TOP, &line, CANDIDATE, "");
        for one in self.play.decisions.iter().filter(|one| one.is_warning) {
            let (x, y) = (self.x(one.at), TOP + PANEL);
            let _ = writeln!(
                out,
                "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{y}\" stroke=\"{LIMIT}\" stroke-dasharray=\"2 3\"><title>{}</title></line>",
                escape(&format!("{}: {}", one.reason, one.message))
            );
        }
    }

    fn rates(&self, out: &mut String, errors: Tolerance) {
        let top = TOP + NEXT;
        let rate = |counts: RequestCounts| counts.errors as f64 / counts.requests.max(1) as f64;
        let limit = |one: &Point| rate(one.stable) * errors.max_ratio + errors.max_increase;
        let highest = self
            .points
            .iter()
            .map(|one| rate(one.candidate).max(limit(one)))
            .fold(0.0_f64, f64::max);
        let scale = (highest * 1.1).clamp(0.0001, 1.0);
        let (half, full) = (percent(scale / 2.0), percent(scale));
        let ticks = [(0.0, "0 %"), (0.5, half.as_str()), (1.0, full.as_str())];
        frame(out, top, "Failed requests since the rollout began", &ticks);
        let line = |of: &dyn Fn(&Point) -> f64| -> Vec<(f64, f64)> {
            let points = self.points.iter();
            points
                .map(|one| (self.x(one.at), of(one) / scale))
                .collect()
        };
        path(out, top, &line(&limit), LIMIT, "5 4");
        path(out, top, &line(&|one| rate(one.stable)), STABLE, "");
        path(out, top, &line(&|one| rate(one.candidate)), CANDIDATE, "");
        legend(
            out,
            top,
            &[
                (&self.play.candidate, CANDIDATE),
                (&self.play.stable, STABLE),
                ("stable with the tolerance", LIMIT),
            ],
        );
    }

    /// Evidence multiplies, so its scale is logarithmic. Below 1 there is none.
    fn evidence(&self, out: &mut String) {
        let top = TOP + 2.0 * NEXT;
        let limit = self.play.ln_limit.max(1.0);
        let highest = self.points.iter().map(|one| one.ln_evidence);
        let highest = highest.fold(limit, f64::max).min(limit * 3.0);
        let scale = highest * 1.15;
        let root = format!("{:.0} to 1", (limit / 2.0).exp());
        let full = format!("{:.0} to 1", limit.exp());
        let ticks = [
            (0.0, "1 to 1"),
            (limit / 2.0 / scale, root.as_str()),
            (limit / scale, full.as_str()),
        ];
        frame(
            out,
            top,
            "Evidence against the candidate, and its limit",
            &ticks,
        );
        let limits = [(LEFT, limit / scale), (RIGHT, limit / scale)];
        path(out, top, &limits, LIMIT, "5 4");
        let points = self.points.iter();
        let line: Vec<(f64, f64)> = points
            .map(|one| (self.x(one.at), one.ln_evidence.max(0.0) / scale))
            .collect();
        path(out, top, &line, CANDIDATE, "");
    }

    fn times(&self, out: &mut String, height: f64) {
        let y = height - 32.0;
        let end = match &self.play.outcome {
            Outcome::Promoted => "promoted".to_owned(),
            Outcome::RolledBack { reason } => format!("rolled back ({reason})"),
            Outcome::DataEnded { weight: at, .. } => {
                format!("the data ends at {}", weight(at.parts()))
            }
        };
        let _ = write!(
            out,
            "<text x=\"{LEFT}\" y=\"{y}\">{}</text>\n<text x=\"{RIGHT}\" y=\"{y}\" text-anchor=\"end\">{} s later: {}</text>\n",
            moment(self.play.started_at),
            self.play.took().as_secs(),
            escape(&end)
        );
    }
}

/// Draws the frame of a panel with its title and the values at its left side (0 to 1, from below).
fn frame(out: &mut String, top: f64, title: &str, ticks: &[(f64, &str)]) {
    let width = RIGHT - LEFT;
    let _ = write!(
        out,
        "<text x=\"{LEFT}\" y=\"{:.1}\" font-weight=\"bold\">{}</text>\n\
         <rect x=\"{LEFT}\" y=\"{top}\" width=\"{width}\" height=\"{PANEL}\" fill=\"none\" stroke=\"#999\"/>\n",
        top - 8.0,
        escape(title)
    );
    for (share, text) in ticks {
        let y = top + PANEL * (1.0 - share);
        let _ = write!(
            out,
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{RIGHT}\" y2=\"{y:.1}\" stroke=\"#eee\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{text}</text>\n",
            LEFT - 6.0,
            y + 4.0
        );
    }
}

/// Draws a line through points: x in the picture, and y as a share of the panel from below.
fn path(out: &mut String, top: f64, points: &[(f64, f64)], color: &str, dashes: &str) {
    let mut data = String::new();
    for (x, share) in points {
        let y = top + PANEL * (1.0 - share.clamp(0.0, 1.0));
        let verb = if data.is_empty() { 'M' } else { 'L' };
        let _ = write!(data, "{verb}{x:.1} {y:.1}");
    }
    if !data.is_empty() {
        let dashes = match dashes {
            "" => String::new(),
            dashes => format!(" stroke-dasharray=\"{dashes}\""),
        };
        let _ = writeln!(
            out,
            "<path d=\"{data}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.6\"{dashes}/>"
        );
    }
}

/// Names the lines of a panel, at the right of its title.
fn legend(out: &mut String, top: f64, entries: &[(&str, &str)]) {
    let _ = write!(
        out,
        "<text x=\"{RIGHT}\" y=\"{:.1}\" text-anchor=\"end\">",
        top - 8.0
    );
    for (index, (text, color)) in entries.iter().enumerate() {
        let apart = if index == 0 { "" } else { "\u{2003}" };
        let _ = write!(
            out,
            "{apart}<tspan fill=\"{color}\">{}</tspan>",
            escape(text)
        );
    }
    out.push_str("</text>\n");
}

fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            control if control.is_control() => safe.push('\u{fffd}'),
            other => safe.push(other),
        }
    }
    safe
}
