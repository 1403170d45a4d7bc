//! What the pipeline relies on in a store, proven of each: one body, three arms.
//!
//! SQLite always runs. The arms on a server run where `FLEETPROOF_TEST_POSTGRES` holds the URL of a database that may be
//! written (`.ci/postgres start` prints one): once with READ COMMITTED as the default isolation, once with SERIALIZABLE.
//! Where it is absent they say so, and fail if `CI` is set.

mod body;
mod concurrency;
mod conflict;
mod embedded;
mod histories;
mod lost;
mod server;
mod stage;

/// Runs every sentence of the body on every arm.
macro_rules! on_every_store {
    ($($module:ident :: $sentence:ident),* $(,)?) => {
        on_every_store!(@arm sqlite, crate::stage::Arm::Sqlite, $($module::$sentence),*);
        on_every_store!(@arm postgres_read_committed, crate::stage::Arm::ReadCommitted, $($module::$sentence),*);
        on_every_store!(@arm postgres_serializable, crate::stage::Arm::Serializable, $($module::$sentence),*);
    };
    (@arm $arm:ident, $kind:expr, $($module:ident :: $sentence:ident),*) => {
        mod $arm {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $sentence() {
                    if let Some(stage) = crate::stage::Stage::set($kind, stringify!($sentence)).await {
                        crate::$module::$sentence(&stage).await;
                    }
                }
            )*
        }
    };
}

on_every_store! {
    body::the_newest_version_of_an_attribute_stays_whatever_the_order,
    body::a_tombstone_keeps_older_values_out,
    body::a_snapshot_hides_what_it_does_not_name_and_nothing_newer,
    body::a_device_without_a_snapshot_is_not_shown,
    body::values_of_every_type_come_back_as_they_were,
    body::records_of_some_devices_are_those_of_all,
    body::a_feed_only_rises,
    body::presence_keeps_the_newest_word_of_each_rae,
    body::a_write_tells_which_sessions_with_a_snapshot_are_not_the_newest_of_their_device,
    body::a_device_is_stale_by_what_was_read_of_its_own_partition,
    body::retiring_deletes_whole_what_was_stale_for_long_and_nothing_else,
    body::a_value_too_long_for_its_column_is_refused_and_its_batch_leaves_no_trace,
    body::a_store_that_was_never_migrated_refuses_no_rows,
    body::migrating_at_once_and_again_is_harmless_and_another_schema_is_told,
    body::a_clock_beyond_all_years_harms_no_reader,
    concurrency::random_histories_end_in_the_state_of_the_merge_rule,
    concurrency::four_writers_and_a_cleaner_leave_nothing_wrong_and_nothing_over,
    concurrency::writers_of_the_same_rows_do_not_deadlock,
    concurrency::a_reader_never_sees_a_torn_record,
    conflict::a_write_that_meets_another_waits_or_is_told_to_be_aborted,
    conflict::the_repetition_of_a_write_that_met_another_is_stored_whatever_was_told,
}
