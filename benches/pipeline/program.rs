//! A bridge or registry that runs in this process, seen from outside as an operator sees it: by its HTTP endpoint.

use std::{net::SocketAddr, time::Duration};

use dmp_service::program::Running;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

/// Longest wait for anything, so that a fault ends the bench and does not hang it.
const PATIENCE: Duration = Duration::from_secs(300);

/// Shortest and longest time between two looks; the shortest also while nothing moves yet. A look takes time from what it
/// measures, so there are few.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));

/// Waits until all parts of a program work.
pub(crate) async fn works(program: &Running) {
    let works = async {
        while !get(program.http(), "/readyz").await.starts_with("HTTP/1.0 200") {
            tokio::time::sleep(LOOK_EVERY.0).await;
        }
    };
    tokio::time::timeout(PATIENCE, works).await.expect("the program works in time");
}

/// Waits until a counter is at least so high; sleeps half of what seems to be left, time and again.
pub(crate) async fn reaches(program: &Running, name: &str, count: u64) {
    let reached = async {
        let (began, first) = (Instant::now(), counter(program, name).await);
        loop {
            let now = counter(program, name).await;
            if now >= count {
                return;
            }
            let (done, left) = (now - first, count - now);
            let half = if done == 0 { 0.0 } else { began.elapsed().as_secs_f64() * left as f64 / done as f64 / 2.0 };
            let (shortest, longest) = LOOK_EVERY;
            tokio::time::sleep(Duration::from_secs_f64(half).clamp(shortest, longest)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.expect("the counter is there in time");
}

/// Sum of a counter over its labels.
pub(crate) async fn counter(program: &Running, name: &str) -> u64 {
    let text = get(program.http(), "/metrics").await;
    let is_its = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let value = |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<u64>().ok());
    text.lines().filter(is_its).filter_map(value).sum()
}

/// Drains it.
pub(crate) async fn stop(mut program: Running) {
    program.stop();
    program.wait().await.expect("the program ends well");
}

/// HTTP/1.0: the answer ends with the connection.
async fn get(http: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(http).await.expect("the program answers");
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers");
    answer
}
