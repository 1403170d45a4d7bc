//! The secrets of a deployment, made by the script that makes them everywhere.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
    time::Duration,
};

use dmp_service::mqtt::{ClientIdentity, Credentials, Secret, TlsSettings};
use tempfile::TempDir;

/// The folder of what deploys the pipeline.
pub(crate) fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// Certificates and passwords of one deployment.
pub(crate) struct Lab(TempDir);

/// That of most tests: two RAEs, and an operator who has the first of them.
pub(crate) static LAB: LazyLock<Lab> = LazyLock::new(|| Lab::new(&["RAE-1", "RAE-2", "--operator", "lab=RAE-1"]));

impl Lab {
    pub(crate) fn new(arguments: &[&str]) -> Lab {
        let lab = Lab::empty();
        lab.more(arguments);
        lab
    }

    pub(crate) fn empty() -> Lab {
        Lab(tempfile::tempdir().expect("a directory"))
    }

    /// Runs the script again.
    pub(crate) fn more(&self, arguments: &[&str]) {
        let made = Command::new(deploy().join("secrets")).arg(self.0.path()).args(arguments).output();
        let made = made.expect("bash is there");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// Makes a RAE's certificate that holds no more; in an empty lab the broker's too.
    pub(crate) fn expired(&self, serial: &str) {
        self.more(&["--days", "0", serial]);
        // A certificate holds to the end of its last second.
        std::thread::sleep(Duration::from_secs(1));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}")).trim().to_owned()
    }

    pub(crate) fn trusting(&self) -> TlsSettings {
        TlsSettings { authorities: Some(self.path("authority/ca.pem")), ..TlsSettings::default() }
    }

    /// TLS with a RAE's certificate.
    pub(crate) fn showing(&self, serial: &str) -> TlsSettings {
        let file = |name: &str| self.path(&format!("raes/{serial}/{name}"));
        let identity = ClientIdentity { certificate: file("certificate.pem"), key: file("key.pem") };
        TlsSettings { identity: Some(identity), ..self.trusting() }
    }

    pub(crate) fn rae(&self, serial: &str) -> Credentials {
        self.credentials(serial, &format!("raes/{serial}"))
    }

    pub(crate) fn bridge(&self) -> Credentials {
        self.credentials("bridge", "bridge")
    }

    pub(crate) fn operator(&self, name: &str) -> Credentials {
        self.credentials(name, &format!("operators/{name}"))
    }

    fn credentials(&self, user: &str, folder: &str) -> Credentials {
        let password = Secret::new(self.read(&format!("{folder}/mqtt-password")));
        Credentials { user: user.to_owned(), password: Some(password) }
    }
}

#[test]
fn secrets_stay_what_they_are_when_more_are_made_and_nobody_else_may_look_into_the_folder() {
    use std::os::unix::fs::PermissionsExt;

    let lab = Lab::new(&["RAE-1"]);
    let kept = ["authority/ca.pem", "raes/RAE-1/mqtt-password", "raes/RAE-1/certificate.pem", "bridge/kafka-password"];
    let before = kept.map(|name| lab.read(name));
    lab.more(&["RAE-2", "--operator", "lab=RAE-1,RAE-2"]);
    assert_eq!(kept.map(|name| lab.read(name)), before);
    let users: Vec<String> = lab.read("mosquitto/raes.passwd").lines().map(|line| line[..5].to_owned()).collect();
    assert_eq!(users, ["RAE-1", "RAE-2"]);
    assert_ne!(lab.read("raes/RAE-1/mqtt-password"), lab.read("raes/RAE-2/mqtt-password"));
    let mode = std::fs::metadata(lab.path("")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_name_that_would_be_a_pattern_in_an_access_list_is_refused() {
    for arguments in [&["+"][..], &["RAE/1"], &["#"], &["--operator", "lab=RAE-1,+"], &["--operator", "a b=RAE-1"]] {
        let folder = tempfile::tempdir().expect("a directory");
        let made = Command::new(deploy().join("secrets")).arg(folder.path()).args(arguments).output();
        let made = made.expect("bash is there");
        assert_eq!(made.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&made.stderr).contains("is not 1 to 64 of"), "{arguments:?}");
    }
}
