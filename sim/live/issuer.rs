//! Sends the scenario's commands down, as an operator's program would: to Kafka, open loop, each at its time.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use dmp_core::{
    bridge::{OutgoingRecord, ProduceOutcome},
    core::EffectId,
    event::{AttributeName, Command, CommandKind, Topic, Value, kafka_topic},
    id::{Epoch, Rae, Session},
    time::Wall,
};
use dmp_service::{config::Kafka, kafka::Producer};
use rand::{RngExt, seq::SliceRandom};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    clock::{self, RunClock},
    directory::Directory,
    journal::Journal,
};
use crate::{
    fleet::plan::{COMMANDED, DeviceIndex, Plan, RaeIndex},
    history::{Down, Issued, What},
    random::stream,
    scenario::{Addressee, Ask, Commands, Scenario},
};

/// Commands handed to the client and not yet stored: with a broker in this process, never more than a few.
const UNDER_WAY: usize = 10_000;

/// Longest wait for Kafka to have stored the last command.
const STORED_WITHIN: Duration = Duration::from_secs(30);

/// Issues all commands of a scenario.
pub(super) struct Issuer {
    pub(super) scenario: Arc<Scenario>,
    pub(super) plan: Arc<Plan>,
    pub(super) clock: Arc<RunClock>,
    pub(super) journal: Journal,
    pub(super) directory: Arc<Directory>,
}

/// One command, made before it is known whose session it is for.
struct Planned {
    due: Duration,
    id: Uuid,
    device: DeviceIndex,
    /// A session that never was.
    nobody: Session,
    of: Commands,
}

impl Issuer {
    /// Issues every command at its time; returns when Kafka has stored them all.
    ///
    /// # Errors
    /// If Kafka does not take one.
    pub(super) async fn run(self, kafka: &Kafka) -> anyhow::Result<()> {
        let mut planned = self.planned();
        if planned.is_empty() {
            return Ok(());
        }
        planned.sort_by_key(|command| (command.due, command.id));
        let (answers, mut answered) = mpsc::channel(UNDER_WAY);
        let answer = move |_, outcome| {
            // Nobody listens any more once one has failed.
            let _failed_already = answers.blocking_send(outcome);
        };
        let producer = Producer::start(kafka, "fleetproof-issuer", UNDER_WAY, answer)?;
        let count = planned.len();
        for (number, command) in (1..).zip(planned) {
            let due = self.clock.instant_of_load(command.due).context("commands are issued under load")?;
            tokio::time::sleep_until(due.into()).await;
            let record = self.issue(&command).await;
            producer.produce(EffectId(number), record).map_err(|outcome| not_stored(&outcome))?;
            while let Ok(outcome) = answered.try_recv() {
                stored(&outcome)?;
            }
        }
        // Those answered on the way are counted by the producer's queue being empty and the channel drained.
        drop(producer);
        let rest = async {
            while let Some(outcome) = answered.recv().await {
                stored(&outcome)?;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(STORED_WITHIN, rest)
            .await
            .with_context(|| format!("Kafka did not store all of {count} commands"))?
    }

    fn planned(&self) -> Vec<Planned> {
        let mut planned = Vec::new();
        for (index, of) in (0u64..).zip(&self.scenario.commands) {
            let mut rng = stream(self.scenario.seed, "commands", index);
            let mut raes: Vec<u32> = (0..self.scenario.fleet.raes).collect();
            raes.shuffle(&mut rng);
            for number in 0..of.count {
                let rae = raes[number as usize % raes.len()];
                let device = DeviceIndex(rng.random_range(self.plan.raes[rae as usize].devices.clone()));
                let id = uuid::Builder::from_random_bytes(rng.random::<u128>().to_be_bytes()).into_uuid();
                let nobody = Session(uuid::Builder::from_random_bytes(rng.random::<u128>().to_be_bytes()).into_uuid());
                planned.push(Planned { due: of.due(number), id, device, nobody, of: of.clone() });
            }
        }
        planned
    }

    async fn issue(&self, command: &Planned) -> OutgoingRecord {
        let known = self.directory.of(command.device);
        let home = self.plan.devices[command.device.0 as usize].rae;
        let (session, rae, epoch) = match (known.current, command.of.to) {
            (Some((version, rae)), Addressee::Living | Addressee::AbsentRae) => (version.session, rae, version.epoch),
            (Some((version, rae)), Addressee::DeadSession) => {
                let (session, rae) = known.former.unwrap_or((command.nobody, rae));
                (session, rae, version.epoch)
            }
            (None, _) => (command.nobody, home, Epoch::FIRST),
        };
        let topic = Topic::Command(self.serial(command.of.to, rae), session);
        let kind = self.kind(command, epoch);
        let due = self.clock.of_load(command.due).unwrap_or_default();
        let issued = Issued {
            id: command.id,
            due,
            expires: due + command.of.expires_after,
            name: kind.name(),
            to: command.of.to,
            device: command.device,
            rae,
        };
        self.journal.enter(What::Down(Down::Issued(Box::new(issued)))).await;
        let now = clock::wall();
        let life = i64::try_from(command.of.expires_after.as_millis()).unwrap_or(i64::MAX);
        let command = Command { id: command.id, expires_at: Wall(now.0.saturating_add(life)), kind };
        OutgoingRecord {
            topic: kafka_topic::COMMANDS,
            key: topic.to_string().into(),
            value: command.encode().into(),
            timestamp: now,
            headers: Vec::new(),
        }
    }

    fn serial(&self, to: Addressee, rae: RaeIndex) -> Rae {
        let serial = &self.plan.raes[rae.0 as usize].serial;
        match to {
            Addressee::Living | Addressee::DeadSession => serial.clone(),
            Addressee::AbsentRae => self.plan.serial(&format!("ABSENT-{}", rae.0)),
        }
    }

    fn kind(&self, command: &Planned, epoch: Epoch) -> CommandKind {
        match command.of.kind {
            Ask::Snapshot => CommandKind::Snapshot,
            Ask::Probe => CommandKind::Probe,
            Ask::Set => {
                let name = AttributeName::try_from(COMMANDED).expect("valid by hand");
                let value = Value::Text(command.id.to_string().into());
                CommandKind::Set { set: [(name, value)].into(), unset: Default::default() }
            }
            Ask::Reonboard => CommandKind::Reonboard { device: self.plan.devices[command.device.0 as usize].id, epoch },
        }
    }
}

fn stored(outcome: &ProduceOutcome) -> anyhow::Result<()> {
    match outcome {
        ProduceOutcome::Stored { .. } => Ok(()),
        ProduceOutcome::Refused { .. } | ProduceOutcome::Failed { .. } | ProduceOutcome::Unknown { .. } => {
            Err(not_stored(outcome))
        }
    }
}

fn not_stored(outcome: &ProduceOutcome) -> anyhow::Error {
    anyhow::anyhow!("a command of the harness was not stored: {outcome:?}")
}
