//! The guard of the merge rule in SQL, and the seam by which a planted bug leaves it out.

use std::borrow::Cow;

use dmp_core::sabotage::{Bug, planted};

/// What stands in the statements on `device` and `device_attribute` of both stores: only a newer version replaces.
const NEWER: &str = "(excluded.epoch, excluded.session, excluded.seq) > (t.epoch, t.session, t.seq)";

/// What keeps out of a write the rows that it would not replace: false for all of them without the guard.
const ALREADY_THERE: &str = "(o.epoch, o.session, o.seq) >= (u.epoch, u.session, u.seq)";

/// The statement as it is to be run.
pub(super) fn guarded(sql: &'static str) -> Cow<'static, str> {
    if planted(Bug::StoreWithoutGuard) {
        return Cow::Owned(sql.replace(NEWER, "TRUE").replace(ALREADY_THERE, "FALSE"));
    }
    Cow::Borrowed(sql)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_statement_on_versions_holds_the_guard_in_the_words_that_the_seam_looks_for() {
        let server = [include_str!("server/write_devices.sql"), include_str!("server/write_attributes.sql")];
        let sqlite = [include_str!("sqlite/write_device.sql"), include_str!("sqlite/write_attribute.sql")];
        for sql in server.into_iter().chain(sqlite) {
            assert!(sql.contains(NEWER), "{sql}");
        }
        assert!(server[1].contains(ALREADY_THERE));
    }
}
