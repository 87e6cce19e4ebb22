//! Recordings as CSV: a line with the names of the columns, then one line for each row.

use std::fmt::Write as _;

use super::{ALL, Row, Written, bound, time, used_bounds};

/// Start of the names of columns with latencies; the bound in seconds follows.
const BUCKET: &str = "le_";

/// A column of the file.
enum Column {
    Time,
    Process,
    Revision,
    Requests,
    Failures,
    ClientErrors,
    Bucket(f64),
}

pub(super) fn parse(text: &str) -> Result<Vec<Row>, String> {
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let (_, head) = lines.next().ok_or("the recording is empty")?;
    let columns = columns(head)?;
    let row = |(number, line): (usize, &str)| {
        row(&columns, line).map_err(|why| format!("line {number}: {why}"))
    };
    lines.map(row).collect()
}

fn columns(head: &str) -> Result<Vec<Column>, String> {
    let names: Vec<&str> = head.split(',').map(str::trim).collect();
    for needed in ["time", "revision", "requests", "failures"] {
        if !names.contains(&needed) {
            return Err(format!(
                "the first line has no column {needed}: it names the columns time, revision, requests and failures, and if you \
                 have them process, client_errors and le_0.005, le_0.01, … for latencies"
            ));
        }
    }
    let column = |name: &&str| {
        Ok(match *name {
            "time" => Column::Time,
            "process" => Column::Process,
            "revision" => Column::Revision,
            "requests" => Column::Requests,
            "failures" => Column::Failures,
            "client_errors" => Column::ClientErrors,
            other => match other.strip_prefix(BUCKET) {
                Some(text) => Column::Bucket(bound(text)?),
                None => return Err(format!("the column {other:?} is unknown")),
            },
        })
    };
    names.iter().map(column).collect()
}

fn row(columns: &[Column], line: &str) -> Result<Row, String> {
    let cells: Vec<&str> = line.split(',').map(str::trim).collect();
    if cells.len() != columns.len() {
        return Err(format!(
            "it has {} cells, and there are {} columns",
            cells.len(),
            columns.len()
        ));
    }
    let (mut at, mut process, mut revision) = (None, ALL, "");
    let mut written = Written::default();
    for (column, cell) in columns.iter().zip(cells) {
        match column {
            Column::Time => at = Some(time(cell)?),
            Column::Process => process = cell,
            Column::Revision => revision = cell,
            Column::Requests => written.requests = count(cell)?,
            Column::Failures => written.failures = count(cell)?,
            Column::ClientErrors => written.client_errors = count(cell)?,
            Column::Bucket(bound) => written.latency.push((*bound, count(cell)? as f64)),
        }
    }
    if revision.is_empty() {
        return Err("it names no revision".to_owned());
    }
    Ok(Row {
        at: at.ok_or("it has no time")?,
        process: process.to_owned(),
        revision: revision.to_owned(),
        tally: written.tally()?,
    })
}

fn count(cell: &str) -> Result<u64, String> {
    let parsed = cell.parse();
    parsed.map_err(|_| format!("{cell:?} is not a number of requests"))
}

/// Writes rows as CSV, with the latencies that occur.
pub(crate) fn write(rows: &[Row]) -> String {
    let bounds = used_bounds(rows);
    let mut text = "time,process,revision,requests,failures,client_errors".to_owned();
    // Writing to a String cannot fail.
    for bound in bounds.values() {
        let _ = write!(text, ",{BUCKET}{bound}");
    }
    if !bounds.is_empty() {
        let _ = write!(text, ",{BUCKET}+Inf");
    }
    text.push('\n');
    for Row {
        at,
        process,
        revision,
        tally,
    } in rows
    {
        let _ = write!(
            text,
            "{at},{process},{revision},{},{},{}",
            tally.requests, tally.errors, tally.client_errors
        );
        for index in bounds.keys() {
            let below: u64 = tally.latency.0.iter().take(index + 1).sum();
            let _ = write!(text, ",{below}");
        }
        if !bounds.is_empty() {
            let _ = write!(text, ",{}", tally.latency.count());
        }
        text.push('\n');
    }
    text
}
