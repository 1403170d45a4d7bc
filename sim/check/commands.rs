//! C16: each command that was issued ends in exactly one way: executed once and replied to, executed once with its reply
//! lost by a fault, expired unexecuted, or refused. None is executed twice, and of none is nothing heard; and one that
//! nothing kept from the living session it was for is executed.

use super::{
    model::{CommandEnd, CommandLife, Models},
    tally::Tally,
    verdict::{CheckId, CheckResult, Moment},
};

/// C16.
#[derive(Debug)]
pub(super) struct Commands(Tally);

impl Commands {
    pub(super) fn new() -> Commands {
        Commands(Tally::new(CheckId::C16))
    }

    pub(super) fn finish(&mut self, models: &Models) -> CheckResult {
        if models.scenario.commands.is_empty() {
            return self.0.not_observable("the scenario sends no commands");
        }
        let mut counts = [0u64; CommandEnd::ALL.len()];
        for life in models.commands.all() {
            self.0.saw();
            let end = models.command_end(life);
            counts[end as usize] += 1;
            if end.is_wrong() {
                let at = story(life).last().map_or(life.issued.due, |moment| moment.at);
                self.0.fail(at, || (witness(models, life, end), story(life)));
            }
        }
        let told = CommandEnd::ALL.into_iter().filter(|&end| counts[end as usize] > 0);
        let told: Vec<_> = told.map(|end| format!("{} {}", counts[end as usize], end.text())).collect();
        let figure = format!("{} commands = {}", self.0.observed, told.join(" + "));
        self.0.result(figure, "every command has one end".to_owned(), "command")
    }
}

fn witness(models: &Models, life: &CommandLife, end: CommandEnd) -> String {
    let issued = &life.issued;
    let rae = &models.plan.raes[issued.rae.0 as usize].serial;
    let took = match end {
        CommandEnd::Twice => format!("was executed {} times", life.taken.len().max(life.changed.len())),
        CommandEnd::Pretended if life.taken.is_empty() => {
            "was never taken by an agent, and a reply says that it was executed".to_owned()
        }
        CommandEnd::Pretended => "had no effect, and a reply says that it was executed".to_owned(),
        CommandEnd::Unanswered => {
            "was executed or refused, and no reply is in the log, although its RAE kept its power".to_owned()
        }
        CommandEnd::Unexecuted => {
            "was not executed, although its RAE was connected, its session the newest, and the way down open".to_owned()
        }
        CommandEnd::Lost if life.logged == 0 => "never came into the log".to_owned(),
        CommandEnd::Lost => "was never heard of, although its RAE was connected; the bridge should act".to_owned(),
        CommandEnd::Replied | CommandEnd::ReplyLost | CommandEnd::Expired | CommandEnd::Refused | CommandEnd::Open => {
            end.text().to_owned()
        }
    };
    format!("command {} ({} to device {} at {rae}) {took}", issued.id, issued.name, models.id(issued.device))
}

fn story(life: &CommandLife) -> Vec<Moment> {
    let moment = |at, what: String| Moment { at, what };
    let mut moments =
        vec![moment(life.issued.due, format!("due, expires at {:.3} s", life.issued.expires.as_secs_f64()))];
    moments.extend(life.tampered.iter().map(|(at, how)| moment(*at, format!("{how:?} by a fault").to_lowercase())));
    moments.extend(life.taken.iter().map(|&at| moment(at, "taken by its agent".to_owned())));
    moments.extend(life.changed.iter().map(|&at| moment(at, "the device did what it says".to_owned())));
    moments.extend(
        life.executed.iter().map(|&(at, ok)| moment(at, format!("executed {}", if ok { "well" } else { "in vain" }))),
    );
    moments.extend(life.repeated.iter().map(|&at| moment(at, "came again".to_owned())));
    moments.extend(life.refused.iter().map(|(at, why)| moment(*at, format!("refused by its agent: {why}"))));
    moments.extend(
        life.replied.iter().map(|(at, error)| {
            moment(*at, error.as_ref().map_or("reply: ok".to_owned(), |why| format!("reply: {why}")))
        }),
    );
    moments.sort_by_key(|moment| moment.at);
    moments
}
