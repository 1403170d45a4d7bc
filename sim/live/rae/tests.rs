//! A RAE without a broker: what its agent records when power, disk and devices come and go.

use dmp_core::{agent::Probe, id::Session};
use dmp_service::mqtt::{Dialer, Endpoint};

use super::*;
use crate::history::{Publish, What};

/// All devices of some RAEs move, which break down.
const BREAKS_DOWN: &str = r#"# Who moves?
seed = 9
[fleet]
raes = 6
devices_per_rae = 3
update_every = "1s"
[[phase]]
name = "load"
lasts = "20s"
[[fault]]
at = "2s"
move = { share = 0.5, over = "4s", old = "down", back_after = "2s" }
"#;

fn shared(text: &str) -> Arc<Shared> {
    let scenario = Arc::new(Scenario::from_text("rae", text, &[], None).unwrap_or_else(|error| panic!("{error}")));
    let clock = Arc::new(RunClock::start());
    let (_, load) = watch::channel(true);
    // Nobody listens there, and nobody is asked to be connected.
    let endpoint: Endpoint = "mqtt://127.0.0.1:9".parse().expect("an address");
    Arc::new(Shared {
        plan: Arc::new(Plan::new(&scenario)),
        journal: Journal::new(clock.clone()).0,
        tampering: Tampering::new(&scenario),
        access: Arc::new(Access::open(Dialer::new(endpoint, &Default::default()).expect("plain TCP"))),
        errors: Default::default(),
        lateness_us: AtomicU64::default(),
        directory: Arc::new(Directory::new(1_000)),
        scenario,
        clock,
        load,
    })
}

/// What the agent has recorded since it was last asked.
fn recorded(rae: &mut LiveRae) -> Vec<Publish> {
    let entries = std::mem::take(&mut rae.entries);
    let recorded = entries.into_iter().filter_map(|entry| match entry.what {
        What::Recorded(publish) => Some(publish),
        _ => None,
    });
    recorded.collect()
}

fn sessions(recorded: &[Publish]) -> BTreeMap<DeviceIndex, Session> {
    recorded.iter().map(|publish| (publish.device, publish.version.session)).collect()
}

/// Everything happens that is planned up to `until`.
fn lives(rae: &mut LiveRae, until: Duration) {
    while let Some(&(_, device, number)) = rae.upcoming.last().filter(|(at, _, _)| *at <= until) {
        rae.upcoming.pop();
        rae.happens(device, number);
    }
}

#[tokio::test]
async fn a_wiped_rae_opens_new_sessions_with_what_is_still_plugged_in_and_a_rebooted_one_resumes() {
    let mut rae = LiveRae::new(shared(BREAKS_DOWN), RaeIndex(0));
    rae.power_on();
    let first = sessions(&recorded(&mut rae));
    assert_eq!(first.len(), 3);
    rae.obey(Order::Reboot(Duration::ZERO));
    assert!(rae.agent.is_none());
    rae.power();
    assert_eq!(sessions(&recorded(&mut rae)), first);
    rae.obey(Order::Wipe(Duration::ZERO));
    assert_eq!(rae.disk, Saved::default());
    rae.power();
    let opened = recorded(&mut rae);
    assert!(opened.iter().all(|publish| publish.version.seq.get() == 1 && publish.snapshot), "{opened:?}");
    let again = sessions(&opened);
    assert_eq!(again.len(), 3);
    assert!(again.iter().all(|(device, session)| first[device] != *session), "{again:?}");
}

#[tokio::test]
async fn a_rae_that_is_gone_does_not_come_back_by_an_earlier_fault() {
    let mut rae = LiveRae::new(shared(BREAKS_DOWN), RaeIndex(0));
    rae.power_on();
    rae.obey(Order::Reboot(Duration::ZERO));
    rae.obey(Order::Gone);
    rae.power();
    assert!(rae.agent.is_none());
    rae.obey(Order::Stop);
    assert!(rae.stopped);
}

#[tokio::test]
async fn a_rae_that_broke_down_believes_that_it_has_its_devices_until_its_probes_find_none_of_them() {
    let shared = shared(BREAKS_DOWN);
    let moved = shared.plan.devices.iter().find(|device| !device.moves.is_empty()).expect("some RAE breaks down");
    let [mut old, mut new] = [moved.rae, moved.moves[0].to].map(|index| LiveRae::new(shared.clone(), index));
    old.power_on();
    new.power_on();
    let before = sessions(&recorded(&mut old));
    assert_eq!(before.len(), 3);
    recorded(&mut new);
    let hour = Duration::from_secs(3600);
    old.obey(Order::BreakDown(Duration::ZERO, hour));
    old.power();
    assert!(old.agent.is_none());
    assert_eq!(old.disk.devices.len(), 3);
    lives(&mut old, hour);
    lives(&mut new, hour);
    assert_eq!(old.probe(&moved.hardware), Probe::Absent);
    assert!(matches!(new.probe(&moved.hardware), Probe::Found(_)));
    let device = shared.plan.device(moved.id).expect("of the plan");
    assert_ne!(sessions(&recorded(&mut new))[&device], before[&device]);
    recorded(&mut old);
    old.power_on_at = Some(Instant::now());
    old.power();
    // It resumes its old sessions, only to say that nobody is there.
    assert_eq!(sessions(&recorded(&mut old)), before);
    assert_eq!(old.here().count(), 0);
}

#[tokio::test]
async fn a_rae_that_is_isolated_keeps_what_its_devices_said_until_they_were_carried_away() {
    let shared = shared(&BREAKS_DOWN.replace("\"down\"", "\"isolated\""));
    let moved = shared.plan.devices.iter().find(|device| !device.moves.is_empty()).expect("some RAE is isolated");
    let mut old = LiveRae::new(shared.clone(), moved.rae);
    old.power_on();
    recorded(&mut old);
    let hour = Duration::from_secs(3600);
    old.obey(Order::Disconnect(hour));
    lives(&mut old, hour);
    old.power();
    assert!(old.agent.is_some(), "its outbox is in its memory");
    assert_eq!(old.here().count(), 0);
    assert!(!old.entries.iter().any(|entry| matches!(entry.what, What::Shed(_) | What::Sent(..))), "all of it waits");
    assert!(recorded(&mut old).len() > 10, "what its devices said, and that they were unplugged");
}
