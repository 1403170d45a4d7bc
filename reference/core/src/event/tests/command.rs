//! Commands and replies, held against bytes.

use proptest::prelude::*;

use super::*;

const ID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

/// A command of this kind with these fields behind the common ones.
fn command(kind: &str, rest: &str) -> String {
    format!(r#"{{"v":1,"kind":"{kind}","id":"{ID}","expires_at":"2023-11-14T22:13:20.123Z"{rest}}}"#)
}

fn refused(payload: &str) -> BadCommand {
    Command::decode(payload.as_bytes()).expect_err(payload)
}

fn decoded(payload: &str) -> CommandKind {
    Command::decode(payload.as_bytes()).expect(payload).kind
}

#[test]
fn each_kind_of_malformed_command_has_its_error_and_its_id_where_that_can_be_read() {
    let large = command("probe", &format!(r#","pad":"{}""#, "x".repeat(MAX_PAYLOAD_BYTES)));
    let without_id = [
        (large.as_str(), "oversized"),
        ("", "json"),
        ("{", "json"),
        ("not json", "json"),
        (r#"{"id":"x","id":"y"}"#, "json"),
        ("[1]", "not-an-object"),
        ("7", "not-an-object"),
        (r#"{"v":1,"kind":"probe"}"#, "no-id"),
        (r#"{"id":null}"#, "no-id"),
        (r#"{"id":"x"}"#, "id"),
        (r#"{"id":7}"#, "id"),
    ];
    for (payload, reason) in without_id {
        let bad = refused(payload);
        assert_eq!((bad.id, bad.error.reason()), (None, reason), "{payload:.80}");
    }
    let set = |rest: &str| command("set", rest);
    let reonboard = |rest: &str| command("reonboard", rest);
    let device = r#","device":"32e9ce22-b390-5276-8dff-a3e049edea5f""#;
    let with_id = [
        (command("probe", "").replace(r#""v":1,"#, ""), "wire-version"),
        (command("probe", "").replace(r#""v":1"#, r#""v":2"#), "wire-version"),
        (command("novelty", ""), "kind"),
        (command("probe", "").replace(r#""kind":"probe","#, ""), "kind"),
        (command("probe", "").replace("2023-11-14T22:13:20.123Z", "soon"), "expires-at"),
        (command("probe", "").replace("expires_at", "expires"), "expires-at"),
        (set(""), "missing"),
        (reonboard(""), "missing"),
        (reonboard(device), "missing"),
        (set(r#","set":[1]"#), "argument"),
        (set(r#","unset":{"a":1}"#), "argument"),
        (set(r#","unset":[1]"#), "argument"),
        (reonboard(r#","device":"x","epoch":1"#), "argument"),
        (set(r#","set":{"A":1}"#), "name"),
        (set(r#","unset":[""]"#), "name"),
        (set(r#","set":{"connection":"attached"}"#), "reserved"),
        (set(r#","set":{"a":null}"#), "value"),
        (set(r#","set":{"a":"x\u0000y"}"#), "value"),
        (set(r#","set":{"a":9007199254740993}"#), "value"),
        (set(r#","set":{"a":[1]}"#), "value"),
        (set(r#","set":{"a":1e400}"#), "json"),
        (set(r#","set":{"a":1},"unset":["a"]"#), "set-and-unset"),
        (reonboard(&format!(r#"{device},"epoch":0"#)), "epoch"),
        (reonboard(&format!(r#"{device},"epoch":9007199254740992"#)), "epoch"),
        (reonboard(&format!(r#"{device},"epoch":-1"#)), "epoch"),
    ];
    for (payload, reason) in with_id {
        let bad = refused(&payload);
        assert_eq!((bad.id, bad.error.reason()), (Some(ID.parse().unwrap()), reason), "{payload}");
        assert!(!bad.error.detail().is_empty());
    }
}

#[test]
fn a_command_has_these_bytes() {
    let golden = command("reonboard", r#","device":"32e9ce22-b390-5276-8dff-a3e049edea5f","epoch":7"#);
    let kind = CommandKind::Reonboard { device: Device::of_hardware("SN-1"), epoch: Epoch::try_from(7).unwrap() };
    assert_eq!(decoded(&golden), kind);
    let command = Command { id: ID.parse().unwrap(), expires_at: Wall(1_700_000_000_123), kind };
    let same: serde_json::Value = serde_json::from_slice(&command.encode()).unwrap();
    assert_eq!(same, serde_json::from_str::<serde_json::Value>(&golden).unwrap());
}

#[test]
fn unknown_fields_of_a_command_are_ignored_and_empty_arguments_are_taken() {
    assert_eq!(decoded(&command("probe", r#","colour":{"deep":[null]}"#)), CommandKind::Probe);
    let empty = CommandKind::Set { set: BTreeMap::new(), unset: BTreeSet::new() };
    assert_eq!(decoded(&command("set", r#","unset":[]"#)), empty);
}

#[test]
fn a_reply_says_ok_or_error_and_never_both() {
    let reply = |rest: &str| Reply::decode(format!(r#"{{"v":1,"kind":"reply","id":"{ID}"{rest}}}"#).as_bytes());
    assert_eq!(reply(r#","ok":true"#).unwrap().outcome, ReplyOutcome::Ok);
    assert_eq!(reply(r#","error":"busy","x":[]"#).unwrap().outcome, ReplyOutcome::error("busy"));
    for wrong in ["", r#","ok":false"#, r#","ok":true,"error":"busy""#] {
        assert!(matches!(reply(wrong), Err(BadReply::Outcome(_))), "{wrong}");
    }
    assert!(matches!(Reply::decode(b"x"), Err(BadReply::Json(_))));
    let other = format!(r#"{{"v":2,"id":"{ID}"}}"#);
    assert!(matches!(Reply::decode(other.as_bytes()), Err(BadReply::WireVersion(2))));
}

#[test]
fn the_filter_of_a_rae_takes_the_commands_of_its_sessions_alone() {
    assert_eq!(commands_filter(&rae()), "dmp/v1/s07/RAE-0000042/+/cmd");
}

fn any_kind() -> impl Strategy<Value = CommandKind> {
    let settable = any_name().prop_filter("not the agent's own", |name| name.as_str() != CONNECTION);
    let changes = collection::btree_map(settable, option::of(any_value()), 0..8);
    prop_oneof![
        Just(CommandKind::Snapshot),
        Just(CommandKind::Probe),
        changes.prop_map(|changes| CommandKind::Set {
            unset: changes.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| name.clone()).collect(),
            set: changes.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        }),
        (any::<u128>(), 1..=MAX_EXACT).prop_map(|(device, epoch)| CommandKind::Reonboard {
            device: Device(Uuid::from_u128(device)),
            epoch: Epoch::try_from(epoch).unwrap()
        }),
    ]
}

proptest! {
    #![proptest_config(fixed_seed())]

    #[test]
    fn a_command_is_decoded_as_it_was_encoded(
        id in any::<u128>(), at in -377_705_023_201_000i64..=253_402_207_200_999, kind in any_kind(),
    ) {
        let command = Command { id: Uuid::from_u128(id), expires_at: Wall(at), kind };
        prop_assert_eq!(Command::decode(&command.encode()).unwrap(), command);
    }

    #[test]
    fn a_reply_is_decoded_as_it_was_encoded(id in any::<u128>(), why in option::of(".{0,300}")) {
        let outcome = why.map_or(ReplyOutcome::Ok, ReplyOutcome::error);
        let reply = Reply { id: Uuid::from_u128(id), outcome };
        prop_assert_eq!(Reply::decode(&reply.encode()).unwrap(), reply);
    }

    #[test]
    fn decoding_a_command_never_panics(
        kind in any_kind(), cut in any::<prop::sample::Index>(), byte in any::<u8>(), truncate in any::<bool>(),
    ) {
        let mut payload = Command { id: Uuid::nil(), expires_at: Wall(0), kind }.encode();
        let at = cut.index(payload.len());
        payload[at] = byte;
        if truncate {
            payload.truncate(at);
        }
        let _ = Command::decode(&payload);
        let _ = Reply::decode(&payload);
    }
}
