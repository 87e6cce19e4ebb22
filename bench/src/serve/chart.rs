//! A picture of measurements: groups of horizontal bars, as SVG for light and dark pages.

use std::fmt::Write;

/// Bars that share a scale.
pub(super) struct Group {
    pub(super) title: String,
    pub(super) bars: Vec<Bar>,
}

/// Measurement of one server, in the unit that the title of its group names.
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) value: f64,
    /// Whether it is a measurement of this project.
    pub(super) ours: bool,
}

const WIDTH: f64 = 940.0;
const LEFT: f64 = 260.0;
const RIGHT: f64 = 90.0;
const ROW: f64 = 26.0;
const TITLE: f64 = 40.0;

const STYLE: &str = "text { font: 14px system-ui, sans-serif; fill: #24292f } .title { font-weight: 600 } \
    .ours { fill: #0969da } .other { fill: #8c959f } \
    @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .ours { fill: #4493f8 } .other { fill: #656c76 } }";

/// Draws the groups below each other. The longest bar of each fills the width.
pub(super) fn bars(groups: &[Group]) -> String {
    let rows: usize = groups.iter().map(|group| group.bars.len()).sum();
    let height = TITLE * groups.len() as f64 + ROW * rows as f64 + 10.0;
    let mut body = String::new();
    let mut top = 0.0;
    for group in groups {
        let longest = group
            .bars
            .iter()
            .map(|bar| bar.value)
            .fold(f64::MIN_POSITIVE, f64::max);
        // writing to a text cannot fail
        let _ = writeln!(
            body,
            "<text class=\"title\" x=\"10\" y=\"{}\">{}</text>",
            top + 28.0,
            group.title
        );
        top += TITLE;
        for bar in &group.bars {
            let length = (WIDTH - LEFT - RIGHT) * bar.value / longest;
            let class = if bar.ours { "ours" } else { "other" };
            let text = top + 16.0;
            let _ = writeln!(body, "<text x=\"10\" y=\"{text}\">{}</text>", bar.name);
            let _ = writeln!(
                body,
                "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{top}\" width=\"{length:.1}\" height=\"20\"/>"
            );
            let _ = writeln!(
                body,
                "<text x=\"{:.1}\" y=\"{text}\">{:.1}</text>",
                LEFT + length + 8.0,
                bar.value
            );
            top += ROW;
        }
    }
    let spoken = groups.iter().flat_map(|group| {
        let bars = group
            .bars
            .iter()
            .map(|bar| format!("{} {:.1}", bar.name, bar.value));
        std::iter::once(group.title.clone()).chain(bars)
    });
    let spoken = spoken.collect::<Vec<_>>().join("; ");
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-labelledby=\"title\">\n\
         <title id=\"title\">{spoken}</title>\n<style>{STYLE}</style>\n{body}</svg>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_of_each_group_fills_the_width() {
        let bar = |value, ours| Bar {
            name: format!("b{value}"),
            value,
            ours,
        };
        let group = |values: &[f64]| Group {
            title: "t".to_owned(),
            bars: values
                .iter()
                .map(|value| bar(*value, *value < 20.0))
                .collect(),
        };
        let drawn = bars(&[group(&[10.0, 40.0]), group(&[5.0])]);
        let widths: Vec<_> = drawn
            .split("width=\"")
            .skip(1)
            .filter_map(|part| part.split('"').next())
            .collect();
        assert_eq!(widths, ["147.5", "590.0", "590.0"]);
        assert_eq!(drawn.matches("class=\"ours\"").count(), 2);
        assert_eq!(drawn.matches("class=\"other\"").count(), 1);
    }
}
