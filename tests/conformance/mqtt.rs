//! What the pipeline relies on in an MQTT broker, of rumqttd as the harness embeds it and of Mosquitto.
//!
//! The two differ, and [`Product`] says in what. Each is held to what is declared of it, so that a difference that goes
//! away, or a new one, is noticed; and messages as each has them are put through the cores of bridge and registry
//! ([`pipeline`]), to show that the difference ends there.

mod access;
mod flow;
mod peer;
mod pipeline;
mod session;

use std::sync::Arc;

use dmp_service::mqtt::{Dialer, Endpoint, TlsSettings};
use fleetproof::live::embedded::mqtt as stand_in;

/// In what the products differ.
pub(crate) struct Product {
    /// Whether a message that is sent again has DUP set.
    marks_what_it_sends_again: bool,
    /// Whether the DUP of a publisher reaches subscribers.
    passes_on_a_publishers_mark: bool,
    /// Whether a message of QoS 0 is delivered at the quality of a subscription of QoS 1.
    raises_quality_0: bool,
    /// Whether topics can be forbidden to a user.
    has_access_lists: bool,
    /// How many messages that it has not acknowledged a subscriber is sent.
    window: u32,
    /// Whether it answers a subscriber, a ping included, that has not acknowledged that many.
    answers_in_a_full_window: bool,
    /// How many retained messages it replays at a subscription.
    replays: usize,
    /// Whether it replays them also to a session that has the subscription and asks for it again.
    replays_to_who_has_subscribed: bool,
    /// Largest packet that it takes; larger ones end their connection.
    largest_packet_bytes: usize,
}

const RUMQTTD: Product = Product {
    marks_what_it_sends_again: false,
    passes_on_a_publishers_mark: true,
    raises_quality_0: true,
    has_access_lists: false,
    window: 100,
    answers_in_a_full_window: false,
    replays: 100,
    replays_to_who_has_subscribed: false,
    largest_packet_bytes: 512 << 10,
};

/// A broker of its own, and the way to it.
pub(crate) struct Bench {
    product: Product,
    endpoint: Endpoint,
    dialer: Arc<Dialer>,
    _server: Server,
}

enum Server {
    Embedded {
        _broker: stand_in::Broker,
    },
    #[cfg(feature = "containers")]
    Real {
        _broker: Box<fleetproof::live::containers::Alone>,
    },
}

/// As `containers` sets it up, and access lists.
#[cfg(feature = "containers")]
const MOSQUITTO: Product = Product {
    marks_what_it_sends_again: true,
    passes_on_a_publishers_mark: false,
    raises_quality_0: false,
    has_access_lists: true,
    window: 1_000,
    answers_in_a_full_window: true,
    replays: usize::MAX,
    replays_to_who_has_subscribed: true,
    largest_packet_bytes: 2 << 20,
};

/// A RAE's user name is its serial, and the bridge may do everything. Who names no user may, too: sentences that are not
/// of access name none.
#[cfg(feature = "containers")]
const ACCESS: &str = "\
topic readwrite #
pattern write dmp/v1/+/%u/#
pattern read dmp/v1/+/%u/+/cmd
user bridge
topic readwrite #
";

impl Bench {
    pub(crate) async fn embedded(_sentence: &str) -> Option<Bench> {
        #[cfg(not(feature = "containers"))]
        crate::say_what_is_left_out();
        let broker = stand_in::Broker::start().await.expect("the broker starts");
        let endpoint = broker.endpoint().clone();
        Some(Bench::of(RUMQTTD, endpoint, Server::Embedded { _broker: broker }))
    }

    #[cfg(feature = "containers")]
    pub(crate) async fn real(_sentence: &str) -> Option<Bench> {
        use fleetproof::live::containers::Product;

        let broker = crate::real::start(Product::Mosquitto { access: ACCESS.to_owned() })?;
        let endpoint = Endpoint { host: "127.0.0.1".to_owned(), port: broker.port(), tls: false };
        Some(Bench::of(MOSQUITTO, endpoint, Server::Real { _broker: Box::new(broker) }))
    }

    fn of(product: Product, endpoint: Endpoint, server: Server) -> Bench {
        let dialer = Dialer::new(endpoint.clone(), &TlsSettings::default()).expect("no TLS, no error");
        Bench { product, endpoint, dialer: Arc::new(dialer.at_most(80)), _server: server }
    }
}

on_each_arm! {
    crate::mqtt::Bench,
    flow::messages_arrive_in_the_order_of_publishing_up_to_the_payload_limit,
    flow::what_is_not_acknowledged_comes_again_in_order_marked_or_not_and_ends_in_the_same_rows,
    flow::a_publisher_that_sends_again_is_heard_twice_marked_or_not_and_ends_in_the_same_rows,
    flow::quality_0_arrives_raised_or_not_and_ends_in_the_same_rows,
    flow::quality_2_arrives_once_at_the_quality_of_the_subscription,
    flow::what_nobody_subscribes_to_is_acknowledged_and_gone,
    flow::who_acknowledges_nothing_gets_one_window_and_later_all_in_order,
    flow::what_is_queued_before_a_disconnect_arrives,
    flow::a_payload_above_the_limit_ends_as_a_dead_letter_or_at_the_broker_and_harms_no_neighbour,
    flow::five_hundred_clients_that_come_at_once_all_get_in,
    session::a_persistent_session_is_told_to_be_there_and_a_clean_one_never,
    session::a_second_connection_of_the_same_client_id_takes_over_and_loses_nothing,
    session::a_session_that_is_away_gets_everything_when_it_comes_back,
    session::the_will_is_published_when_a_client_vanishes_and_not_when_it_says_goodbye,
    session::a_will_is_retained_in_place_of_the_status_before_it,
    session::the_newest_retained_message_is_replayed_to_who_subscribes_until_an_empty_one_removes_it,
    session::a_replay_may_be_cut_short_and_tells_who_was_there_before_nothing_new,
    access::what_a_rae_says_and_hears_of_its_own_passes_with_access_lists_and_without,
    access::what_a_rae_says_for_another_is_kept_out_by_access_lists_alone,
    access::what_is_said_to_another_rae_is_heard_only_without_access_lists,
}
