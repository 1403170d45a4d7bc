//! The checks: they see nothing but the typed history and the scenario, and end in one verdict with witnesses.

pub mod verdict;
