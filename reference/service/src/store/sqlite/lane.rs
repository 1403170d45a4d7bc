//! A thread that owns one connection and does one job after the other: SQLite blocks, and tokio must not.

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::store::StoreError;

/// Most jobs that wait for the thread; callers beyond it wait to hand theirs over. The registry has one write under way
/// per partition, so this is reached with more than 64 partitions alone.
const WAITING_JOBS: usize = 64;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// Handle to the thread; it ends when the handle is dropped and its jobs are done.
#[derive(Debug)]
pub(super) struct Lane {
    jobs: mpsc::Sender<Job>,
}

/// The thread is gone: a job panicked.
pub(super) struct LaneError {
    /// Whether the job may have begun.
    pub(super) started: bool,
}

impl Lane {
    /// Starts the thread and opens its connection there.
    pub(super) async fn start(
        name: &str,
        open: impl FnOnce() -> Result<Connection, StoreError> + Send + 'static,
    ) -> Result<Lane, StoreError> {
        let (jobs, mut queue) = mpsc::channel::<Job>(WAITING_JOBS);
        let (opened, answer) = oneshot::channel();
        let body = move || match open() {
            Ok(mut connection) => {
                let _ = opened.send(Ok(()));
                while let Some(job) = queue.blocking_recv() {
                    job(&mut connection);
                }
            }
            Err(error) => {
                let _ = opened.send(Err(error));
            }
        };
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(body)
            .map_err(|error| StoreError::Failed(format!("cannot start a thread: {error}")))?;
        answer.await.map_err(|_| StoreError::Failed("thread ended while opening the file".to_owned()))??;
        Ok(Lane { jobs })
    }

    /// Does `job` on the thread, after those before it. A job that was handed over runs also when the caller stops
    /// waiting.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> T + Send + 'static,
    ) -> Result<T, LaneError> {
        let (done, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let _ = done.send(job(connection));
        });
        self.jobs.send(job).await.map_err(|_| LaneError { started: false })?;
        answer.await.map_err(|_| LaneError { started: true })
    }
}
