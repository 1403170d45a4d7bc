//! Random lives of one agent: devices come and go, commands come twice, saves fail or may have, clocks step, and the agent
//! crashes. No command is executed twice, all replies to one are equal, and in the end nothing waits.

use std::collections::VecDeque;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use super::*;

const HARDWARE: [&str; 3] = ["SN-1", "SN-2", "SN-3"];

/// What an agent asked for and nobody has answered.
#[derive(Debug)]
enum Asked {
    Save(EffectId, Vec<Change>),
    Probe(EffectId, usize),
    Set(EffectId),
    Publish(ConnectionId, PacketId),
}

struct Lives {
    rng: Pcg64,
    agent: Agent,
    now: Now,
    disk: Saved,
    there: [bool; 3],
    connection: Option<ConnectionId>,
    is_up: bool,
    asked: VecDeque<Asked>,
    sent: Vec<Message>,
    owed: VecDeque<PacketId>,
    packets: u16,
    taken: BTreeSet<Uuid>,
    sets: BTreeSet<i64>,
    replies: BTreeMap<Uuid, ReplyOutcome>,
    reached: BTreeSet<&'static str>,
    stopped: bool,
}

impl Lives {
    fn new(seed: u64) -> Lives {
        let disk = Saved { boot: Some(Epoch::FIRST), ..Saved::default() };
        let mut lives = Lives {
            rng: Pcg64::seed_from_u64(seed),
            agent: Agent::new(config(), disk.clone(), seed),
            now: Now { mono: Mono(0), wall: Wall(1_700_000_000_000) },
            disk,
            there: [true; 3],
            connection: None,
            is_up: false,
            asked: VecDeque::new(),
            sent: Vec::new(),
            owed: VecDeque::new(),
            packets: 0,
            taken: BTreeSet::new(),
            sets: BTreeSet::new(),
            replies: BTreeMap::new(),
            reached: BTreeSet::new(),
            stopped: false,
        };
        lives.boot();
        lives
    }

    fn boot(&mut self) {
        let seed = self.rng.random();
        self.agent = Agent::new(config(), self.disk.clone(), seed);
        (self.connection, self.is_up, self.stopped) = (None, false, false);
        self.asked.clear();
        self.owed.clear();
        self.event(Event::Start);
        for at in 0..HARDWARE.len() {
            self.plug(at, self.there[at]);
        }
    }

    fn event(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.agent.handle(self.now, event, &mut effects);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Connect { connection, .. } => (self.connection, self.is_up) = (Some(connection), false),
                Effect::Disconnect(_) | Effect::Subscribe { .. } => {}
                Effect::Publish { connection, packet, message, of, .. } => {
                    if let Published::Reply(id) = of {
                        self.replied(id, Reply::decode(&message.payload).unwrap());
                    }
                    self.asked.extend(packet.map(|packet| Asked::Publish(connection, packet)));
                }
                Effect::Acknowledge(_, packet) => assert_eq!(self.owed.pop_front(), Some(packet), "in order"),
                Effect::Save(id, changes) => self.asked.push_back(Asked::Save(id, changes)),
                Effect::Probe(id, hardware) => {
                    let at = HARDWARE.iter().position(|of| **of == *hardware).unwrap();
                    self.asked.push_back(Asked::Probe(id, at));
                }
                Effect::Set { id, set, .. } => {
                    let Some(Value::Integer(number)) = set.get("number") else { panic!("{set:?}") };
                    assert!(self.sets.insert(*number), "set {number} reached a device twice");
                    self.asked.push_back(Asked::Set(id));
                }
                Effect::Stopped => self.stopped = true,
                Effect::Fact(fact) => self.fact(fact),
            }
        }
        assert!(self.agent.commands.under_way.len() <= MAX_UNDER_WAY);
        assert!(self.agent.outbox.replies() <= MAX_REPLIES);
    }

    fn replied(&mut self, id: Uuid, reply: Reply) {
        assert_eq!(reply.id, id);
        // These two say "not now", and are not remembered beyond a life.
        if matches!(&reply.outcome, ReplyOutcome::Error(why) if why == "busy" || why == "the agent stops") {
            return;
        }
        let first = self.replies.entry(id).or_insert_with(|| reply.outcome.clone());
        assert_eq!(*first, reply.outcome, "two replies to {id}");
    }

    fn fact(&mut self, fact: Fact) {
        match fact {
            Fact::TookCommand(id, _) => {
                assert!(self.taken.insert(id), "{id} was executed twice");
                assert!(self.disk.commands.values().any(|saved| saved.id == id), "{id} was executed and not saved");
            }
            Fact::ExecutedCommand { name, ok: true, .. } => {
                self.reached.insert(name.as_str());
            }
            Fact::RepeatedCommand(_) => {
                self.reached.insert("repeated");
            }
            Fact::RefusedCommand { reason, .. } => {
                self.reached.insert(reason);
            }
            Fact::Forgotten(_) => {
                self.reached.insert("forgotten");
            }
            _ => {}
        }
    }

    fn plug(&mut self, at: usize, there: bool) {
        self.there[at] = there;
        let hardware = HARDWARE[at].into();
        self.event(if there { Event::Detected { hardware } } else { Event::Detached { hardware } });
    }

    fn new_command(&mut self) -> Message {
        let sessions: Vec<(Device, Session)> =
            self.disk.devices.iter().map(|(device, saved)| (*device, saved.session)).collect();
        let drawn = (!sessions.is_empty()).then(|| sessions[self.rng.random_range(0..sessions.len())]);
        let (device, session) = drawn.unwrap_or((Device(Uuid::nil()), Session(Uuid::nil())));
        let number = self.sent.len() as u64;
        let kind = match self.rng.random_range(0..6) {
            0 | 1 => CommandKind::Snapshot,
            2 => CommandKind::Probe,
            3 | 4 => set([("number", i64::try_from(number).unwrap())]),
            _ => {
                let epoch = 1_700_000_000_000 + self.rng.random_range(0..100_000_000);
                CommandKind::Reonboard { device, epoch: Epoch::try_from(epoch).unwrap() }
            }
        };
        let payload =
            Command { id: Uuid::from_u128(u128::from(number) + 1), expires_at: Wall(0), kind }.encode().into();
        let topic = Topic::Command(config().rae, session).to_string().into();
        Message { topic, payload, packet: None, dup: false, retain: false }
    }

    fn deliver(&mut self, message: Message) {
        let Some(connection) = self.connection.filter(|_| self.is_up && !self.stopped) else { return };
        self.packets = self.packets % 60_000 + 1;
        self.owed.push_back(PacketId(self.packets));
        self.event(Event::Message(connection, Message { packet: Some(PacketId(self.packets)), ..message }));
    }

    /// Answers what was asked first, or one of the others where their order is free.
    fn answer(&mut self, well: bool) {
        let at = self.rng.random_range(0..self.asked.len().max(1));
        let is_save = matches!(self.asked.get(at), Some(Asked::Save(..)));
        let first_save = self.asked.iter().position(|asked| matches!(asked, Asked::Save(..)));
        let at = if is_save { first_save.unwrap_or(at) } else { at };
        let Some(asked) = self.asked.remove(at) else { return };
        let luck = if well { 9 } else { self.rng.random_range(0..10) };
        match asked {
            Asked::Save(id, changes) => {
                let outcome = match luck {
                    0 => SaveOutcome::Failed,
                    1 | 2 => SaveOutcome::Unknown,
                    _ => SaveOutcome::Durable,
                };
                if luck >= 2 {
                    changes.into_iter().for_each(|change| self.disk.apply(change));
                }
                self.event(Event::Saved(id, outcome));
            }
            Asked::Probe(id, at) => {
                let probe = match luck {
                    0 => Probe::Unknown,
                    _ if self.there[at] => Probe::Found(attributes([("a", 1)])),
                    _ => Probe::Absent,
                };
                self.event(Event::Probed(id, probe));
            }
            Asked::Set(id) => {
                let outcome = match luck {
                    0 => SetOutcome::Unknown,
                    1 => SetOutcome::Refused("no".into()),
                    _ => SetOutcome::Done,
                };
                self.event(Event::SetDone(id, outcome));
            }
            Asked::Publish(connection, packet) => {
                if self.is_up && self.connection == Some(connection) {
                    self.event(Event::Acknowledged(connection, packet));
                }
            }
        }
    }

    fn link(&mut self, up: bool) {
        let Some(connection) = self.connection else { return };
        if up && !self.is_up {
            self.is_up = true;
            self.owed.clear();
            self.event(Event::Connected(connection));
        } else if !up {
            (self.connection, self.is_up) = (None, false);
            self.owed.clear();
            self.event(Event::Disconnected(connection));
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now.mono = self.now.mono + time;
        self.now.wall.0 += i64::try_from(time.as_millis()).unwrap();
        let mut effects = Vec::new();
        self.agent.wake(self.now, &mut effects);
        self.carry_out(effects);
    }

    fn step(&mut self) {
        let (draw, at) = (self.rng.random_range(0..100), self.rng.random_range(0..HARDWARE.len()));
        match draw {
            0..25 => {
                let message = self.new_command();
                self.sent.push(message.clone());
                self.deliver(message);
            }
            25..32 if !self.sent.is_empty() => {
                let from = self.sent.len().saturating_sub(50);
                let message = self.sent[self.rng.random_range(from..self.sent.len())].clone();
                self.deliver(message);
            }
            32..80 => self.answer(false),
            80..83 => {
                let number = self.rng.random_range(0..100);
                let (hardware, set) = (HARDWARE[at].into(), attributes([("a", number)]));
                self.event(Event::Reported { hardware, set, unset: BTreeSet::new() });
            }
            83 => self.plug(at, !self.there[at]),
            84 | 85 => self.link(false),
            86..92 => self.link(true),
            92..96 => {
                let seconds = self.rng.random_range(0..40);
                self.pass(Duration::from_secs(seconds));
            }
            96 => self.now.wall.0 += self.rng.random_range(-20 * 3_600_000..20 * 3_600_000),
            97 => {
                let session = Topic::Command(config().rae, Session(Uuid::nil())).to_string().into();
                let payload = Bytes::from(vec![self.rng.random(); 9]);
                self.deliver(Message { topic: session, payload, packet: None, dup: false, retain: false });
            }
            98 if self.rng.random_bool(0.1) => self.event(Event::Stop { within: Duration::from_secs(1) }),
            99 if self.rng.random_bool(0.3) => self.boot(),
            _ => {}
        }
        if self.stopped {
            self.boot();
        }
    }

    /// Everything is answered, and well.
    fn calm(&mut self) {
        for _ in 0..20 {
            self.pass(Duration::from_secs(31));
            if self.stopped {
                self.boot();
            }
            self.link(true);
            self.answer_all();
        }
    }

    fn answer_all(&mut self) {
        while !self.asked.is_empty() {
            self.answer(true);
        }
    }
}

#[test]
fn in_random_lives_nothing_is_executed_twice_and_all_replies_to_one_command_are_equal() {
    let mut reached = BTreeSet::new();
    for seed in 0..200 {
        let mut lives = Lives::new(seed);
        for _ in 0..800 {
            lives.step();
        }
        lives.calm();
        assert!(lives.agent.commands.under_way.is_empty(), "seed {seed}: {:?}", lives.agent.commands.under_way);
        assert!(lives.owed.is_empty(), "seed {seed}: {:?} are not acknowledged", lives.owed);
        assert_eq!(lives.agent.outbox.replies(), 0, "seed {seed}");
        assert!(lives.disk.commands.len() <= MAX_REMEMBERED);
        // A repeat of whatever was taken is answered, and not executed.
        for message in lives.sent.clone() {
            lives.deliver(message);
            lives.answer_all();
        }
        let unanswered = lives.taken.iter().filter(|id| !lives.replies.contains_key(id)).count();
        assert_eq!(unanswered, 0, "seed {seed}");
        reached.extend(lives.reached);
    }
    let all =
        ["snapshot", "probe", "set", "reonboard", "repeated", "busy", "gone", "detached", "epoch", "json", "forgotten"];
    assert!(all.iter().all(|situation| reached.contains(situation)), "{reached:?}");
}
