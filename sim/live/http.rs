//! The HTTP endpoint of a child process, asked.

use std::net::SocketAddr;

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Most bytes of an answer: far above what the programs have to say.
const MOST_BYTES: u64 = 4 * 1024 * 1024;

/// An answer: whether it is `200 OK`, and its body.
pub(super) struct Answer {
    pub(super) ok: bool,
    pub(super) body: String,
}

/// Asks for `path`. HTTP/1.0: the answer ends with the connection, so that no client library is needed for four lines of
/// text.
///
/// # Errors
/// If nobody answers there, or not by HTTP.
pub(super) async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.take(MOST_BYTES).read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
    let status = head.split_whitespace().nth(1).context("an answer without a status")?;
    Ok(Answer { ok: status == "200", body: body.to_owned() })
}
