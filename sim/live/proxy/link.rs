//! Carries the bytes of one connection in both directions, as fast as the link's pace lets it.
//!
//! Each direction is a reader, a short queue and a writer: so latency delays every byte without limiting how many are
//! on their way, and a full queue is back-pressure on the sender.

use std::{
    io,
    pin::pin,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    LinkId, Meter, Mode, Observed, Pace, Wire,
    tap::{Deliveries, Tap},
};

/// Bytes read at a time.
const CHUNK_BYTES: usize = 16 * 1024;

/// Chunks on their way in a direction: 4 MiB, which a link of 20 MiB/s holds in 200 ms of latency.
const CHUNKS: usize = 256;

/// A limited link passes what is due in this time as one piece, so that its rate is even.
const SLICE: Duration = Duration::from_millis(20);

/// Tells what was seen on one connection, where anything is to be seen.
pub(super) struct Reporter {
    pub(super) link: LinkId,
    pub(super) observed: Option<mpsc::Sender<Observed>>,
    pub(super) meter: Arc<Meter>,
}

impl Reporter {
    /// Waits where nobody takes it: an observation is never lost. A receiver that is gone wants none.
    async fn tell(&self, seen: &mut Vec<Wire>) {
        let Some(observed) = &self.observed else { return };
        for what in seen.drain(..) {
            match &what {
                Wire::BridgeReceived(_) => self.meter.messages.fetch_add(1, Ordering::Relaxed),
                Wire::BridgeAcknowledged(_) => self.meter.acknowledgements.fetch_add(1, Ordering::Relaxed),
                Wire::Opened { .. } | Wire::StrayAcknowledgement(_) | Wire::Unreadable { .. } | Wire::Closed => 0,
            };
            let seen = Observed { link: self.link, at: std::time::Instant::now(), what };
            let _nobody_listens = observed.send(seen).await;
        }
    }
}

/// Counts a connection as open while it lives.
struct Open<'a>(&'a Meter);

impl<'a> Open<'a> {
    fn new(meter: &'a Meter) -> Open<'a> {
        meter.open.fetch_add(1, Ordering::Relaxed);
        Open(meter)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Carries one connection until both directions have ended, one has failed, or the link is cut.
pub(super) async fn carry(bridge: TcpStream, broker: TcpStream, mut mode: watch::Receiver<Mode>, reporter: Reporter) {
    let _open = Open::new(&reporter.meter);
    // Acknowledgements are small: Nagle's algorithm would delay them on top of the pace asked for.
    let (_, _) = (bridge.set_nodelay(true), broker.set_nodelay(true));
    let (from_bridge, to_bridge) = bridge.into_split();
    let (from_broker, to_broker) = broker.into_split();
    let cuts = mode.borrow().cuts;
    let deliveries = Mutex::new(Deliveries::default());
    let lock = || deliveries.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut down, mut up) = (Tap::default(), Tap::default());
    let reads = reporter.observed.is_some();
    let down = direction(from_broker, to_bridge, mode.clone(), &reporter, move |bytes, seen| {
        if reads {
            down.broker_sent(bytes, &mut lock(), seen);
        }
    });
    let up = direction(from_bridge, to_broker, mode.clone(), &reporter, move |bytes, seen| {
        if reads {
            up.bridge_sent(bytes, &mut lock(), seen);
        }
    });
    let (down, up) = (pin!(down), pin!(up));
    tokio::select! {
        // First: a link that was half open takes what hung on it with it, and nothing of that passes any more.
        biased;
        _cut = mode.wait_for(|mode| mode.cut || mode.cuts > cuts) => {}
        // How a connection ends is for its two ends to judge.
        _ended = async { tokio::try_join!(down, up) } => {}
    }
    reporter.tell(&mut vec![Wire::Closed]).await;
}

/// Carries one direction until its end, which is passed on as an end of writing.
async fn direction(
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    mode: watch::Receiver<Mode>,
    reporter: &Reporter,
    read: impl FnMut(&[u8], &mut Vec<Wire>),
) -> io::Result<()> {
    let (chunks, on_the_way) = mpsc::channel(CHUNKS);
    tokio::try_join!(receive(from, chunks, reporter, read), send(to, on_the_way, mode, reporter))?;
    Ok(())
}

async fn receive(
    mut from: OwnedReadHalf,
    chunks: mpsc::Sender<(Instant, Bytes)>,
    reporter: &Reporter,
    mut read: impl FnMut(&[u8], &mut Vec<Wire>),
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut seen = Vec::new();
    loop {
        let filled = from.read(&mut buffer).await?;
        if filled == 0 {
            return Ok(());
        }
        read(&buffer[..filled], &mut seen);
        reporter.tell(&mut seen).await;
        let chunk = Bytes::copy_from_slice(&buffer[..filled]);
        if chunks.send((Instant::now(), chunk)).await.is_err() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
    }
}

async fn send(
    mut to: OwnedWriteHalf,
    mut on_the_way: mpsc::Receiver<(Instant, Bytes)>,
    mut mode: watch::Receiver<Mode>,
    reporter: &Reporter,
) -> io::Result<()> {
    let mut due = Instant::now();
    while let Some((sent, mut chunk)) = on_the_way.recv().await {
        while !chunk.is_empty() {
            // Looked at for each piece, so that a change of pace holds at once.
            let pace = mode.borrow().pace;
            wait_until(sent + pace.latency).await;
            // A proxy that is gone takes its connections with it.
            let _gone = mode.wait_for(|mode| !mode.half_open).await.map(drop);
            let piece = chunk.split_to(piece(pace, chunk.len()));
            to.write_all(&piece).await?;
            reporter.meter.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
            due = due.max(Instant::now()) + time_of(pace, piece.len());
            wait_until(due).await;
        }
    }
    to.shutdown().await
}

/// Even a time that has passed costs a timer's tick to sleep for.
async fn wait_until(due: Instant) {
    if due > Instant::now() {
        sleep_until(due).await;
    }
}

/// How many of `waiting` bytes go at once.
fn piece(pace: Pace, waiting: usize) -> usize {
    let Some(rate) = pace.bytes_per_second else { return waiting };
    let slice = u128::from(rate) * SLICE.as_millis() / 1000;
    usize::try_from(slice).unwrap_or(usize::MAX).clamp(1, waiting)
}

/// How long `bytes` take.
fn time_of(pace: Pace, bytes: usize) -> Duration {
    pace.bytes_per_second.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64))
}
