//! `dmp-registry command`: sends one command by hand and waits for its reply.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Args, ValueEnum};
use dmp_core::{
    event::{AttributeName, Command, CommandKind, ReplyOutcome, Value},
    id::{Device, Epoch, Rae, Session},
    time::Wall,
};

use super::complain;
use crate::{
    command::{self, Answered},
    config::{self, Kafka, unit::parse_duration},
    drive::wall,
    program::chain,
    registry::Config,
};

/// From when on it is told that the reply is waited for.
const TELL_AFTER: Duration = Duration::from_secs(2);

/// No reply until the command had expired.
const NO_REPLY: u8 = 4;

/// Send one command to a session and wait for its reply.
///
/// Exit codes: 0 the reply says ok, 1 it says error or the command was not sent, 2 wrong usage, 4 no reply until the
/// command had expired.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Serial of the RAE, for example RAE-0000042.
    #[arg(value_parser = rae)]
    rae: Rae,
    /// The device session: a UUID, column `session` of the view `device_record`.
    #[arg(value_parser = session)]
    session: Session,
    /// What to do.
    kind: Kind,
    /// For `set`: a new value, read as JSON and, where it is not JSON, as text: rate=5, firmware='"1.2"', ip=10.0.0.7.
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    set: Vec<(AttributeName, Value)>,
    /// For `set`: an attribute to remove.
    #[arg(long, value_name = "NAME", value_parser = attribute)]
    unset: Vec<AttributeName>,
    /// For `reonboard`: the device.
    #[arg(long, value_name = "UUID", value_parser = device)]
    device: Option<Device>,
    /// For `reonboard`: the epoch that beat the session; the new session's will be above.
    #[arg(long, value_name = "N", value_parser = epoch)]
    epoch: Option<Epoch>,
    /// How long the command may be executed, and its reply is waited for.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = lifetime)]
    expires_after: Duration,
    /// Configuration of the registry; its section `kafka` is used.
    #[arg(long, value_name = "FILE", required_unless_present = "kafka")]
    config: Option<PathBuf>,
    /// Kafka's bootstrap addresses, instead of a configuration.
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "config")]
    kafka: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Publish a snapshot of the session's device now.
    Snapshot,
    /// Probe the device now.
    Probe,
    /// Change attributes on the device.
    Set,
    /// The session lost: probe, then open a new session or forget the device.
    Reonboard,
}

impl Arguments {
    /// The command, with a new id.
    ///
    /// # Errors
    /// For arguments that do not fit together, and what would be right.
    pub(super) fn command(&self) -> Result<Command, String> {
        let kind = self.command_kind()?;
        let life = i64::try_from(self.expires_after.as_millis()).unwrap_or(i64::MAX);
        let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
        let command = Command { id, expires_at: Wall(wall().0.saturating_add(life)), kind };
        // What an agent would refuse is refused here.
        Command::decode(&command.encode()).map_err(|bad| bad.error.detail())
    }

    fn command_kind(&self) -> Result<CommandKind, String> {
        let changes = !(self.set.is_empty() && self.unset.is_empty());
        if changes && self.kind != Kind::Set {
            return Err("--set and --unset are for the kind set".to_owned());
        }
        if (self.device.is_some() || self.epoch.is_some()) && self.kind != Kind::Reonboard {
            return Err("--device and --epoch are for the kind reonboard".to_owned());
        }
        match (self.kind, self.device, self.epoch) {
            (Kind::Snapshot, _, _) => Ok(CommandKind::Snapshot),
            (Kind::Probe, _, _) => Ok(CommandKind::Probe),
            (Kind::Set, _, _) if !changes => Err("set needs at least one --set NAME=VALUE or --unset NAME".to_owned()),
            (Kind::Set, _, _) => {
                let set: BTreeMap<_, _> = self.set.iter().cloned().collect();
                let unset: BTreeSet<_> = self.unset.iter().cloned().collect();
                if set.len() < self.set.len() || unset.len() < self.unset.len() {
                    return Err("an attribute is named twice".to_owned());
                }
                Ok(CommandKind::Set { set, unset })
            }
            (Kind::Reonboard, Some(device), Some(epoch)) => Ok(CommandKind::Reonboard { device, epoch }),
            (Kind::Reonboard, _, _) => {
                Err("reonboard needs --device UUID and --epoch N: the epoch that beat the session".to_owned())
            }
        }
    }

    fn kafka(&self) -> Result<Kafka, String> {
        match (&self.config, &self.kafka) {
            (Some(file), _) => config::load::<Config>(file).map(|config| config.kafka).map_err(|error| chain(&error)),
            (None, Some(bootstrap)) => {
                let kafka = Kafka::at(bootstrap);
                kafka.check().map_err(|fault| format!("--kafka: {}", fault.reason))?;
                Ok(kafka)
            }
            (None, None) => Err("name Kafka by --config or --kafka".to_owned()),
        }
    }
}

/// Runs the subcommand.
pub(super) fn main(name: &str, arguments: &Arguments) -> ExitCode {
    let wish = arguments.command().and_then(|command| Ok((command, arguments.kafka()?)));
    let (command, kafka) = match wish {
        Ok(wish) => wish,
        Err(reason) => {
            complain(&format!("{name} command"), &format!("{reason}; see {name} command --help"));
            return ExitCode::from(2);
        }
    };
    let sent = super::on_runtime(async {
        let mut told = false;
        let waiting = |elapsed| tell_waiting(elapsed, arguments.expires_after, &mut told);
        let sent = command::send(&kafka, &arguments.rae, arguments.session, &command, waiting).await;
        anyhow::Ok(sent?)
    });
    match sent {
        Ok(Some(answered)) => tell(&answered),
        Ok(None) => {
            println!("{} no reply within {} ms", command.id, arguments.expires_after.as_millis());
            ExitCode::from(NO_REPLY)
        }
        Err(error) => {
            complain(&format!("{name} command"), &chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn tell(Answered { reply, round_trip }: &Answered) -> ExitCode {
    let took = format!("{:.1} ms", round_trip.as_secs_f64() * 1_000.0);
    match &reply.outcome {
        ReplyOutcome::Ok => {
            println!("{} ok in {took}", reply.id);
            ExitCode::SUCCESS
        }
        ReplyOutcome::Error(why) => {
            println!("{} error in {took}: {why}", reply.id);
            ExitCode::FAILURE
        }
    }
}

/// One line that is written over on a terminal; elsewhere only its first.
fn tell_waiting(elapsed: Duration, of: Duration, told: &mut bool) {
    let terminal = std::io::stderr().is_terminal();
    if elapsed < TELL_AFTER || (*told && !terminal) {
        return;
    }
    *told = true;
    let line = format!("waiting for the reply: {} s of {} s", elapsed.as_secs(), of.as_secs_f64());
    // What standard error does not take is missed by nobody: `eprintln!` would panic.
    let mut stderr = std::io::stderr();
    let _unseen = if terminal { write!(stderr, "\r{line} ") } else { writeln!(stderr, "{line}") };
}

fn rae(text: &str) -> Result<Rae, String> {
    Rae::try_from(text).map_err(|error| format!("{error}; for example RAE-0000042"))
}

fn session(text: &str) -> Result<Session, String> {
    text.parse().map(Session).map_err(|_| "not a session: a UUID, as the view device_record shows it".to_owned())
}

fn device(text: &str) -> Result<Device, String> {
    text.parse().map(Device).map_err(|_| "not a device: a UUID, as the view device_record shows it".to_owned())
}

fn epoch(text: &str) -> Result<Epoch, String> {
    let number: Option<u64> = text.parse().ok();
    let epoch = number.and_then(|number| Epoch::try_from(number).ok());
    epoch.ok_or_else(|| "not an epoch: 1 to 9007199254740991".to_owned())
}

fn attribute(text: &str) -> Result<AttributeName, String> {
    AttributeName::try_from(text).map_err(|error| error.to_string())
}

fn assignment(text: &str) -> Result<(AttributeName, Value), String> {
    let (name, value) = text.split_once('=').ok_or("not NAME=VALUE, for example rate=5")?;
    let name = attribute(name)?;
    let json = serde_json::from_str(value).unwrap_or_else(|_| serde_json::Value::from(value));
    let value = Value::try_from(json).map_err(|error| format!("value of {name}: {error}"))?;
    Ok((name, value))
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let life = parse_duration(text)?;
    if (Duration::from_millis(100)..=Duration::from_secs(86_400)).contains(&life) {
        Ok(life)
    } else {
        Err("not within 100ms and 1d".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    const SESSION: &str = "6f1c1a2e-3d21-4b7a-9d55-0d7f53c1a001";

    fn command(rest: &[&str]) -> Result<Command, String> {
        let line = ["command", "RAE-1", SESSION].iter().chain(rest).chain(&["--kafka", "k:1"]).copied();
        let parsed = Line::try_parse_from(line).map_err(|error| error.to_string())?;
        parsed.arguments.command()
    }

    #[test]
    fn values_are_json_and_what_is_not_json_is_text() {
        let command =
            command(&["set", "--set", "rate=5", "--set", "ip=10.0.0.7", "--set", "v=\"1.2\"", "--unset", "error"]);
        let CommandKind::Set { set, unset } = command.expect("right").kind else { panic!("a set") };
        let values: Vec<_> = set.into_values().collect();
        assert_eq!(values, [Value::Text("10.0.0.7".into()), Value::Integer(5), Value::Text("1.2".into())]);
        assert_eq!(unset.len(), 1);
    }

    #[test]
    fn every_kind_is_made_with_its_arguments() {
        for kind in ["snapshot", "probe"] {
            assert_eq!(command(&[kind]).expect("right").kind.name().as_str(), kind);
        }
        let reonboard = command(&["reonboard", "--device", SESSION, "--epoch", "7"]).expect("right").kind;
        assert!(matches!(reonboard, CommandKind::Reonboard { epoch, .. } if epoch.get() == 7));
    }

    #[test]
    fn wrong_usage_is_told_with_what_would_be_right() {
        for (line, words) in [
            (&["snapshoot"][..], "possible values: snapshot, probe, set, reonboard"),
            (&["set"], "--set NAME=VALUE"),
            (&["set", "--set", "rate"], "for example rate=5"),
            (&["set", "--set", "Rate=5"], "name"),
            (&["set", "--set", "rate=null"], "unset"),
            (&["set", "--set", "rate=9007199254740993"], "2^53"),
            (&["set", "--set", "rate=[1]"], "rate"),
            (&["set", "--set", "rate=5", "--set", "rate=6"], "twice"),
            (&["set", "--set", "rate=5", "--unset", "rate"], "both sets and unsets"),
            (&["set", "--set", "connection=x"], "agent's own"),
            (&["probe", "--set", "rate=5"], "for the kind set"),
            (&["probe", "--epoch", "5"], "for the kind reonboard"),
            (&["reonboard", "--epoch", "5"], "--device UUID and --epoch N"),
            (&["reonboard", "--device", SESSION, "--epoch", "0"], "1 to 9007199254740991"),
            (&["reonboard", "--device", "x", "--epoch", "1"], "a UUID"),
            (&["probe", "--expires-after", "30"], "250ms"),
            (&["probe", "--expires-after", "2d"], "100ms and 1d"),
            (&["probe", "--config", "x.toml"], "cannot be used with"),
        ] {
            let error = command(line).expect_err(words);
            assert!(error.contains(words), "{line:?}: {error}");
        }
        let parse = |line: &[&str]| Line::try_parse_from(line).expect_err("wrong").to_string();
        assert!(parse(&["command", "RAE 1", SESSION, "probe", "--kafka", "k:1"]).contains("for example RAE-0000042"));
        assert!(parse(&["command", "RAE-1", "1", "probe", "--kafka", "k:1"]).contains("a UUID"));
        assert!(parse(&["command", "RAE-1", SESSION, "probe"]).contains("--config"));
    }
}
