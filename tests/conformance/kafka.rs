//! What the pipeline relies on in Kafka, of the embedded broker and of Apache Kafka.
//!
//! The products do not differ in any of it: no sentence asks which one it is told of. What the embedded broker does not
//! have (replication, transactions, security, retention by time) no sentence needs: records go by `DeleteRecords`, which
//! moves the oldest offset just as time does.

mod adapter;
mod client;
mod group;
mod link;
mod log;

use std::time::Duration;

use fleetproof::live::embedded::kafka as stand_in;
use tempfile::TempDir;

use self::{
    adapter::{consume, produce},
    link::Link,
};

/// Of every topic.
const PARTITIONS: i32 = 4;

/// Far above what anything here takes; a bound so that a fault is a failure and not a hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// A topic of its own on a broker, and the wire to it.
pub(crate) struct Bench {
    /// Begins every name that is made here: tests share a real broker.
    scope: &'static str,
    topic: &'static str,
    server: Server,
}

enum Server {
    Embedded {
        link: Link,
        _broker: stand_in::Broker,
        _directory: TempDir,
    },
    #[cfg(feature = "containers")]
    Real(std::sync::Arc<Real>),
}

#[cfg(feature = "containers")]
struct Real {
    link: Link,
    _broker: fleetproof::live::containers::Alone,
}

impl Bench {
    pub(crate) async fn embedded(sentence: &'static str) -> Option<Bench> {
        #[cfg(not(feature = "containers"))]
        crate::say_what_is_left_out();
        let (link, directory) = (Link::bind(), tempfile::tempdir().expect("a directory"));
        let config = stand_in::Config { advertised_port: Some(link.port()), ..stand_in::Config::new(directory.path()) };
        let broker = stand_in::Broker::start(config).expect("a broker");
        link.run(broker.bootstrap());
        Some(Bench::of(sentence, Server::Embedded { link, _broker: broker, _directory: directory }).await)
    }

    #[cfg(feature = "containers")]
    pub(crate) async fn real(sentence: &'static str) -> Option<Bench> {
        Some(Bench::of(sentence, Server::Real(shared()?)).await)
    }

    async fn of(scope: &'static str, server: Server) -> Bench {
        let topic = format!("{scope}.events").leak();
        let bench = Bench { scope, topic, server };
        bench.make_topic(topic).await;
        bench
    }

    /// `name` as nobody else has it: of a client, a group or a topic.
    fn named(&self, name: &str) -> String {
        format!("{}.{name}", self.scope)
    }

    fn link(&self) -> &Link {
        match &self.server {
            Server::Embedded { link, .. } => link,
            #[cfg(feature = "containers")]
            Server::Real(real) => &real.link,
        }
    }

    fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.link().port())
    }
}

/// One for all tests that run at a time: it takes seconds to start. The last that uses it removes it.
#[cfg(feature = "containers")]
fn shared() -> Option<std::sync::Arc<Real>> {
    use std::sync::{Arc, Mutex, PoisonError, Weak};

    static RUNNING: Mutex<Weak<Real>> = Mutex::new(Weak::new());
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(real) = running.upgrade() {
        return Some(real);
    }
    let link = Link::bind();
    let broker = crate::real::start(fleetproof::live::containers::Product::Kafka { advertised_port: link.port() })?;
    link.run(broker.address());
    let real = Arc::new(Real { link, _broker: broker });
    *running = Arc::downgrade(&real);
    Some(real)
}

on_each_arm! {
    crate::kafka::Bench,
    log::a_key_goes_to_the_partition_that_javas_hash_gives_it,
    log::keys_headers_and_order_come_through,
    log::an_idempotent_producer_whose_answers_are_lost_stores_each_record_once_and_in_order,
    log::clients_carry_on_after_their_connections_are_cut,
    log::an_offset_that_was_deleted_is_out_of_range,
    log::an_offset_beyond_the_end_is_out_of_range,
    log::an_oversized_record_is_refused_by_the_broker_and_others_are_not,
    log::a_time_leads_to_an_offset_and_a_record_keeps_its_own,
    log::topics_are_made_grown_and_removed_by_an_admin_client,
    group::members_share_the_partitions_and_take_over_from_those_that_leave,
    group::a_silent_member_is_expelled_and_its_late_commit_refused,
    group::a_commit_survives_its_member_and_tells_the_lag,
    group::a_commit_may_go_back,
    group::groups_are_listed_with_their_states,
    produce::the_producer_keeps_order_and_stores_once_while_connections_are_cut,
    produce::an_oversized_record_is_refused_and_its_neighbours_are_stored,
    produce::a_record_that_no_broker_takes_in_time_is_answered_and_never_as_stored,
    consume::a_commit_while_giving_partitions_away_is_where_the_next_owner_starts,
    consume::a_member_that_is_not_polled_is_expelled_and_its_late_commit_is_stale,
    consume::a_member_that_is_not_polled_while_others_join_has_a_stale_commit,
    consume::pausing_and_resuming_again_and_again_keeps_order_and_loses_nothing,
    consume::a_lag_read_while_records_flow_is_never_negative,
    consume::what_retention_has_deleted_is_skipped_and_reading_goes_on_at_the_oldest_record,
    consume::a_group_that_starts_at_the_latest_offset_starts_where_that_was_the_first_time,
    consume::a_consumer_ends_in_any_state,
}
