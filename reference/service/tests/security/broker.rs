//! Mosquitto as it is deployed: the repository's configuration, with nothing replaced but the ports.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Once,
    time::{Duration, Instant},
};

use dmp_service::mqtt::{Dialer, Endpoint, TlsSettings};
use tempfile::TempDir;

use crate::{
    lab::{Lab, deploy},
    not_run,
};

/// The listeners of the configuration, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    RaePassword,
    RaeCertificate,
    Bridge,
    Operator,
}

/// Ports of the configuration.
const PORTS: [u16; 4] = [8883, 8884, 8885, 8886];

/// Between choosing free ports and the broker's having them another may come: so often that is tried.
const TRIES: u32 = 5;

/// Far above what a start takes.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// A broker that runs; ends when dropped.
pub(crate) struct Broker {
    process: Child,
    ports: [u16; 4],
    _folder: TempDir,
}

impl Broker {
    /// `None` where there is no Mosquitto on this machine, which is said.
    pub(crate) fn start(lab: &Lab) -> Option<Broker> {
        let Some(program) = program() else {
            static SAID: Once = Once::new();
            SAID.call_once(|| not_run("the rights of MQTT users, for want of Mosquitto: apt-get install mosquitto"));
            return None;
        };
        let mut log = String::new();
        for _ in 0..TRIES {
            match try_start(&program, lab) {
                Ok(broker) => return Some(broker),
                Err(said) => log = said,
            }
        }
        panic!("mosquitto did not start in {TRIES} tries: {log}");
    }

    pub(crate) fn port(&self, door: Door) -> u16 {
        self.ports[door as usize]
    }

    /// Connections to one of its doors, by the name `localhost`.
    pub(crate) fn dialer(&self, door: Door, tls: &TlsSettings) -> Dialer {
        Dialer::new(self.endpoint(door), tls).expect("good settings")
    }

    pub(crate) fn endpoint(&self, door: Door) -> Endpoint {
        Endpoint { host: "localhost".to_owned(), port: self.port(door), tls: true }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ended_already = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// Debian has servers where only root's path leads.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join("mosquitto")).find(|program| program.is_file())
}

fn try_start(program: &Path, lab: &Lab) -> Result<Broker, String> {
    let folder = tempfile::tempdir().expect("a directory");
    let free = PORTS.map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"));
    let ports = free.each_ref().map(|listener| listener.local_addr().expect("an address").port());
    std::fs::create_dir(folder.path().join("data")).expect("an empty directory");
    symlink(deploy().join("mosquitto"), folder.path().join("config")).expect("an empty directory");
    symlink(lab.path("mosquitto"), folder.path().join("secrets")).expect("an empty directory");
    std::fs::write(folder.path().join("test.conf"), configuration(ports)).expect("written");
    let log = folder.path().join("log");
    drop(free);
    let process = Command::new(program)
        .args(["-c", "test.conf"])
        .current_dir(&folder)
        .stdin(Stdio::null())
        .stderr(std::fs::File::create(&log).expect("a file"))
        .spawn()
        .expect("mosquitto can be executed");
    let mut broker = Broker { process, ports, _folder: folder };
    let deadline = Instant::now() + READY_WITHIN;
    while !ports.iter().all(|port| TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_ok()) {
        let ended = broker.process.try_wait().expect("it is a child").is_some();
        if ended || Instant::now() > deadline {
            return Err(std::fs::read_to_string(&log).unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(broker)
}

/// The repository's, on loopback alone. Started as root, the broker would go over to a user who may not see the secrets.
fn configuration(ports: [u16; 4]) -> String {
    let mut text = std::fs::read_to_string(deploy().join("mosquitto/mosquitto.conf")).expect("it is there");
    for (deployed, port) in PORTS.into_iter().zip(ports) {
        let line = format!("\nlistener {deployed}\n");
        assert_eq!(text.matches(&line).count(), 1, "{line}");
        text = text.replace(&line, &format!("\nlistener {port} 127.0.0.1\n"));
    }
    assert_eq!(text.matches("\nlistener ").count(), PORTS.len(), "a listener that no test knows");
    text + "user root\n"
}
