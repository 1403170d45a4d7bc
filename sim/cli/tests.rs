//! The command line as it is typed.

use clap::{CommandFactory, Parser};

use super::{Cli, Command, RunArgs, catalogue, run::reproduce, up};
use crate::check::verdict::CheckId;

fn run_args(words: &[&str]) -> RunArgs {
    let words = [&["fleetproof", "run"], words].concat();
    match Cli::try_parse_from(words).expect("a right command line").command {
        Command::Run(args) => args,
        other => panic!("not run: {other:?}"),
    }
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn wrong_usage_ends_with_exit_code_2_and_help_with_0() {
    let code = |words: &[&str]| Cli::try_parse_from(words).expect_err("no command").exit_code();
    assert_eq!(code(&["fleetproof", "run"]), 2);
    assert_eq!(code(&["fleetproof", "run", "x.toml", "--set", "fleet.raes"]), 2);
    assert_eq!(code(&["fleetproof", "run", "x.toml", "--on", "moon"]), 2);
    assert_eq!(code(&["fleetproof", "fly"]), 2);
    assert_eq!(code(&["fleetproof", "--help"]), 0);
}

#[test]
fn help_teaches_by_examples_and_names_every_exit_code() {
    let help = Cli::command().render_help().to_string();
    for words in ["Examples:", "fleetproof run scenarios/quick.toml", "0  PASS", "1  FAIL", "2  wrong", "3  INVALID"] {
        assert!(help.contains(words), "no {words:?} in:\n{help}");
    }
    for hidden in ["child-process", "janitor"] {
        assert!(!help.contains(hidden), "{hidden} is for the program itself:\n{help}");
    }
}

#[test]
fn the_reproducing_command_line_names_the_seed_and_quotes_what_a_shell_would_take_apart() {
    let args = run_args(&["my scenarios/a.toml", "--set", "fleet.update_every=5s", "--set", "fleet.raes=5", "--quiet"]);
    let line = reproduce(&args, 99);
    let expected = "run 'my scenarios/a.toml' --seed 99 --set 'fleet.update_every=\"5s\"' --set fleet.raes=5";
    assert!(line.ends_with(expected), "{line}");
}

#[test]
fn up_refuses_what_it_would_not_use() {
    let unused = |words: &[&str]| {
        let words = [&["fleetproof", "up"], words].concat();
        let Command::Up(args) = Cli::try_parse_from(words).expect("a right command line").command else { panic!("up") };
        up::unused(&args.overrides.set).map(ToString::to_string)
    };
    assert_eq!(unused(&["--set", "pipeline.partitions=4", "--set", "pipeline.batch_wait=5ms"]), None);
    assert_eq!(unused(&["--set", "pipeline.partitions=4", "--set", "fleet.raes=3"]).as_deref(), Some("fleet.raes = 3"));
    assert_eq!(unused(&["--set", "seed=3"]).as_deref(), Some("seed = 3"));
}

#[test]
fn the_catalogue_names_each_check_once() {
    let text = catalogue::shown();
    for id in CheckId::ALL {
        let begin = match id {
            CheckId::Generator => "- ".to_owned(),
            id => format!("{id:?} "),
        };
        assert_eq!(text.lines().filter(|line| line.starts_with(&begin)).count(), 1, "{id:?}");
    }
}
