//! What people and programs get to see of a run: a progress line while it goes on, a summary in the terminal, and
//! `result.json`, which holds everything.
//!
//! A report has no opinion and computes nothing but its layout: what it shows was checked or measured before, and every
//! figure in it is in the result file.

mod chart;
mod layout;
mod progress;
mod result_file;
mod summary;

#[cfg(test)]
mod tests;

pub use layout::Terminal;
pub use progress::ProgressLine;
pub use result_file::{FORMAT, directory, discard, write};
pub use summary::{brief, summary};
