//! The agent's records on disk: one small SQLite file, each save one synced transaction.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use dmp_core::{
    agent::{Change, SaveOutcome, Saved, SavedCommand, SavedDevice},
    id::{Device, Epoch},
};
use rusqlite::{Connection, params};

/// The records of one RAE; one process at a time.
#[derive(Debug)]
pub(super) struct Records {
    path: PathBuf,
    connection: Arc<Mutex<Connection>>,
}

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS boot (one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS device (device TEXT PRIMARY KEY, saved TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS command (number INTEGER PRIMARY KEY, saved TEXT NOT NULL);
";

impl Records {
    /// Opens the file, or makes it.
    pub(super) async fn open(path: &Path) -> anyhow::Result<Records> {
        let at = path.to_owned();
        let connection = blocking(move || open(&at)).await;
        let connection = connection.with_context(|| format!("opening the agent's records {}", path.display()))?;
        Ok(Records { path: path.to_owned(), connection: Arc::new(Mutex::new(connection)) })
    }

    /// What was saved.
    pub(super) async fn load(&self) -> anyhow::Result<Saved> {
        let connection = Arc::clone(&self.connection);
        let loaded = blocking(move || load(&connection.lock().unwrap_or_else(PoisonError::into_inner))).await;
        loaded.with_context(|| format!("reading the agent's records {}", self.path.display()))
    }

    /// Makes changes durable, all or none.
    pub(super) async fn save(&self, changes: Vec<Change>) -> SaveOutcome {
        let connection = Arc::clone(&self.connection);
        let (outcome, error) =
            blocking(move || save(&mut connection.lock().unwrap_or_else(PoisonError::into_inner), &changes)).await;
        if let Some(error) = error {
            tracing::error!(path = %self.path.display(), "saving records: {error:#}");
        }
        outcome
    }
}

fn open(path: &Path) -> anyhow::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // Synced at each commit: what is published must survive a power cut.
    connection.pragma_update(None, "synchronous", "FULL")?;
    // A second agent on the same file would number the same events twice.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.execute_batch(SCHEMA)?;
    Ok(connection)
}

fn load(connection: &Connection) -> anyhow::Result<Saved> {
    let mut saved = Saved::default();
    let mut boots = connection.prepare("SELECT epoch FROM boot")?;
    for epoch in boots.query_map([], |row| row.get::<_, i64>(0))? {
        saved.boot = Some(Epoch::try_from(u64::try_from(epoch?)?)?);
    }
    let mut devices = connection.prepare("SELECT device, saved FROM device")?;
    let rows = devices.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    for row in rows {
        let (device, text) = row?;
        let record: SavedDevice = serde_json::from_str(&text).with_context(|| format!("record of device {device}"))?;
        saved
            .devices
            .insert(Device(device.parse().with_context(|| format!("device id {device:?}"))?), Arc::new(record));
    }
    let mut commands = connection.prepare("SELECT number, saved FROM command")?;
    for row in commands.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))? {
        let (number, text) = row?;
        let command: SavedCommand = serde_json::from_str(&text).with_context(|| format!("command number {number}"))?;
        saved.commands.insert(u64::try_from(number)?, command);
    }
    Ok(saved)
}

/// Fails with nothing written, except at the commit itself, where nobody knows.
fn save(connection: &mut Connection, changes: &[Change]) -> (SaveOutcome, Option<anyhow::Error>) {
    let transaction = match connection.transaction() {
        Ok(transaction) => transaction,
        Err(error) => return (SaveOutcome::Failed, Some(error.into())),
    };
    for change in changes {
        if let Err(error) = write(&transaction, change) {
            return (SaveOutcome::Failed, Some(error));
        }
    }
    match transaction.commit() {
        Ok(()) => (SaveOutcome::Durable, None),
        Err(error) => (SaveOutcome::Unknown, Some(error.into())),
    }
}

fn write(connection: &Connection, change: &Change) -> anyhow::Result<()> {
    match change {
        Change::Boot(epoch) => {
            let epoch = i64::try_from(epoch.get())?;
            connection.prepare_cached("INSERT OR REPLACE INTO boot VALUES (1, ?1)")?.execute([epoch])?;
        }
        Change::Device(device, saved) => {
            let text = serde_json::to_string(&**saved)?;
            let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO device VALUES (?1, ?2)")?;
            statement.execute(params![device.to_string(), text])?;
        }
        Change::Command(number, command) => {
            let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO command VALUES (?1, ?2)")?;
            statement.execute(params![i64::try_from(*number)?, serde_json::to_string(command)?])?;
        }
        Change::ForgetCommand(number) => {
            let mut statement = connection.prepare_cached("DELETE FROM command WHERE number = ?1")?;
            statement.execute([i64::try_from(*number)?])?;
        }
        Change::Forget(device) => {
            connection.prepare_cached("DELETE FROM device WHERE device = ?1")?.execute([device.to_string()])?;
        }
    }
    Ok(())
}

/// Runs what blocks on tokio's threads for that; a panic in it goes on in the caller.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dmp_core::{
        event::ReplyOutcome,
        id::{Seq, Session},
        time::Wall,
    };
    use std::collections::BTreeMap;

    #[tokio::test]
    async fn what_was_saved_is_there_after_a_restart_and_what_was_forgotten_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("agent.db");
        let (kept, gone) = (Device::of_hardware("kept"), Device::of_hardware("gone"));
        let record = Arc::new(SavedDevice {
            hardware: "kept".into(),
            session: Session(uuid::Uuid::from_u128(7)),
            epoch: Epoch::FIRST,
            seq: Seq::try_from((1 << 53) - 1).expect("the largest seq"),
            attributes: BTreeMap::from([(
                "rate".try_into().expect("a name"),
                (dmp_core::event::Value::Float(0.1), Seq::FIRST),
            )]),
            found_at: Wall(-1),
        });
        let records = Records::open(&path).await.expect("it opens");
        let devices = vec![Change::Device(kept, record.clone()), Change::Device(gone, record.clone())];
        assert_eq!(records.save(devices).await, SaveOutcome::Durable);
        let boot = Epoch::FIRST.next().expect("a second epoch");
        let ended = SavedCommand { id: uuid::Uuid::from_u128(9), outcome: Some(ReplyOutcome::error("no")) };
        let changes = vec![
            Change::Boot(boot),
            Change::Forget(gone),
            Change::Command(7, SavedCommand { outcome: None, ..ended.clone() }),
            Change::Command(8, SavedCommand { id: uuid::Uuid::from_u128(8), outcome: None }),
            Change::Command(9, ended.clone()),
            Change::ForgetCommand(7),
        ];
        assert_eq!(records.save(changes).await, SaveOutcome::Durable);
        drop(records);
        let saved = Records::open(&path).await.expect("it opens again").load().await.expect("it reads");
        let begun = SavedCommand { id: uuid::Uuid::from_u128(8), outcome: None };
        let commands = BTreeMap::from([(8, begun), (9, ended)]);
        assert_eq!(saved, Saved { boot: Some(boot), devices: BTreeMap::from([(kept, record)]), commands });
    }

    #[tokio::test]
    async fn a_file_that_is_no_store_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("agent.db");
        std::fs::write(&path, vec![b'x'; 4096]).expect("it is written");
        let error = Records::open(&path).await.expect_err("it is no store");
        assert!(format!("{error:#}").contains("agent.db"), "{error:#}");
    }
}
