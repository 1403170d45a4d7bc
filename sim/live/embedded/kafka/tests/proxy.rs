//! A link on loopback that loses answers, or falls silent.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

/// Stands between clients and a broker.
pub(super) struct Proxy {
    listener: TcpListener,
    links: Arc<Links>,
}

#[derive(Default)]
struct Links {
    silent: Mutex<Vec<Arc<Silence>>>,
    cuts: AtomicU32,
}

#[derive(Default)]
struct Silence {
    on: Mutex<bool>,
    changed: Condvar,
}

impl Silence {
    fn set(&self, on: bool) {
        *self.on.lock().expect("nobody panics") = on;
        self.changed.notify_all();
    }

    fn wait_until_over(&self) {
        let on = self.on.lock().expect("nobody panics");
        drop(self.changed.wait_while(on, |on| *on).expect("nobody panics"));
    }
}

impl Proxy {
    pub(super) fn bind() -> Proxy {
        Proxy { listener: TcpListener::bind("127.0.0.1:0").expect("a port"), links: Arc::default() }
    }

    pub(super) fn port(&self) -> u16 {
        self.listener.local_addr().expect("it is bound").port()
    }

    /// Passes everything on to `broker`; each connection is cut in place of its `lose_nth` answer, if any.
    pub(super) fn run(&self, broker: String, lose_nth: Option<u32>) {
        let (listener, links) = (self.listener.try_clone().expect("a handle"), self.links.clone());
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(&broker)) else { return };
                links.pass(&client, &server, lose_nth);
            }
        });
    }

    /// Silences all connections that there are, in both directions; new ones pass.
    pub(super) fn silence(&self) {
        self.links.silent.lock().expect("nobody panics").iter().for_each(|link| link.set(true));
    }

    /// Lets the silenced ones speak again.
    pub(super) fn heal(&self) {
        self.links.silent.lock().expect("nobody panics").iter().for_each(|link| link.set(false));
    }

    pub(super) fn cuts(&self) -> u32 {
        self.links.cuts.load(Ordering::Relaxed)
    }
}

impl Links {
    fn pass(self: &Arc<Links>, client: &TcpStream, server: &TcpStream, lose_nth: Option<u32>) {
        let silence = Arc::new(Silence::default());
        self.silent.lock().expect("nobody panics").push(silence.clone());
        let clone = |stream: &TcpStream| stream.try_clone().expect("a handle");
        let up = (clone(client), clone(server), silence.clone());
        thread::spawn(move || pump(up.0, up.1, &up.2, None));
        let (down, links) = ((clone(server), clone(client)), self.clone());
        thread::spawn(move || {
            if pump(down.0, down.1, &silence, lose_nth) {
                links.cuts.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
}

/// Copies until either side ends, or until the chunk to be lost; says whether it was that.
fn pump(mut from: TcpStream, mut to: TcpStream, silence: &Silence, lose_nth: Option<u32>) -> bool {
    let mut chunk = vec![0; 64 << 10];
    let mut count = 0;
    let lost = loop {
        let bytes = match from.read(&mut chunk) {
            Ok(0) | Err(_) => break false,
            Ok(bytes) => bytes,
        };
        silence.wait_until_over();
        count += 1;
        if lose_nth == Some(count) {
            break true;
        }
        if to.write_all(&chunk[..bytes]).is_err() {
            break false;
        }
    };
    // One of both may be closed already.
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    lost
}
