//! Supervised stages: a stage that fails or panics is started again after a capped back-off, and what it was working on
//! is answered as "unknown", never with silence.

use std::{any::Any, future::Future, sync::Arc, time::Duration};

use dmp_core::agent::Backoff;
use rand::SeedableRng;
use rand_pcg::Pcg64;
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinSet,
};

/// What a panic said.
#[must_use]
pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "(no text)".to_owned(),
    }
}

/// A stage of some workers that share one bounded queue of jobs.
#[derive(Debug)]
pub struct Stage<J> {
    jobs: mpsc::Sender<J>,
}

/// What a stage does.
pub trait Work: Send + Sync + 'static {
    /// What it is given.
    type Job: Clone + Send + Sync + 'static;
    /// What it answers.
    type Answer: Send + 'static;

    /// Does one job. May panic.
    fn work(&self, job: Self::Job) -> impl Future<Output = Self::Answer> + Send;

    /// The answer to a job on which a worker broke: it may be done or not.
    fn broken(&self, job: Self::Job, reason: String) -> Self::Answer;

    /// Told each time a worker broke, before it rests.
    fn failed(&self, reason: &str);
}

impl<J: Clone + Send + Sync + 'static> Stage<J> {
    /// Starts `workers`, which take jobs in order and answer each once; the stage ends when its handle is dropped.
    pub fn start<W: Work<Job = J>>(
        work: W,
        workers: usize,
        queue: usize,
        backoff: Backoff,
        answers: mpsc::Sender<W::Answer>,
    ) -> Stage<J> {
        let (jobs, queued) = mpsc::channel(queue);
        let (work, queued) = (Arc::new(work), Arc::new(Mutex::new(queued)));
        for worker in 0..workers {
            let (work, queued, answers) = (Arc::clone(&work), Arc::clone(&queued), answers.clone());
            tokio::spawn(supervise(work, queued, answers, backoff, worker as u64));
        }
        Stage { jobs }
    }

    /// Hands over a job; never waits.
    ///
    /// # Errors
    /// The job itself, where the queue is full: whoever asks for more than its bound is told so.
    pub fn offer(&self, job: J) -> Result<(), J> {
        self.jobs.try_send(job).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(job) | mpsc::error::TrySendError::Closed(job) => job,
        })
    }

    /// Jobs that wait for a worker.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.jobs.max_capacity() - self.jobs.capacity()
    }

    /// Bound of the queue.
    #[must_use]
    pub fn cap(&self) -> usize {
        self.jobs.max_capacity()
    }
}

/// One worker: each job runs as a task of its own, so that a panic ends the job and not the worker.
async fn supervise<W: Work>(
    work: Arc<W>,
    queued: Arc<Mutex<mpsc::Receiver<W::Job>>>,
    answers: mpsc::Sender<W::Answer>,
    backoff: Backoff,
    seed: u64,
) {
    let mut rng = Pcg64::seed_from_u64(seed);
    let mut failures = 0;
    while let Some(job) = { queued.lock().await.recv().await } {
        let task = {
            let (work, job) = (Arc::clone(&work), job.clone());
            tokio::spawn(async move { work.work(job).await })
        };
        let (answer, rest) = match task.await {
            Ok(answer) => {
                failures = 0;
                (answer, Duration::ZERO)
            }
            Err(broken) => {
                let reason = match broken.try_into_panic() {
                    Ok(panic) => format!("panic: {}", panic_text(panic.as_ref())),
                    Err(cancelled) => cancelled.to_string(),
                };
                work.failed(&reason);
                failures += 1;
                (work.broken(job, reason), backoff.wait(failures - 1, &mut rng))
            }
        };
        if answers.send(answer).await.is_err() {
            return;
        }
        tokio::time::sleep(rest).await;
    }
}

/// Runs `attempt` until it ends by itself; again after each panic, with a capped back-off.
pub(crate) async fn restart_on_panic<F>(
    name: &str,
    backoff: Backoff,
    mut attempt: impl FnMut() -> F,
    mut failed: impl FnMut(),
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut rng = Pcg64::seed_from_u64(0);
    let mut failures = 0;
    // A set, because dropping it ends what runs in it.
    let mut running = JoinSet::new();
    loop {
        running.spawn(attempt());
        let Some(Err(broken)) = running.join_next().await else { return };
        let Ok(panic) = broken.try_into_panic() else { return };
        tracing::error!(name, failures, "stage panicked and is started again: {}", panic_text(panic.as_ref()));
        failed();
        tokio::time::sleep(backoff.wait(failures, &mut rng)).await;
        failures += 1;
    }
}
