//! The group stepped by hand: time and tickets are ours.

use super::*;

const DELAY: Duration = Duration::from_millis(100);
const SESSION: Duration = Duration::from_secs(6);
const PATIENCE: Duration = Duration::from_secs(60);

/// A group, its clock, and what it answered.
struct Bench {
    group: Group,
    now: Mono,
    tickets: u64,
    answers: BTreeMap<Ticket, Answer>,
}

impl Bench {
    fn new() -> Bench {
        Bench { group: Group::new(DELAY), now: Mono::default(), tickets: 0, answers: BTreeMap::new() }
    }

    fn join(&mut self, member_id: &str) -> Ticket {
        self.join_as(request(member_id))
    }

    fn join_as(&mut self, mut join: Join) -> Ticket {
        join.new_id = format!("m{}", self.tickets + 1);
        self.step(|group, now, ticket, answers| group.join(now, join, ticket, answers))
    }

    fn sync(&mut self, member_id: &str, generation: i32, assignments: &[(&str, &str)]) -> Ticket {
        let assignments =
            assignments.iter().map(|(id, part)| ((*id).to_owned(), Bytes::copy_from_slice(part.as_bytes()))).collect();
        let caller = Caller { member_id, generation, instance: None };
        self.step(|group, now, ticket, answers| group.sync(now, caller, assignments, ticket, answers))
    }

    fn heartbeat(&mut self, member_id: &str, generation: i32) -> Result<(), ResponseError> {
        self.group.heartbeat(self.now, Caller { member_id, generation, instance: None })
    }

    fn commit(&mut self, member_id: &str, generation: i32, offset: i64) -> Result<(), ResponseError> {
        self.group.may_commit(self.now, Caller { member_id, generation, instance: None })?;
        self.group.commit(place(), Committed { offset, metadata: String::new() })
    }

    fn leave(&mut self, member_id: &str) -> Result<(), ResponseError> {
        let mut answers = Vec::new();
        let left = self.group.leave(self.now, member_id, None, &mut answers);
        self.keep(answers);
        left
    }

    /// Lets time pass, waking the group exactly when it asks for it.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.group.deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            let mut answers = Vec::new();
            self.group.wake(self.now, &mut answers);
            assert!(self.group.deadline().is_none_or(|next| next > self.now), "a wake leaves nothing due");
            self.keep(answers);
        }
        self.now = until;
    }

    fn joined(&self, ticket: Ticket) -> &Joined {
        match self.answers.get(&ticket) {
            Some(Answer::Join(_, joined)) => joined,
            other => panic!("{ticket:?} has {other:?} for an answer"),
        }
    }

    fn synced(&self, ticket: Ticket) -> Result<&[u8], ResponseError> {
        match self.answers.get(&ticket) {
            Some(Answer::Sync(_, outcome)) => outcome.as_ref().map(|part| &part[..]).map_err(|error| *error),
            other => panic!("{ticket:?} has {other:?} for an answer"),
        }
    }

    /// A stable group of two in generation 1: the leader's id, and the follower's.
    fn stable_pair() -> (Bench, String, String) {
        let mut bench = Bench::new();
        let (one, two) = (bench.join(""), bench.join(""));
        bench.pass(DELAY);
        let leader = bench.joined(one).leader.clone();
        let (one, two) = (bench.joined(one).member_id.clone(), bench.joined(two).member_id.clone());
        let follower = if leader == one { two } else { one };
        bench.sync(&leader, 1, &[(&leader, "left"), (&follower, "right")]);
        bench.sync(&follower, 1, &[]);
        assert_eq!(bench.group.phase(), Phase::Stable);
        (bench, leader, follower)
    }

    fn step(&mut self, request: impl FnOnce(&mut Group, Mono, Ticket, &mut Vec<Answer>)) -> Ticket {
        self.tickets += 1;
        let (ticket, mut answers) = (Ticket(self.tickets), Vec::new());
        request(&mut self.group, self.now, ticket, &mut answers);
        self.keep(answers);
        ticket
    }

    fn keep(&mut self, answers: Vec<Answer>) {
        for answer in answers {
            let (Answer::Join(ticket, _) | Answer::Sync(ticket, _)) = answer;
            assert!(self.answers.insert(ticket, answer).is_none(), "{ticket:?} was answered twice");
        }
    }
}

fn request(member_id: &str) -> Join {
    Join {
        member_id: member_id.to_owned(),
        new_id: String::new(),
        id_required: false,
        instance: None,
        client_id: "test".to_owned(),
        session_timeout: SESSION,
        rebalance_timeout: PATIENCE,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::from_static(b"topics"))],
    }
}

fn place() -> Place {
    Place { topic: "t".to_owned(), partition: 0 }
}

#[test]
fn the_first_round_waits_for_others_and_the_leader_learns_of_all() {
    let mut bench = Bench::new();
    let (one, two) = (bench.join(""), bench.join(""));
    assert!(bench.answers.is_empty());
    bench.pass(DELAY);
    let (one, two) = (bench.joined(one), bench.joined(two));
    assert_eq!((one.generation, two.generation, &one.leader), (1, 1, &two.leader));
    let (leader, follower) = if one.leader == one.member_id { (one, two) } else { (two, one) };
    assert_eq!((leader.members.len(), follower.members.len()), (2, 0));
    assert_eq!(leader.protocol, "range");
}

#[test]
fn everybody_gets_what_the_leader_assigned_whoever_asks_first() {
    let (mut bench, leader, follower) = Bench::stable_pair();
    let again = bench.sync(&follower, 1, &[]);
    assert_eq!(bench.synced(again), Ok(&b"right"[..]));
    bench.join(&leader);
    assert_eq!(bench.heartbeat(&follower, 1), Err(ResponseError::RebalanceInProgress));
    let joined = bench.join(&follower);
    assert_eq!(bench.joined(joined).generation, 2);
    let early = bench.sync(&follower, 2, &[]);
    assert!(!bench.answers.contains_key(&early));
    bench.sync(&leader, 2, &[(&follower, "all")]);
    assert_eq!(bench.synced(early), Ok(&b"all"[..]));
}

#[test]
fn a_newcomer_starts_a_round_that_ends_when_the_others_have_come_back() {
    let (mut bench, leader, follower) = Bench::stable_pair();
    let third = bench.join("");
    bench.join(&leader);
    assert!(!bench.answers.contains_key(&third));
    bench.join(&follower);
    assert_eq!(bench.joined(third).generation, 2);
    assert_eq!(bench.group.members().len(), 3);
}

#[test]
fn a_member_without_an_id_must_come_again_with_the_one_it_is_given() {
    let mut bench = Bench::new();
    let first = bench.join_as(Join { id_required: true, ..request("") });
    let refused = bench.joined(first).clone();
    assert_eq!(refused.error, Some(ResponseError::MemberIdRequired));
    assert!(bench.group.members().is_empty(), "an answer that is lost leaves no ghost");
    let second = bench.join_as(Join { id_required: true, ..request(&refused.member_id) });
    bench.pass(DELAY);
    assert_eq!((bench.joined(second).error, &bench.joined(second).member_id), (None, &refused.member_id));
}

#[test]
fn an_id_that_nobody_came_with_expires_and_leaves_an_unused_group() {
    let mut bench = Bench::new();
    let first = bench.join_as(Join { id_required: true, ..request("") });
    let id = bench.joined(first).member_id.clone();
    bench.pass(SESSION);
    assert!(bench.group.is_spent());
    let late = bench.join(&id);
    assert_eq!(bench.joined(late).error, Some(ResponseError::UnknownMemberId));
}

#[test]
fn a_silent_member_is_expelled_and_the_rest_rebalances() {
    let (mut bench, leader, follower) = Bench::stable_pair();
    for _ in 0..3 {
        bench.pass(SESSION / 2);
        let answer = bench.heartbeat(&leader, 1);
        assert!(matches!(answer, Ok(()) | Err(ResponseError::RebalanceInProgress)), "{answer:?}");
    }
    assert!(!bench.group.members().contains_key(&follower));
    let again = bench.join(&leader);
    assert_eq!(bench.joined(again).generation, 2);
    assert_eq!(bench.heartbeat(&follower, 1), Err(ResponseError::UnknownMemberId));
    assert_eq!(bench.commit(&follower, 1, 5), Err(ResponseError::UnknownMemberId));
}

#[test]
fn a_member_that_waits_is_never_silent_and_one_that_hung_up_is() {
    let (mut bench, _leader, follower) = Bench::stable_pair();
    let waiting = bench.join("");
    for _ in 0..4 {
        bench.pass(SESSION / 2);
        let _ = bench.heartbeat(&follower, 1);
    }
    // The leader was silent and is out, the newcomer waits for the follower.
    assert_eq!(bench.group.members().len(), 2);
    bench.group.hang_up(bench.now, waiting);
    bench.pass(SESSION / 2);
    let _ = bench.heartbeat(&follower, 1);
    bench.pass(SESSION / 2);
    assert_eq!(bench.group.members().keys().collect::<Vec<_>>(), [&follower]);
}

#[test]
fn who_does_not_come_back_within_the_rebalance_timeout_is_out() {
    let (mut bench, leader, follower) = Bench::stable_pair();
    let again = bench.join(&leader);
    for _ in 0..20 {
        bench.pass(PATIENCE / 20);
        let _ = bench.heartbeat(&follower, 1);
    }
    assert_eq!(bench.joined(again).generation, 2);
    assert_eq!(bench.joined(again).members.len(), 1);
}

#[test]
fn a_commit_of_a_generation_that_is_over_is_refused() {
    let (mut bench, leader, follower) = Bench::stable_pair();
    assert_eq!(bench.commit(&leader, 1, 10), Ok(()));
    bench.join(&leader);
    assert_eq!(bench.commit(&follower, 1, 11), Ok(()), "until the round is complete its generation lasts");
    bench.join(&follower);
    assert_eq!(bench.commit(&follower, 2, 12), Err(ResponseError::RebalanceInProgress));
    bench.sync(&leader, 2, &[]);
    assert_eq!(bench.commit(&follower, 1, 13), Err(ResponseError::IllegalGeneration));
    assert_eq!(bench.commit(&follower, 2, 14), Ok(()));
    assert_eq!(bench.group.committed(&place()).map(|committed| committed.offset), Some(14));
}

#[test]
fn commits_outlive_members_and_an_operator_may_reset_them_only_then() {
    let (mut bench, leader, follower) = Bench::stable_pair();
    assert_eq!(bench.commit(&leader, 1, 10), Ok(()));
    assert_eq!(bench.commit("", -1, 3), Err(ResponseError::UnknownMemberId));
    assert_eq!((bench.leave(&leader), bench.leave(&follower)), (Ok(()), Ok(())));
    assert_eq!((bench.group.phase(), bench.group.is_spent()), (Phase::Empty, false));
    assert_eq!(bench.group.committed(&place()).map(|committed| committed.offset), Some(10));
    assert_eq!(bench.commit("", -1, 3), Ok(()));
}

#[test]
fn a_leader_that_dies_before_assigning_does_not_hold_the_group_up() {
    let mut bench = Bench::new();
    let (one, two) = (bench.join(""), bench.join(""));
    bench.pass(DELAY);
    let leader = bench.joined(one).leader.clone();
    let follower = [one, two].map(|t| bench.joined(t).member_id.clone()).into_iter().find(|id| *id != leader);
    let follower = follower.expect("one of two leads");
    let waiting = bench.sync(&follower, 1, &[]);
    bench.pass(SESSION);
    assert_eq!(bench.synced(waiting), Err(ResponseError::RebalanceInProgress));
    let again = bench.join(&follower);
    assert_eq!((bench.joined(again).generation, &bench.joined(again).leader), (2, &follower));
}

#[test]
fn a_lost_join_answer_is_given_again_without_a_new_round() {
    let mut bench = Bench::new();
    let one = bench.join("");
    bench.pass(DELAY);
    let id = bench.joined(one).member_id.clone();
    let again = bench.join(&id);
    assert_eq!((bench.joined(again).generation, bench.joined(again).members.len()), (1, 1));
}

#[test]
fn a_static_member_that_restarts_fences_its_former_self() {
    let mut bench = Bench::new();
    let named = |id: &str| Join { instance: Some("worker-1".to_owned()), id_required: true, ..request(id) };
    let one = bench.join_as(named(""));
    bench.pass(DELAY);
    let old = bench.joined(one).member_id.clone();
    bench.sync(&old, 1, &[]);
    let two = bench.join_as(named(""));
    assert_eq!((bench.joined(two).error, bench.joined(two).generation), (None, 2));
    let caller = Caller { member_id: &old, generation: 2, instance: Some("worker-1") };
    assert_eq!(bench.group.heartbeat(bench.now, caller), Err(ResponseError::FencedInstanceId));
}

#[test]
fn members_that_share_no_assignor_do_not_meet() {
    let mut bench = Bench::new();
    bench.join("");
    let other = Join { protocols: vec![("sticky".to_owned(), Bytes::new())], ..request("") };
    let refused = bench.join_as(other);
    assert_eq!(bench.joined(refused).error, Some(ResponseError::InconsistentGroupProtocol));
}

#[test]
fn the_number_of_members_is_bounded() {
    let mut bench = Bench::new();
    for _ in 0..MEMBERS_MAX {
        bench.join_as(Join { id_required: true, ..request("") });
    }
    let one_more = bench.join("");
    assert_eq!(bench.joined(one_more).error, Some(ResponseError::GroupMaxSizeReached));
}
