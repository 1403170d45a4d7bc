//! The way down: commands, what registries ask and tell, leases, presence, and how fast a gap is repaired.

use std::{sync::Arc, time::Duration};

use dmp_core::{
    event::{CommandName, Event, Presence, PresenceState, Value},
    id::{Epoch, Seq, Session},
    merge::Offer,
};
use uuid::Uuid;

use super::{
    super::{
        Checks,
        verdict::{CheckId, CheckResult, Outcome},
    },
    FIRST, name,
    story::{QUIET, REGISTRY, Story},
};
use crate::{
    fleet::plan::{COMMANDED, RaeIndex},
    history::{Down, Issued, LoggedCommand, PayloadHash, Stage, Tampered, What},
    observe::{Figures, Percentiles},
    scenario::Addressee,
};

const ID: Uuid = Uuid::from_u128(7);
const RAE: RaeIndex = RaeIndex(0);

/// A fleet under load, to which commands are to be sent.
fn begun(more: &str) -> Story {
    let commands = "[[command]]\nat = \"1s\"\nkind = \"set\"\ncount = 1\nover = \"1s\"\nexpires_after = \"4s\"\n";
    let limit = "command_p99 = { at_most = \"250ms\" }\n";
    let text = QUIET.replace("[pipeline]", "[pipeline]\nshard_groups = 2");
    Story::begun_of(&format!("{text}{limit}{commands}{more}"))
}

impl Story {
    fn down(&mut self, after_ms: u64, down: Down) {
        self.at += Duration::from_millis(after_ms);
        self.enter(What::Down(down));
    }

    fn issue(&mut self, to: Addressee) {
        self.issue_a(CommandName::Set, to);
    }

    fn issue_a(&mut self, name: CommandName, to: Addressee) {
        let due = self.at;
        let expires = due + Duration::from_secs(4);
        let issued = Issued { id: ID, due, expires, name, to, device: FIRST, rae: RAE };
        self.down(0, Down::Issued(Box::new(issued)));
    }

    fn take(&mut self) {
        self.down(5, Down::Taken { rae: RAE, id: ID });
        self.down(0, Down::Executed { rae: RAE, id: ID, ok: true });
    }

    fn reply(&mut self, after_ms: u64, error: Option<&str>) {
        let (topic, payload) = ("reply".into(), PayloadHash::of(b"reply"));
        self.down(after_ms, Down::Replied { id: ID, error: error.map(Arc::from), topic, payload });
    }

    /// A command of the registry.
    fn registry_sends(&mut self, id: u128, name: CommandName, session: u128, timestamp_ms: i64) {
        self.somebody_sends(Some("dmp-registry"), id, name, session, timestamp_ms);
    }

    /// A command that no harness issued, and who signed it.
    pub(super) fn somebody_sends(
        &mut self,
        issuer: Option<&str>,
        id: u128,
        name: CommandName,
        session: u128,
        timestamp_ms: i64,
    ) {
        let issuer = issuer.map(Arc::from);
        let (id, session) = (Uuid::from_u128(id), Session(Uuid::from_u128(session)));
        let rae = self.plan.raes[0].serial.clone();
        self.down(1, Down::Logged(Box::new(LoggedCommand { id, name, rae, session, timestamp_ms, issuer })));
    }

    fn seconds(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.second();
        }
    }

    fn status(&mut self, rae: RaeIndex, connection: u64, state: PresenceState) -> Presence {
        let connection = Seq::try_from(connection).expect("in range");
        let status = Presence { boot: Epoch::FIRST, connection, state };
        let serial = self.plan.raes[rae.0 as usize].serial.clone();
        let payload = PayloadHash::of(format!("{serial} {connection} {state:?}").as_bytes());
        self.appended(0, &"status".into(), payload, Some(Arc::new(Event::Status(serial, status))));
        status
    }

    fn shows(&mut self, rae: RaeIndex, presence: Presence) {
        let rae = self.plan.raes[rae.0 as usize].serial.clone();
        self.enter(What::Presence { rae, presence });
    }

    fn marks(&mut self, stale: bool) {
        let device = self.plan.devices[FIRST.0 as usize].id;
        self.enter(What::Stale { device, stale });
    }
}

#[test]
fn a_command_that_is_executed_once_and_replied_to_passes_with_its_round_trip() {
    let mut story = begun("");
    story.issue(Addressee::Living);
    story.take();
    story.down(0, Down::Changed { device: FIRST, id: ID });
    story.reply(30, None);
    story.seconds(12);
    story.passes_check(CheckId::C16);
    story.passes_check(CheckId::C17);
    assert!(story.result(CheckId::C17).figure.contains("p50 35 ms"), "{}", story.result(CheckId::C17).figure);
}

#[test]
fn a_set_that_the_device_never_saw_fails_whatever_the_reply_says() {
    let mut story = begun("");
    story.issue(Addressee::Living);
    story.take();
    story.reply(30, None);
    story.fails_check(CheckId::C16, "had no effect");
}

#[test]
fn a_snapshot_or_a_new_session_that_nobody_saw_fails_whatever_the_reply_says() {
    for name in [CommandName::Snapshot, CommandName::Reonboard] {
        let mut story = begun("");
        story.issue_a(name, Addressee::Living);
        story.take();
        story.reply(30, None);
        story.fails_check(CheckId::C16, "had no effect");
    }
    let mut story = begun("");
    story.issue_a(CommandName::Snapshot, Addressee::Living);
    story.take();
    let asked_for = story.snapshot(FIRST, 1);
    story.passes(&asked_for);
    story.reply(30, None);
    story.passes_check(CheckId::C16);
}

#[test]
fn a_command_that_is_executed_twice_fails() {
    let mut story = begun("");
    story.issue(Addressee::Living);
    story.take();
    story.take();
    story.reply(30, None);
    story.fails_check(CheckId::C16, "was executed 2 times");
}

#[test]
fn a_device_that_does_what_a_command_says_more_often_than_its_agent_took_it_fails() {
    let mut story = begun("");
    story.issue(Addressee::Living);
    story.take();
    story.down(0, Down::Changed { device: FIRST, id: ID });
    story.down(0, Down::Changed { device: FIRST, id: ID });
    story.reply(30, None);
    story.fails_check(CheckId::C16, "was executed 2 times");
}

#[test]
fn a_command_of_which_nothing_is_heard_fails_unless_something_kept_it_from_its_agent() {
    let unheard = |to, kept: fn(&mut Story)| {
        let mut story = begun("");
        story.issue(to);
        kept(&mut story);
        story.seconds(12);
        story
    };
    unheard(Addressee::Living, |_| {}).fails_check(CheckId::C16, "never came into the log");
    unheard(Addressee::DeadSession, |_| {}).fails_check(CheckId::C16, "never came into the log");
    unheard(Addressee::AbsentRae, |_| {}).passes_check(CheckId::C16);
    let lost = |story: &mut Story| story.down(1, Down::Tampered { rae: RAE, id: ID, how: Tampered::Lost });
    unheard(Addressee::Living, lost).passes_check(CheckId::C16);
    let offline = |story: &mut Story| {
        story.second();
        story.enter(What::Offline(RAE));
        story.second();
        story.enter(What::Online(RAE));
    };
    unheard(Addressee::Living, offline).passes_check(CheckId::C16);
    // Its time is not over yet.
    let mut story = begun("");
    story.issue(Addressee::Living);
    story.seconds(2);
    story.passes_check(CheckId::C16);
}

#[test]
fn a_reply_to_a_command_that_was_never_taken_fails_if_it_says_ok_and_is_a_refusal_or_an_expiry_otherwise() {
    let replied = |error, refused: bool| {
        let mut story = begun("");
        story.issue(Addressee::DeadSession);
        if refused {
            story.down(1, Down::Refused { rae: RAE, id: Some(ID), reason: "gone", replied: true });
        }
        story.reply(5, error);
        story.result(CheckId::C16)
    };
    let failed = |result: &CheckResult| matches!(result.outcome, Outcome::Fail { .. });
    assert!(failed(&replied(None, false)));
    let (expired, refused) = (replied(Some("expired"), false), replied(Some("session is gone"), true));
    assert!(!failed(&expired) && expired.figure.contains("1 expired unexecuted"), "{expired:?}");
    assert!(!failed(&refused) && refused.figure.contains("1 refused"), "{refused:?}");
}

#[test]
fn a_command_to_a_living_session_that_is_not_executed_fails_unless_something_kept_it() {
    const FAULTS: &str = "[[fault]]\nat = \"2s\"\nkill = { part = \"bridge\", back_after = \"1s\" }\n\
                          [[fault]]\nat = \"4s\"\nscale = { part = \"bridge\", to = 2 }\n\
                          [[fault]]\nat = \"5s\"\nscale = { part = \"registry\", to = 2 }\n";
    let refused = |kept: fn(&mut Story)| {
        let mut story = begun(FAULTS);
        story.issue(Addressee::Living);
        kept(&mut story);
        story.down(1, Down::Refused { rae: RAE, id: Some(ID), reason: "busy", replied: true });
        story.reply(5, Some("busy"));
        story
    };
    let unexecuted = "was not executed, although";
    refused(|_| {}).fails_check(CheckId::C16, unexecuted);
    refused(|story| story.down(1, Down::Tampered { rae: RAE, id: ID, how: Tampered::Doubled }))
        .fails_check(CheckId::C16, unexecuted);
    refused(|story| story.down(1, Down::Tampered { rae: RAE, id: ID, how: Tampered::Delayed }))
        .passes_check(CheckId::C16);
    refused(|story| story.enter(What::FaultBegan(0))).passes_check(CheckId::C16);
    refused(|story| story.enter(What::FaultBegan(1))).passes_check(CheckId::C16);
    refused(|story| story.enter(What::FaultBegan(2))).fails_check(CheckId::C16, unexecuted);
    // Another session took the place of the one that the command was for.
    refused(|story| {
        let mut opening = story.snapshot(FIRST, 0).publish;
        (opening.version.session, opening.version.seq) = (Session(Uuid::from_u128(9)), Seq::FIRST);
        story.enter(What::Recorded(opening));
    })
    .passes_check(CheckId::C16);
    // Taken, and then not done.
    let mut story = begun("");
    story.issue(Addressee::Living);
    story.down(5, Down::Taken { rae: RAE, id: ID });
    story.down(0, Down::Executed { rae: RAE, id: ID, ok: false });
    story.reply(5, Some("the device refused"));
    story.fails_check(CheckId::C16, unexecuted);
}

#[test]
fn a_refusal_that_nobody_was_told_of_fails() {
    let mut story = begun("");
    story.issue(Addressee::DeadSession);
    story.down(1, Down::Refused { rae: RAE, id: Some(ID), reason: "gone", replied: false });
    story.seconds(12);
    story.fails_check(CheckId::C16, "no reply is in the log");
}

#[test]
fn a_reply_may_only_be_lost_with_the_power_of_its_rae() {
    let reboot = "[[fault]]\nat = \"2s\"\nreboot = { share = 1.0, down = \"1s\" }\n";
    let mut story = begun(reboot);
    story.issue(Addressee::Living);
    story.take();
    story.seconds(12);
    story.fails_check(CheckId::C16, "no reply is in the log");
    let mut story = begun(reboot);
    story.issue(Addressee::Living);
    story.take();
    story.enter(What::FaultBegan(0));
    story.enter(What::Offline(RAE));
    story.second();
    story.enter(What::FaultEnded(0));
    story.seconds(12);
    story.passes_check(CheckId::C16);
}

#[test]
fn a_round_trip_above_its_limit_fails_in_a_phase_without_faults_and_is_not_judged_in_another() {
    let mut story = begun("[[fault]]\nat = \"2s\"\ncut_link = { lasts = \"1s\" }\n");
    story.issue(Addressee::Living);
    story.take();
    story.reply(400, None);
    story.fails_check(CheckId::C17, "1 % of 1 commands took above 4");
    story.enter(What::FaultBegan(0));
    story.second();
    assert!(matches!(story.result(CheckId::C17).outcome, Outcome::Invalid(_)));
}

#[test]
fn what_a_command_made_of_a_device_is_held_against_its_row() {
    let mut story = begun("");
    let device = story.plan.devices[0].id;
    let show = |story: &mut Story, id: Uuid| {
        let floor = story.store[&device].floor.clone().expect("onboarded");
        let version = floor.version;
        let state = story.store.get_mut(&device).expect("onboarded");
        state.floor.as_mut().expect("onboarded").names.insert(name(COMMANDED));
        state.attributes.insert(name(COMMANDED), Offer { version, value: Some(Value::Text(id.to_string().into())) });
        story.second();
    };
    story.issue(Addressee::Living);
    show(&mut story, ID);
    // Nobody has told the device so.
    story.fails_check(CheckId::C1, "commanded");
    let mut story = begun("");
    story.issue(Addressee::Living);
    story.take();
    story.down(0, Down::Changed { device: FIRST, id: ID });
    story.reply(5, None);
    story.lives_until(Duration::from_secs(10));
    story.lives_on_to_the_end();
    story.fails_check(CheckId::C9, "lacks commanded");
}

#[test]
fn two_requests_or_notices_to_a_session_within_a_period_fail_and_a_retry_of_one_does_not() {
    for (name, word) in [(CommandName::Snapshot, "got a snapshot"), (CommandName::Reonboard, "got a reonboard")] {
        let mut story = Story::begun();
        // The registry has long been up.
        story.at += Duration::from_secs(20);
        story.registry_sends(1, name, 5, 1_000);
        story.registry_sends(1, name, 5, 1_000);
        story.registry_sends(2, name, 6, 1_100);
        // The period is two seconds.
        story.registry_sends(3, name, 5, 3_000);
        story.passes_check(CheckId::C18);
        story.registry_sends(4, name, 5, 4_900);
        story.fails_check(CheckId::C18, word);
    }
}

#[test]
fn silence_passes_where_nothing_was_due_and_is_invalid_where_much_was_missed() {
    let silent = |fault: &str, missed: u32| {
        let mut story = Story::begun_of(&format!("{QUIET}{fault}"));
        for _ in 0..missed {
            let event = story.snapshot(FIRST, 0);
            story.enter(What::Recorded(event.publish));
            story.enter(What::Withheld(event.publish));
        }
        story.result(CheckId::C18)
    };
    let nothing = silent("", 0);
    assert_eq!(nothing.outcome, Outcome::Pass);
    assert!(nothing.figure.starts_with("none was due"), "{}", nothing.figure);
    let misses = "[[fault]]\nat = \"steady\"\nmissed_updates = { share = 0.5, lasts = \"2s\" }\n";
    assert!(matches!(silent(misses, 5).outcome, Outcome::NotObservable(_)));
    assert!(matches!(silent(misses, 100).outcome, Outcome::Invalid(_)));
}

#[test]
fn a_registry_that_was_restarted_may_ask_again() {
    let mut story = Story::begun();
    story.at += Duration::from_secs(20);
    story.registry_sends(1, CommandName::Snapshot, 5, 1_000);
    story.enter(What::ProcessEnded { process: REGISTRY, meant: true });
    story.enter(What::ProcessStarted(REGISTRY));
    story.registry_sends(2, CommandName::Snapshot, 5, 1_200);
    story.passes_check(CheckId::C18);
}

#[test]
fn requests_while_repair_is_off_or_above_the_budget_and_other_commands_of_a_registry_fail() {
    let mut story = Story::begun_of(&QUIET.replace("partitions = 2", "partitions = 2\nrepair = false"));
    story.registry_sends(1, CommandName::Reonboard, 5, 1_000);
    story.passes_check(CheckId::C18);
    story.registry_sends(2, CommandName::Snapshot, 5, 1_000);
    story.fails_check(CheckId::C18, "while repair is off");
    let mut story = Story::begun();
    for number in 0..=200 {
        story.registry_sends(number, CommandName::Snapshot, number, 1_000);
    }
    story.fails_check(CheckId::C18, "more than 200 requests");
    let mut story = Story::begun();
    story.registry_sends(1, CommandName::Set, 5, 1_000);
    story.fails_check(CheckId::C18, "sent a set");
}

/// A fleet whose records have receive times: device 0 is silent after its first snapshot, and device 2, in the same
/// partition, is not.
fn silent(seconds: u64) -> Story {
    let mut story = Story::of(QUIET);
    story.stamped = true;
    story.begin();
    for _ in 0..seconds {
        let snapshot = story.snapshot(crate::fleet::plan::DeviceIndex(2), 0);
        story.passes(&snapshot);
        story.second();
    }
    story
}

#[test]
fn a_silent_device_that_is_not_marked_and_a_living_one_that_is_fail_the_lease() {
    silent(5).passes_check(CheckId::C19);
    silent(9).fails_check(CheckId::C19, "is not marked as stale");
    let mut story = silent(5);
    story.marks(true);
    story.read();
    story.fails_check(CheckId::C19, "is marked as stale");
}

#[test]
fn a_device_is_marked_by_what_is_read_of_its_partition_and_not_by_what_waits_there() {
    let mut story = silent(5);
    for _ in 0..8 {
        let other = story.snapshot(crate::fleet::plan::DeviceIndex(2), 0);
        story.leaves(&other);
        story.crosses(&other);
        story.logged(&other);
        story.at += Duration::from_secs(1);
        story.read();
    }
    story.passes_check(CheckId::C19);
    // With the backlog read it is another matter.
    story.commit_all();
    story.marks(true);
    story.read();
    story.passes_check(CheckId::C19);
}

#[test]
fn a_rae_that_is_shown_as_it_is_not_or_at_an_older_connection_fails_presence() {
    let verified = |tell: fn(&mut Story)| {
        let mut story = Story::begun();
        story.seconds(2);
        tell(&mut story);
        story.seconds(6);
        story.phase("verify", Stage::Verify);
        story.read_all();
        story
    };
    verified(|_| {}).passes_check(CheckId::C20);
    let wrong = verified(|story| {
        let presence = story.status(RAE, 2, PresenceState::Offline);
        story.shows(RAE, presence);
    });
    wrong.fails_check(CheckId::C20, "is shown offline, and is online");
    let gone = |story: &mut Story| {
        story.enter(What::Offline(RAE));
        story.status(RAE, 1, PresenceState::Offline);
    };
    verified(gone).fails_check(CheckId::C20, "is shown online, and is offline");
    let older = |story: &mut Story| {
        story.status(RAE, 3, PresenceState::Online);
    };
    verified(older).fails_check(CheckId::C20, "last said boot 1, connection 3");
}

#[test]
fn repair_that_is_not_so_much_sooner_as_asked_for_fails_and_nothing_missed_is_invalid() {
    let missed = |at: &str| format!("[[fault]]\nat = {at:?}\nmissed_updates = {{ share = 0.5, lasts = \"1s\" }}\n");
    let passive = "repair_ratio = { at_most = 0.2 }\n[[phase]]\nname = \"passive\"\nlasts = \"9s\"\nrepair = false\n";
    let story = Story::begun_of(&format!("{QUIET}{passive}{}{}", missed("steady"), missed("passive")));
    let outcome = |with: f64, without: f64| {
        let of = |p50: f64| Percentiles { count: u64::from(p50 > 0.0), p50, ..Percentiles::default() };
        let mut figures = Figures { repaired_ms: of(with), unrepaired_ms: of(without), ..Figures::default() };
        let mut checks = Checks::new(story.scenario.clone(), story.plan.clone(), story.observable);
        story.entries.iter().for_each(|entry| checks.observe(entry));
        let results = checks.finish(&mut figures);
        results.into_iter().find(|result| result.id == CheckId::C21).expect("every check has a result").outcome
    };
    assert_eq!(outcome(2_500.0, 15_000.0), Outcome::Pass);
    assert!(matches!(outcome(3_500.0, 15_000.0), Outcome::Fail { .. }));
    assert!(matches!(outcome(2_500.0, 0.0), Outcome::Invalid(_)));
}
