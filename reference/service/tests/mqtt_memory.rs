//! What an idle MQTT connection costs. Alone in its process, so that nobody else's memory is counted; on Linux.
#![cfg(target_os = "linux")]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, mpsc},
    time::Duration,
};

use dmp_core::core::{ConnectionId, PacketId, Publication, Qos};
use dmp_service::mqtt::{Client, ConnectOptions, Dialer, Endpoint, Incoming, TlsSettings};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Two open files each, of 20,000 that a process usually may have.
const CONNECTIONS: usize = 5_000;

/// Promised for an idle connection, its task included.
const MOST_BYTES: usize = 4 * 1024;

#[test]
fn an_idle_connection_costs_at_most_4_kib() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit of open files");
    let files = hard.min(2 * CONNECTIONS as u64 + 200);
    setrlimit(Resource::RLIMIT_NOFILE, files.max(soft), hard).expect("a limit within the hard one");
    let connections = CONNECTIONS.min((files.max(soft) as usize - 200) / 2);

    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint =
        Endpoint { host: "127.0.0.1".into(), port: listener.local_addr().expect("an address").port(), tls: false };
    let accepting = std::thread::spawn(move || accept(&listener, connections));

    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let dialer = Dialer::new(endpoint, &TlsSettings::default()).expect("no TLS, no error").at_most(80);
    let dialer = Arc::new(dialer);
    // One connection before the first look: the runtime's own memory is not the connections'.
    let (idle, became_idle) = mpsc::channel();
    runtime.spawn(live(dialer.clone(), idle.clone()));
    became_idle.recv().expect("the first connection");
    let before = resident();
    for _ in 1..connections {
        runtime.spawn(live(dialer.clone(), idle.clone()));
    }
    for _ in 1..connections {
        became_idle.recv().expect("every connection");
    }
    let each = (resident() - before) / (connections - 1);
    println!("{connections} idle connections: {each} bytes each");
    assert!(each <= MOST_BYTES, "{each} bytes for each of {connections} idle connections");
    drop(runtime);
    drop(accepting.join().expect("the acceptor does not panic"));
}

/// Connects, has one large message each way, and is idle then: what a busy time left behind counts, too.
async fn live(dialer: Arc<Dialer>, idle: mpsc::Sender<()>) {
    let connection = ConnectionId(1);
    let mut client = Client::new(dialer);
    let options = ConnectOptions {
        client_id: "RAE-1".into(),
        clean_session: true,
        keep_alive: Duration::from_secs(3_600),
        will: None,
        credentials: None,
    };
    client.connect(connection, options);
    loop {
        match client.next().await.1 {
            Incoming::Connected { .. } => {
                let message = Publication {
                    topic: "dmp/v1/s00/RAE-1/a/state".into(),
                    payload: vec![b'x'; 20_000].into(),
                    qos: Qos::AtLeastOnce,
                    retain: false,
                };
                client.publish(connection, Some(PacketId(1)), false, &message);
            }
            Incoming::Message(message) => assert_eq!(message.payload.len(), 20_000),
            Incoming::Acknowledged(_) => idle.send(()).expect("the test waits"),
            Incoming::Subscribed(_) | Incoming::Closed(_) => return,
        }
    }
}

/// Answers each CONNECT, and the PUBLISH behind it with another and its acknowledgement; without a task or a buffer.
fn accept(listener: &TcpListener, connections: usize) -> Vec<TcpStream> {
    let mut accepted = Vec::with_capacity(connections);
    let mut publish = vec![0x30, 0xa3, 0x9c, 1, 0, 1, b'a'];
    publish.extend([b'x'; 20_000]);
    for _ in 0..connections {
        let (mut stream, _) = listener.accept().expect("a connection");
        skip_packet(&mut stream);
        stream.write_all(&[0x20, 2, 0, 0]).expect("CONNACK");
        skip_packet(&mut stream);
        stream.write_all(&publish).expect("PUBLISH");
        stream.write_all(&[0x40, 2, 0, 1]).expect("PUBACK");
        accepted.push(stream);
    }
    accepted
}

fn skip_packet(stream: &mut TcpStream) {
    let mut byte = [0];
    stream.read_exact(&mut byte).expect("a packet type");
    let (mut length, mut shift) = (0, 0);
    loop {
        stream.read_exact(&mut byte).expect("a length");
        length |= u64::from(byte[0] & 0x7f) << shift;
        shift += 7;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    std::io::copy(&mut stream.take(length), &mut std::io::sink()).expect("a packet");
}

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("statm");
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("resident pages");
    pages * 4096
}
