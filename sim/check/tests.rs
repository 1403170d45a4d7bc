//! Every check is seen to pass, to fail, and to be INVALID when it saw nothing.

mod story;

use std::time::Duration;

use dmp_core::{
    event::{AttributeName, Value},
    id::{Device, Seq},
    merge::{DeviceState, Offer},
    time::Wall,
};

use super::{
    bound,
    verdict::{CheckId, Class, Outcome, Verdict, verdict},
};
use crate::{
    fleet::plan::DeviceIndex,
    history::{Copy, PayloadHash, Stage, What},
};
use story::{BRIDGE, QUIET, REGISTRY, Story};

const FIRST: DeviceIndex = DeviceIndex(0);

fn name(text: &str) -> AttributeName {
    AttributeName::try_from(text).expect("a valid name")
}

#[test]
fn a_healthy_run_passes_every_check_that_can_be_observed() {
    let story = Story::healthy();
    for result in story.results() {
        match result.id {
            CheckId::C5b => assert!(matches!(result.outcome, Outcome::NotObservable(_)), "{result:?}"),
            _ => assert_eq!(result.outcome, Outcome::Pass, "{result:#?}"),
        }
    }
    assert_eq!(verdict(&story.results()), Verdict::Pass);
}
