//! Connections: accepted, read in frames, answered in order.
//!
//! As in Kafka, a connection has one request in work at a time. While it waits for an answer its end is watched for: a
//! client that is gone must not be waited for, nor counted as joined. Requests are bounded in size, but the codec makes
//! room for as many elements as an array claims to have: one more reason to listen on loopback only.

use std::{io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::{JoinError, JoinSet},
};

use super::{
    State,
    api::{self, Refused},
};

/// Connections at a time; more are closed at once. A client has two or three.
const CONNECTIONS_MAX: usize = 1_024;
/// Largest request: a produce request with a batch of the largest size for each of a few partitions.
const REQUEST_BYTES_MAX: usize = 16 << 20;
/// Read buffer of a connection: a fleet's idle clients should cost little.
const READ_BUFFER_BYTES: usize = 32 << 10;

/// Pause after a connection could not be accepted: out of files, most likely, which another try does not cure.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Why a connection ended before its client ended it.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("using the connection")]
    Broken(#[from] io::Error),
    #[error("a request of {bytes} bytes is larger than {REQUEST_BYTES_MAX}")]
    Oversized { bytes: u32 },
    #[error("a request could not be answered")]
    Refused(#[from] Refused),
}

/// Serves until `stop` is told or dropped; then nothing of it is left.
pub(super) async fn serve(listener: TcpListener, state: Arc<State>, mut stop: oneshot::Receiver<()>) {
    let mut tasks = JoinSet::new();
    let keeper = state.clone();
    tasks.spawn(async move { keeper.coordinator.keep_time().await });
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if tasks.len() <= CONNECTIONS_MAX => {
                    tasks.spawn(converse(stream, state.clone()));
                }
                Ok(_) => tracing::warn!(CONNECTIONS_MAX, "the embedded Kafka broker closes a connection: too many"),
                Err(error) => {
                    tracing::warn!(%error, "the embedded Kafka broker cannot accept a connection");
                    tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                }
            },
            Some(ended) = tasks.join_next() => tell_panic(ended),
            _ = &mut stop => break,
        }
    }
    drop(listener);
    tasks.shutdown().await;
}

fn tell_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "the embedded Kafka broker has a defect; one connection is closed");
    }
}

async fn converse(stream: TcpStream, state: Arc<State>) {
    let mut cut = state.cuts.subscribe();
    let ended = tokio::select! {
        ended = exchange(stream, &state) => ended,
        _ = cut.changed() => Ok(()),
    };
    match ended {
        Ok(()) => {}
        Err(Ended::Broken(error)) => tracing::debug!(%error, "a Kafka client's connection broke"),
        Err(error @ (Ended::Oversized { .. } | Ended::Refused(_))) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the embedded Kafka broker closes a connection");
        }
    }
}

async fn exchange(stream: TcpStream, state: &State) -> Result<(), Ended> {
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::with_capacity(READ_BUFFER_BYTES, reader);
    while let Some(frame) = read_frame(&mut reader).await? {
        let answer = tokio::select! {
            biased;
            answer = api::answer(state, frame) => answer?,
            () = hung_up(&mut reader) => return Ok(()),
        };
        if let Some(answer) = answer {
            writer.write_all(&answer).await?;
        }
    }
    Ok(())
}

/// The next request; `None` where the client closed the connection between two.
async fn read_frame(reader: &mut (impl AsyncBufReadExt + Unpin)) -> Result<Option<Bytes>, Ended> {
    if reader.fill_buf().await?.is_empty() {
        return Ok(None);
    }
    let bytes = reader.read_u32().await?;
    if bytes as usize > REQUEST_BYTES_MAX {
        return Err(Ended::Oversized { bytes });
    }
    let mut frame = BytesMut::zeroed(bytes as usize);
    reader.read_exact(&mut frame).await?;
    Ok(Some(frame.freeze()))
}

/// Returns when the client has closed the connection; never while it has sent more requests.
async fn hung_up(reader: &mut (impl AsyncBufReadExt + Unpin)) {
    if let Ok([_, ..]) = reader.fill_buf().await {
        std::future::pending().await
    }
}
