//! A row of blocks for one time series, with the times of the faults below it.

use crate::observe::{FaultFigures, Point};

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A series over time in one line of `columns` blocks: each shows the largest value of its stretch, so that no peak is lost.
pub(super) fn sparkline(values: &[(f64, f64)], ends_s: f64, columns: usize) -> String {
    let mut highest = vec![None::<f64>; columns];
    for &(at_s, value) in values {
        let column = column_of(at_s, ends_s, columns);
        highest[column] = Some(highest[column].map_or(value, |other| other.max(value)));
    }
    let most = values.iter().map(|&(_, value)| value).fold(0.0, f64::max);
    let mut shown = 0.0;
    let block = |value: f64| match most > 0.0 {
        true => BLOCKS[((value / most * 7.0).round() as usize).min(7)],
        false => BLOCKS[0],
    };
    highest
        .into_iter()
        .map(|value| {
            // A stretch without a point goes on with the value before it.
            shown = value.unwrap_or(shown);
            block(shown)
        })
        .collect()
}

/// Where faults held, below a [`sparkline`]: `╌` while at least one did.
pub(super) fn fault_marks(faults: &[FaultFigures], ends_s: f64, columns: usize) -> String {
    let mut marks = vec![' '; columns];
    for fault in faults {
        let from = column_of(fault.began_s, ends_s, columns);
        let to = column_of(fault.ended_s.unwrap_or(ends_s), ends_s, columns);
        marks[from..=to.max(from)].fill('╌');
    }
    marks.into_iter().collect::<String>().trim_end().to_owned()
}

/// The lag of every point, for [`sparkline`].
pub(super) fn lag(series: &[Point]) -> Vec<(f64, f64)> {
    series.iter().map(|point| (point.at_s, point.lag_committed as f64)).collect()
}

fn column_of(at_s: f64, ends_s: f64, columns: usize) -> usize {
    let share = if ends_s > 0.0 { at_s / ends_s } else { 0.0 };
    ((share * columns as f64) as usize).min(columns.saturating_sub(1))
}
