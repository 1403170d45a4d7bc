//! Real servers in containers, or the word that there are none.

use fleetproof::live::containers::{Alone, NotAlone, Product};

use crate::common::not_run;

/// Starts one. Without an engine or an image the test was not run; what is there and does not start is a failure.
pub(crate) fn start(product: Product) -> Option<Alone> {
    match Alone::start(product) {
        Ok(server) => Some(server),
        Err(error @ NotAlone::Absent(_)) => {
            not_run(&chain(&error));
            None
        }
        Err(error @ NotAlone::Failed(_)) => panic!("{}", chain(&error)),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
