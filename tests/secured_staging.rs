//! Somebody's broker that asks who it is: Mosquitto with the configuration and the secrets of `reference/deploy`. Each RAE
//! has a password and a certificate of its own; what is wrong with them `doctor` and `run` must name within seconds.

mod common;
#[path = "../reference/service/tests/security/mosquitto.rs"]
mod mosquitto;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use common::{Up, fleetproof, not_run};
use mosquitto::Mosquitto;
use tempfile::TempDir;

const SCENARIO: &str = "# Does it run where every RAE shows who it is?
[fleet]
raes = 4
devices_per_rae = 3
snapshot_every = \"2s\"
update_every = \"2s\"
connects_per_s = 20
[[phase]]
name = \"load\"
lasts = \"4s\"
";

/// RAEs of the run for which there are secrets.
const SERIALS: [&str; 4] = ["LAB1-RAE-0000000", "LAB1-RAE-0000001", "LAB1-RAE-0000002", "LAB1-RAE-0000003"];

#[test]
fn each_rae_comes_in_by_its_own_certificate_or_password_and_what_is_wrong_with_them_is_named() {
    let Some(staging) = Staging::start() else { return };
    let (certificates, passwords) = (staging.by_certificate(), staging.by_password());
    let healthy = said(&staging.doctor(&passwords));
    assert!(healthy.contains("ready") && healthy.contains("came to a bridge after"), "{healthy}");
    let run = staging.run(&certificates);
    assert_eq!(run.status.code(), Some(0), "{}", said(&run));
    let removed = said(&staging.clean(&certificates));
    assert!(removed.contains("4 RAEs, 12 devices") && removed.contains("4 retained messages removed"), "{removed}");

    // Who the broker is.
    let other = Secrets::make(&[]);
    staging.both(&passwords.replace(&staging.secrets.file("authority"), &other.file("authority")), "certificate");
    let without_tls = passwords.lines().filter(|line| !line.starts_with("ca = ")).collect::<Vec<_>>().join("\n");
    staging.both(&without_tls.replace("mqtts://", "mqtt://"), "is not let in");

    // Who the RAE is.
    let bridges = "bridge/mqtt-password";
    staging.both(&passwords.replace("raes/{serial}/mqtt-password", bridges), "refused the credentials of user");
    staging.both(&passwords.replace("LAB1", "LAB2"), "LAB2-RAE-0000000");
    staging.both(&certificates.replace("LAB1", "LAB2"), "LAB2-RAE-0000000");
    let without = certificates.lines().filter(|line| !line.contains("{serial}")).collect::<Vec<_>>().join("\n");
    staging.both(&without, "is not let in");

    // What it may do: with another's name and password it comes in, and is closed, or not heard, when it says something.
    let another = passwords.replace("{serial}", SERIALS[3]);
    staging.both(&another, "publish");

    // Who the bridge is.
    let door = format!("mqtts://localhost:{}", staging.broker.ports[2]);
    let raes_door = format!("mqtts://localhost:{}", staging.broker.ports[0]);
    staging.both(&passwords.replace(&door, &raes_door), "the bridge is not let in");
}

#[test]
fn a_certificate_that_has_expired_is_named() {
    let Some(staging) = Staging::start() else { return };
    let folder = staging.secrets.0.path().join("raes").join(SERIALS[0]);
    std::fs::remove_file(folder.join("certificate.pem")).expect("it was made");
    staging.secrets.more(&["--days", "0", SERIALS[0]]);
    // A certificate holds to the end of its last second.
    std::thread::sleep(std::time::Duration::from_secs(1));
    staging.both(&staging.by_certificate(), "CertificateExpired");
}

/// A broker, and Kafka and a store to bring a bridge and a registry to.
struct Staging {
    secrets: Secrets,
    broker: Mosquitto,
    servers: Up,
    desk: TempDir,
}

impl Staging {
    fn start() -> Option<Staging> {
        let secrets = Secrets::make(&SERIALS);
        let Some(broker) = Mosquitto::start(&deploy(), &secrets.0.path().join("mosquitto")) else {
            not_run("targets with TLS and passwords, for want of Mosquitto: apt-get install mosquitto");
            return None;
        };
        let desk = tempfile::tempdir().expect("a directory");
        std::fs::write(desk.path().join("load.toml"), SCENARIO).expect("written");
        Some(Staging { secrets, broker, servers: Up::with(&["--servers-only"]), desk })
    }

    fn by_password(&self) -> String {
        let secrets = self.secrets.0.path().display();
        let who = format!("username = \"{{serial}}\"\npassword_file = \"{secrets}/raes/{{serial}}/mqtt-password\"\n");
        self.target(self.broker.ports[0], &who)
    }

    fn by_certificate(&self) -> String {
        let folder = format!("{}/raes/{{serial}}", self.secrets.0.path().display());
        let who = format!("certificate = \"{folder}/certificate.pem\"\nkey = \"{folder}/key.pem\"\n");
        self.target(self.broker.ports[1], &who)
    }

    fn target(&self, port: u16, who: &str) -> String {
        format!(
            "[mqtt]\nurl = \"mqtts://localhost:{port}\"\nca = \"{}\"\n{who}\
             [mqtt.bridge]\nurl = \"mqtts://localhost:{}\"\nusername = \"bridge\"\npassword_file = \"{}\"\n\
             [kafka]\nbootstrap = \"{}\"\n[store]\nurl = \"{}\"\n\
             [bring]\nbridge = true\nregistry = true\n[run]\nprefix = \"LAB1\"\n",
            self.secrets.file("authority"),
            self.broker.ports[2],
            self.secrets.0.path().join("bridge/mqtt-password").display(),
            self.servers.value("Kafka broker"),
            self.servers.value("store"),
        )
    }

    fn doctor(&self, target: &str) -> Output {
        self.ask(&["doctor"], target)
    }

    fn run(&self, target: &str) -> Output {
        let (scenario, out) = (self.desk.path().join("load.toml"), self.desk.path().join("out"));
        let [scenario, out] = [&scenario, &out].map(|path| path.to_str().expect("text"));
        self.ask(&["run", scenario, "--out", out, "--quiet"], target)
    }

    fn clean(&self, target: &str) -> Output {
        self.ask(&["clean", "--run", "LAB1", "--yes"], target)
    }

    fn ask(&self, arguments: &[&str], target: &str) -> Output {
        let file = self.desk.path().join("target.toml");
        std::fs::write(&file, target).expect("written");
        fleetproof().args(arguments).arg("--on").arg(file).output().expect("it runs")
    }

    /// Doctor and run both end with an error that says this, in time, without a panic or a secret.
    #[track_caller]
    fn both(&self, target: &str, words: &str) {
        for (name, output) in [("doctor", self.doctor(target)), ("run", self.run(target))] {
            let text = said(&output);
            let code = output.status.code();
            assert!(matches!(code, Some(1..=3)), "{name} ended with {code:?}:\n{target}\n{text}");
            assert!(text.contains(words), "{name} does not say {words:?}:\n{target}\n{text}");
            assert!(!text.contains("panicked"), "{name}:\n{text}");
            assert!(!text.contains(self.secrets.bridges_password().trim()), "{name} tells a secret");
        }
    }
}

/// What the script `secrets` makes.
struct Secrets(TempDir);

impl Secrets {
    fn make(serials: &[&str]) -> Secrets {
        let secrets = Secrets(tempfile::tempdir().expect("a directory"));
        secrets.more(serials);
        secrets
    }

    fn more(&self, arguments: &[&str]) {
        let made = Command::new(deploy().join("secrets")).arg(self.0.path()).args(arguments).output();
        let made = made.expect("bash is there");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// The authority's certificate, as somebody knows it.
    fn file(&self, whose: &str) -> String {
        self.0.path().join(whose).join("ca.pem").display().to_string()
    }

    fn bridges_password(&self) -> String {
        std::fs::read_to_string(self.0.path().join("bridge/mqtt-password")).expect("it was made")
    }
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/deploy")
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
}
