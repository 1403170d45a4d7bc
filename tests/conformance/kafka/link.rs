//! The wire between all clients of a test and a broker: it can be cut, refused, silenced, and can lose answers.
//!
//! Tests share a real broker and so its wire. Therefore everything here is done to clients by the beginning of their id,
//! which the first request on each connection names.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

/// Bytes that are passed on at a time; an answer that is lost is lost in such pieces.
const CHUNK_BYTES: usize = 64 << 10;

/// A loopback port before the broker, which has to be told to clients as the broker's own. Lives as long as the process.
pub(super) struct Link {
    listener: TcpListener,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By the beginning of client ids.
    rules: BTreeMap<String, Rule>,
    /// By number, in the order in which they were opened.
    open: BTreeMap<u64, Connection>,
    opened: u64,
}

/// What is done to some clients.
#[derive(Default, Clone, Copy)]
struct Rule {
    refused: bool,
    /// Connections up to this number pass nothing on for now.
    silent: u64,
    /// The answer, counted on each connection, in whose place the connection is cut.
    loses: Option<u32>,
    lost: u32,
}

struct Connection {
    client_id: String,
    ends: [TcpStream; 2],
}

impl Connection {
    fn cut(&self) {
        // Either may be closed already.
        let _closed = self.ends.each_ref().map(|end| end.shutdown(Shutdown::Both));
    }
}

impl Link {
    pub(super) fn bind() -> Link {
        Link { listener: TcpListener::bind("127.0.0.1:0").expect("a port"), shared: Arc::default() }
    }

    pub(super) fn port(&self) -> u16 {
        self.listener.local_addr().expect("it is bound").port()
    }

    /// Begins to pass on what clients say to `broker`, and its answers.
    pub(super) fn run(&self, broker: String) {
        let (listener, shared) = (self.listener.try_clone().expect("a handle"), self.shared.clone());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (broker, shared) = (broker.clone(), shared.clone());
                // What ends a connection is the two sides' own affair.
                thread::spawn(move || shared.pass(client, &broker));
            }
        });
    }

    /// Cuts the connections of these clients; they may connect again at once.
    pub(super) fn cut(&self, clients: &str) {
        self.shared.lock().of(clients).for_each(|(_, connection)| connection.cut());
    }

    /// Cuts the connections of these clients, and all that they make from now on.
    pub(super) fn refuse(&self, clients: &str) {
        self.shared.lock().rule(clients).refused = true;
        self.cut(clients);
    }

    /// Passes nothing on, in either direction, of the connections that these clients have; new ones pass.
    pub(super) fn silence(&self, clients: &str) {
        let mut state = self.shared.lock();
        let opened = state.opened;
        state.rule(clients).silent = opened;
    }

    /// Passes on again, first what was held back.
    pub(super) fn heal(&self, clients: &str) {
        self.shared.lock().rule(clients).silent = 0;
        self.shared.changed.notify_all();
    }

    /// Cuts each connection of these clients in place of its `nth` answer.
    pub(super) fn lose(&self, clients: &str, nth: u32) {
        self.shared.lock().rule(clients).loses = Some(nth);
    }

    /// How many answers to these clients were lost.
    pub(super) fn lost(&self, clients: &str) -> u32 {
        self.shared.lock().rule(clients).lost
    }
}

impl State {
    fn rule(&mut self, clients: &str) -> &mut Rule {
        self.rules.entry(clients.to_owned()).or_default()
    }

    fn rule_of(&mut self, client_id: &str) -> Option<&mut Rule> {
        self.rules.iter_mut().find(|(clients, _)| client_id.starts_with(clients.as_str())).map(|(_, rule)| rule)
    }

    fn of(&self, clients: &str) -> impl Iterator<Item = (&u64, &Connection)> {
        self.open.iter().filter(move |(_, connection)| connection.client_id.starts_with(clients))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(self: Arc<Shared>, mut client: TcpStream, broker: &str) -> io::Result<()> {
        let (first, client_id) = first_request(&mut client)?;
        let mut server = TcpStream::connect(broker)?;
        let ends = [client.try_clone()?, server.try_clone()?];
        let (down_from, down_to) = (server.try_clone()?, client.try_clone()?);
        let number = {
            let mut state = self.lock();
            if state.rule_of(&client_id).is_some_and(|rule| rule.refused) {
                return client.shutdown(Shutdown::Both);
            }
            state.opened += 1;
            let number = state.opened;
            state.open.insert(number, Connection { client_id: client_id.clone(), ends });
            number
        };
        let (down, down_client) = (self.clone(), client_id.clone());
        thread::spawn(move || down.pump(number, &down_client, down_from, down_to, true));
        if server.write_all(&first).is_ok() {
            self.pump(number, &client_id, client, server, false);
        }
        Ok(())
    }

    /// Copies until either side ends, or the connection is cut.
    fn pump(&self, number: u64, client_id: &str, mut from: TcpStream, mut to: TcpStream, is_answers: bool) {
        let (mut chunk, mut count) = (vec![0; CHUNK_BYTES], 0);
        while let Ok(bytes @ 1..) = from.read(&mut chunk) {
            count += 1;
            if !self.may_pass(number, client_id, is_answers.then_some(count)) || to.write_all(&chunk[..bytes]).is_err()
            {
                break;
            }
        }
        if let Some(connection) = self.lock().open.remove(&number) {
            connection.cut();
        }
    }

    /// Waits out a silence; false where this answer is to be lost.
    fn may_pass(&self, number: u64, client_id: &str, answer: Option<u32>) -> bool {
        let is_silent = |state: &mut State| {
            let silent = state.rule_of(client_id).is_some_and(|rule| number <= rule.silent);
            silent && state.open.contains_key(&number)
        };
        let mut state = self.changed.wait_while(self.lock(), is_silent).unwrap_or_else(PoisonError::into_inner);
        match state.rule_of(client_id) {
            Some(rule) if answer.is_some() && rule.loses == answer => {
                rule.lost += 1;
                false
            }
            Some(_) | None => true,
        }
    }
}

/// The beginning of a connection up to the client's id, and that (Kafka protocol, request header v1).
fn first_request(client: &mut TcpStream) -> io::Result<(Vec<u8>, String)> {
    // Length, API key, its version, correlation id; then a string with its length.
    let mut bytes = vec![0; 14];
    client.read_exact(&mut bytes)?;
    let id = bytes.len()..bytes.len() + usize::from(u16::from_be_bytes([bytes[12], bytes[13]]));
    bytes.resize(id.end, 0);
    client.read_exact(&mut bytes[id.clone()])?;
    let client_id = String::from_utf8_lossy(&bytes[id]).into_owned();
    Ok((bytes, client_id))
}
