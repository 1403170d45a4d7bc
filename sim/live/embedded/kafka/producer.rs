//! Idempotence: a batch that a producer sends again is stored once, and none is stored out of its order.
//!
//! As in Kafka (KIP-98), a partition remembers the last five batches of each producer, which is as many as an idempotent
//! producer keeps in flight. Unlike Kafka, a producer that a partition does not know must begin at sequence 0: otherwise
//! the second of two batches in flight could get ahead of a first one that was refused because the log was full.

use std::collections::{BTreeMap, VecDeque};

use kafka_protocol::ResponseError;

use super::batch::Stamp;

/// Batches remembered per producer: the most that an idempotent producer may have in flight (KIP-98).
const BATCHES_KEPT: usize = 5;
/// Producers remembered per partition, at about 200 bytes each; the one that wrote longest ago is forgotten first.
const PRODUCERS_MAX: usize = 4_096;

/// The producers that wrote to one partition.
#[derive(Debug, Default)]
pub(super) struct Producers {
    known: BTreeMap<i64, Producer>,
}

#[derive(Debug)]
struct Producer {
    epoch: i16,
    /// Oldest first, never empty.
    batches: VecDeque<Stored>,
}

#[derive(Debug, Clone, Copy)]
struct Stored {
    first: i32,
    last: i32,
    base_offset: i64,
}

/// What is to be done with a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is new: store it, then call [`Producers::stored`].
    Store,
    /// It is stored already, at this offset.
    Duplicate { base_offset: i64 },
}

impl Producers {
    /// Says what is to be done with a batch of `stamp`.
    ///
    /// # Errors
    /// The batch is out of order, of a producer epoch that is over, or a copy of one that is no longer remembered.
    pub(super) fn admit(&self, stamp: Stamp) -> Result<Admission, ResponseError> {
        let from_the_start =
            if stamp.first == 0 { Ok(Admission::Store) } else { Err(ResponseError::OutOfOrderSequenceNumber) };
        let Some(producer) = self.known.get(&stamp.producer) else { return from_the_start };
        if stamp.epoch < producer.epoch {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        if stamp.epoch > producer.epoch {
            return from_the_start;
        }
        if let Some(copy) = producer.batches.iter().find(|one| (one.first, one.last) == (stamp.first, stamp.last)) {
            return Ok(Admission::Duplicate { base_offset: copy.base_offset });
        }
        let next = producer.batches.back().map_or(0, |newest| newest.last.wrapping_add(1) & i32::MAX);
        match next.wrapping_sub(stamp.first) & i32::MAX {
            0 => Ok(Admission::Store),
            // Sequence numbers wrap, so "before" is the nearer half of the circle.
            behind if behind <= i32::MAX / 2 => Err(ResponseError::DuplicateSequenceNumber),
            _ahead => Err(ResponseError::OutOfOrderSequenceNumber),
        }
    }

    /// Remembers a batch that was admitted and is stored at `base_offset`.
    pub(super) fn stored(&mut self, stamp: Stamp, base_offset: i64) {
        if !self.known.contains_key(&stamp.producer) && self.known.len() >= PRODUCERS_MAX {
            self.forget_oldest();
        }
        let producer = self
            .known
            .entry(stamp.producer)
            .or_insert_with(|| Producer { epoch: stamp.epoch, batches: VecDeque::with_capacity(BATCHES_KEPT) });
        if producer.epoch != stamp.epoch {
            producer.epoch = stamp.epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == BATCHES_KEPT {
            producer.batches.pop_front();
        }
        producer.batches.push_back(Stored { first: stamp.first, last: stamp.last, base_offset });
    }

    fn forget_oldest(&mut self) {
        let oldest = self
            .known
            .iter()
            .min_by_key(|(_, producer)| producer.batches.back().map(|newest| newest.base_offset))
            .map(|(id, _)| *id);
        if let Some(id) = oldest {
            self.known.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(first: i32, last: i32) -> Stamp {
        Stamp { producer: 9, epoch: 0, first, last }
    }

    fn after(batches: &[(i32, i32, i64)]) -> Producers {
        let mut producers = Producers::default();
        for &(first, last, base_offset) in batches {
            assert_eq!(producers.admit(stamp(first, last)), Ok(Admission::Store));
            producers.stored(stamp(first, last), base_offset);
        }
        producers
    }

    #[test]
    fn a_batch_sent_again_is_answered_with_its_first_offset() {
        let producers = after(&[(0, 9, 100), (10, 19, 110), (20, 29, 120)]);
        assert_eq!(producers.admit(stamp(10, 19)), Ok(Admission::Duplicate { base_offset: 110 }));
        assert_eq!(producers.admit(stamp(0, 9)), Ok(Admission::Duplicate { base_offset: 100 }));
    }

    #[test]
    fn a_gap_is_out_of_order_and_a_forgotten_copy_is_a_duplicate() {
        let producers = after(&[(0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4), (5, 5, 5)]);
        assert_eq!(producers.admit(stamp(7, 7)), Err(ResponseError::OutOfOrderSequenceNumber));
        assert_eq!(producers.admit(stamp(0, 0)), Err(ResponseError::DuplicateSequenceNumber));
        assert_eq!(producers.admit(stamp(6, 6)), Ok(Admission::Store));
    }

    #[test]
    fn an_unknown_producer_begins_at_zero() {
        assert_eq!(Producers::default().admit(stamp(1, 1)), Err(ResponseError::OutOfOrderSequenceNumber));
        assert_eq!(Producers::default().admit(stamp(0, 3)), Ok(Admission::Store));
    }

    #[test]
    fn a_new_epoch_begins_anew_and_ends_the_old_one() {
        let mut producers = after(&[(0, 9, 0)]);
        let newer = Stamp { epoch: 1, ..stamp(0, 4) };
        assert_eq!(producers.admit(Stamp { first: 10, ..newer }), Err(ResponseError::OutOfOrderSequenceNumber));
        assert_eq!(producers.admit(newer), Ok(Admission::Store));
        producers.stored(newer, 10);
        assert_eq!(producers.admit(stamp(10, 19)), Err(ResponseError::InvalidProducerEpoch));
        assert_eq!(producers.admit(newer), Ok(Admission::Duplicate { base_offset: 10 }));
    }

    #[test]
    fn sequence_numbers_wrap_to_zero() {
        let mut producers = after(&[(0, 0, 0)]);
        producers.stored(stamp(1, i32::MAX - 1), 1);
        let over_the_edge = stamp(i32::MAX, 1);
        assert_eq!(producers.admit(over_the_edge), Ok(Admission::Store));
        producers.stored(over_the_edge, 2);
        assert_eq!(producers.admit(stamp(2, 5)), Ok(Admission::Store));
        assert_eq!(producers.admit(over_the_edge), Ok(Admission::Duplicate { base_offset: 2 }));
    }

    #[test]
    fn the_number_of_remembered_producers_is_bounded() {
        let mut producers = Producers::default();
        for (producer, base_offset) in (0..).zip(0..2 * PRODUCERS_MAX as i64) {
            producers.stored(Stamp { producer, epoch: 0, first: 0, last: 0 }, base_offset);
        }
        assert_eq!(producers.known.len(), PRODUCERS_MAX);
        assert!(producers.known.contains_key(&(2 * PRODUCERS_MAX as i64 - 1)));
    }
}
