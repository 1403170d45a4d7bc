//! Says which tests a build leaves out, and which cargo feature brings them.

use std::io::Write;

/// Each cargo feature, whether this build has it, and what it adds to the tests.
const FEATURES: [(&str, bool, &str); 3] = [
    (
        "containers",
        cfg!(feature = "containers"),
        "runs and faults on Mosquitto, Kafka and PostgreSQL, and what is relied on in the first two; needs a Docker engine",
    ),
    ("sabotage", cfg!(feature = "sabotage"), "planted bugs, each of which must be caught"),
    (
        "kafka-tls",
        cfg!(feature = "kafka-tls"),
        "the settings of TLS and SASL for Kafka; builds OpenSSL from source, which takes minutes",
    ),
];

#[test]
fn what_this_build_leaves_out_is_said_and_no_feature_is_forgotten() {
    let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).expect("readable");
    let manifest: toml::Table = manifest.parse().expect("TOML");
    let known: Vec<&str> = manifest["features"].as_table().expect("a table").keys().map(String::as_str).collect();
    assert!(known.iter().all(|known| FEATURES.iter().any(|(name, ..)| name == known)), "{known:?}");
    for (name, _, adds) in FEATURES.iter().filter(|(_, built, _)| !built) {
        // Past the test harness, which keeps what passing tests print.
        let _stderr_closed = writeln!(std::io::stderr(), "NOT BUILT: cargo test --features {name} adds {adds}");
    }
}
