//! `fleetproof clean`: removes what a run has left on somebody's servers, after it has shown what that is.

use super::{CleanArgs, Exit, chain, deployment, run::print, runtime};
use crate::{live::Leavings, run::RunError};

pub(super) fn clean(args: &CleanArgs) -> Exit {
    let deployment = match deployment(&args.on) {
        Ok(deployment) => deployment,
        Err(exit) => return exit,
    };
    let cleaning = async {
        let leavings = Leavings::of(deployment, args.run.clone()).await?;
        print(&format!("of run {} there is\n", args.run));
        lines(&leavings.shown());
        if leavings.is_empty() {
            print("\nnothing to remove\n");
        } else if args.yes {
            print("\n");
            lines(&leavings.remove().await?);
        } else {
            print("\nnothing was removed: --yes removes it\n");
        }
        Ok(())
    };
    let cleaned =
        runtime().map_err(|error| RunError::Harness(error.into())).and_then(|runtime| runtime.block_on(cleaning));
    match cleaned {
        Ok(()) => Exit::Pass,
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            Exit::Invalid
        }
    }
}

fn lines(lines: &[String]) {
    for line in lines {
        print(&format!("  {line}\n"));
    }
}
