//! Tables with aligned columns.

use console::measure_text_width;

/// Aligns the cells of rows to the left, with two spaces between columns. Columns without any cell are left out.
pub(crate) fn align(head: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    let all = || std::iter::once(&head).chain(rows);
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            let cell = |row: &Vec<String>| row.get(column).map_or(0, |c| measure_text_width(c));
            if rows.iter().all(|row| cell(row) == 0) && !rows.is_empty() {
                0
            } else {
                all().map(cell).max().unwrap_or(0)
            }
        })
        .collect();
    all()
        .map(|row| {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths).filter(|(_, width)| **width > 0) {
                let padding = width.saturating_sub(measure_text_width(cell)) + 2;
                line.push_str(cell);
                line.push_str(&" ".repeat(padding));
            }
            line.trim_end().to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::align;
    use crate::text::Paint;

    #[test]
    fn columns_are_as_wide_as_what_is_seen() {
        let red = Paint { on: true }.bad("bad");
        let rows = [
            vec!["a".to_owned(), red.clone(), String::new(), "1".to_owned()],
            vec![
                "longer".to_owned(),
                "ok".to_owned(),
                String::new(),
                "2".to_owned(),
            ],
        ];
        assert_eq!(
            align(&["NAME", "WORD", "EMPTY", "N"], &rows),
            [
                "NAME    WORD  N".to_owned(),
                format!("a       {red}   1"),
                "longer  ok    2".to_owned(),
            ]
        );
    }
}
