//! A scenario written in code: the keys of the file, and read as strictly.

use toml::{Table, Value};

use super::{Scenario, ScenarioError};

/// A scenario on its way; see [`Scenario::asking`].
#[derive(Debug, Clone)]
pub struct Written {
    question: String,
    table: Table,
    phases: Vec<Value>,
    faults: Vec<Value>,
}

impl Scenario {
    /// Begins a scenario that asks `question`, with every default.
    ///
    /// ```
    /// # use fleetproof::scenario::Scenario;
    /// let scenario = Scenario::asking("Is a small burst reflected?")
    ///     .set("fleet.raes", 20)
    ///     .phase("burst", "5s", 8.0)
    ///     .fault("burst + 1s", "duplicates = { share = 0.5, delay = '1s', lasts = '2s' }")
    ///     .build()?;
    /// assert_eq!((scenario.fleet.raes, scenario.phases[0].rate), (20, 8.0));
    /// # Ok::<(), fleetproof::scenario::ScenarioError>(())
    /// ```
    #[must_use]
    pub fn asking(question: &str) -> Written {
        Written { question: question.to_owned(), table: Table::new(), phases: Vec::new(), faults: Vec::new() }
    }
}

impl Written {
    /// Sets a dotted key, such as `fleet.raes`, to a value as the file has it: durations are texts.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Written {
        let mut at = &mut self.table;
        let mut levels = key.split('.').peekable();
        while let Some(level) = levels.next() {
            if levels.peek().is_none() {
                at.insert(level.to_owned(), value.into());
                break;
            }
            let below = at.entry(level).or_insert_with(|| Value::Table(Table::new()));
            if !below.is_table() {
                *below = Value::Table(Table::new());
            }
            at = below.as_table_mut().expect("made a table above");
        }
        self
    }

    /// Adds a phase of load, with a factor on the rate of changes.
    #[must_use]
    pub fn phase(mut self, name: &str, lasts: &str, rate: f64) -> Written {
        let fields = [("name", name.into()), ("lasts", lasts.into()), ("rate", Value::Float(rate))];
        self.phases.push(Value::Table(fields.map(|(key, value)| (key.to_owned(), value)).into_iter().collect()));
        self
    }

    /// Adds a fault at a moment, as the file has it: `kill = { part = 'registry', back_after = '2s' }`.
    #[must_use]
    pub fn fault(mut self, at: &str, kind: &str) -> Written {
        // What is no TOML becomes a key that no fault has, so that the error shows it.
        let mut fault =
            kind.parse::<Table>().unwrap_or_else(|_| [(kind.to_owned(), true.into())].into_iter().collect());
        fault.insert("at".to_owned(), at.into());
        self.faults.push(Value::Table(fault));
        self
    }

    /// The scenario, called by its question.
    ///
    /// # Errors
    /// With every mistake in it, at its place in the file that it would be.
    pub fn build(self) -> Result<Scenario, ScenarioError> {
        let Written { question, mut table, phases, faults } = self;
        for (key, list) in [("phase", phases), ("fault", faults)] {
            if !list.is_empty() {
                table.insert(key.to_owned(), Value::Array(list));
            }
        }
        let name: String =
            question.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
        let text = format!("# {question}\n{table}");
        Scenario::from_text(name.trim_matches('-'), &text, &[], None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_in_code_is_read_as_what_is_written_in_a_file() {
        let written = Scenario::asking("Does it converge?")
            .set("seed", 9)
            .set("fleet.raes", 20)
            .set("fleet.update_every", "5s")
            .set("checks.converged_within", "20s")
            .phase("calm", "3s", 1.0)
            .phase("burst", "5s", 8.0)
            .fault("burst + 1s", "kill = { part = 'registry', back_after = '2s' }")
            .build()
            .unwrap_or_else(|error| panic!("{error}"));
        let text = "# Does it converge?
seed = 9
[fleet]
raes = 20
update_every = \"5s\"
[[phase]]
name = \"calm\"
lasts = \"3s\"
rate = 1.0
[[phase]]
name = \"burst\"
lasts = \"5s\"
rate = 8.0
[[fault]]
at = \"burst + 1s\"
kill = { part = \"registry\", back_after = \"2s\" }
[checks]
converged_within = \"20s\"
";
        let read = Scenario::from_text("does-it-converge", text, &[], None).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(written, read);
    }

    #[test]
    fn a_mistake_in_code_is_named_as_one_in_a_file() {
        let wrong = |written: Written| written.build().expect_err("a mistake").to_string();
        let load = || Scenario::asking("Is it refused?").phase("load", "5s", 1.0);
        assert!(wrong(load().set("fleet.rae", 20)).contains("did you mean `raes`?"));
        assert!(
            wrong(load().fault("lode + 1s", "disconnect = { share = 0.5, lasts = '1s' }"))
                .contains("there is no phase")
        );
        assert!(wrong(load().fault("1s", "kill it")).contains("kill it"));
    }
}
