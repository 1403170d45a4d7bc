//! Mosquitto as it is deployed: the repository's configuration, with nothing replaced but the ports.
//!
//! The tests of targets of the harness start it, too.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

/// The listeners of the configuration, in its order.
const PORTS: [u16; 4] = [8883, 8884, 8885, 8886];

/// Between choosing free ports and the broker's having them another may come: so often that is tried.
const TRIES: u32 = 5;

/// Looks whether it is ready, and the time between two: together far above what a start takes.
const LOOKS: u32 = 3_000;
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A broker that runs; ends when dropped.
pub(crate) struct Mosquitto {
    process: Child,
    /// Of its listeners, in the order of the configuration.
    pub(crate) ports: [u16; 4],
    _folder: TempDir,
}

impl Mosquitto {
    /// Starts it with the configuration in the folder `deploy` and what belongs to it in the folder `secrets`; `None` where
    /// there is no Mosquitto on this machine.
    pub(crate) fn start(deploy: &Path, secrets: &Path) -> Option<Mosquitto> {
        let program = program()?;
        let mut log = String::new();
        for _ in 0..TRIES {
            match try_start(&program, deploy, secrets) {
                Ok(broker) => return Some(broker),
                Err(said) => log = said,
            }
        }
        panic!("mosquitto did not start in {TRIES} tries: {log}");
    }
}

impl Drop for Mosquitto {
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

fn try_start(program: &Path, deploy: &Path, secrets: &Path) -> Result<Mosquitto, String> {
    let folder = tempfile::tempdir().expect("a directory");
    let free = PORTS.map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"));
    let ports = free.each_ref().map(|listener| listener.local_addr().expect("an address").port());
    std::fs::create_dir(folder.path().join("data")).expect("an empty directory");
    symlink(deploy.join("mosquitto"), folder.path().join("config")).expect("an empty directory");
    symlink(secrets, folder.path().join("secrets")).expect("an empty directory");
    std::fs::write(folder.path().join("test.conf"), configuration(deploy, ports)).expect("written");
    let log = folder.path().join("log");
    drop(free);
    let process = Command::new(program)
        .args(["-c", "test.conf"])
        .current_dir(&folder)
        .stdin(Stdio::null())
        .stderr(std::fs::File::create(&log).expect("a file"))
        .spawn()
        .expect("mosquitto can be executed");
    let mut broker = Mosquitto { process, ports, _folder: folder };
    for _ in 0..LOOKS {
        if ports.iter().all(|port| TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_ok()) {
            return Ok(broker);
        }
        if broker.process.try_wait().expect("it is a child").is_some() {
            break;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Err(std::fs::read_to_string(&log).unwrap_or_default())
}

/// The repository's, on loopback alone. Started as root, the broker would go over to a user who may not see the secrets.
fn configuration(deploy: &Path, ports: [u16; 4]) -> String {
    let mut text = std::fs::read_to_string(deploy.join("mosquitto/mosquitto.conf")).expect("it is there");
    for (deployed, port) in PORTS.into_iter().zip(ports) {
        let line = format!("\nlistener {deployed}\n");
        assert_eq!(text.matches(&line).count(), 1, "{line}");
        text = text.replace(&line, &format!("\nlistener {port} 127.0.0.1\n"));
    }
    assert_eq!(text.matches("\nlistener ").count(), PORTS.len(), "a listener that no test knows");
    text + "user root\n"
}
