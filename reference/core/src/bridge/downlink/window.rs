//! The window: publishes that the broker owes an acknowledgement, in the order of their first sending.

use std::collections::VecDeque;

use super::{Partition, lane::Serial};
use crate::{core::PacketId, time::Mono};

#[derive(Debug)]
pub(super) struct Window {
    most: usize,
    flights: VecDeque<Flight>,
    last: u16,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Flight {
    pub(super) packet: PacketId,
    /// When it was sent on the present connection.
    pub(super) sent: Mono,
    /// What it carries; `None` where that is no longer ours. Its packet id is taken until it is acknowledged all the same.
    pub(super) of: Option<(Partition, Serial)>,
}

impl Window {
    pub(super) fn new(most: u16) -> Window {
        Window { most: most.into(), flights: VecDeque::new(), last: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.flights.len()
    }

    pub(super) fn has_room(&self) -> bool {
        self.flights.len() < self.most
    }

    /// When the oldest was sent.
    pub(super) fn oldest(&self) -> Option<Mono> {
        self.flights.front().map(|flight| flight.sent)
    }

    /// Takes a publish into the window, with a packet id that nothing in it has.
    pub(super) fn send(&mut self, now: Mono, of: (Partition, Serial)) -> PacketId {
        let taken = |packet| self.flights.iter().any(|flight| flight.packet == PacketId(packet));
        let mut packet = self.last % u16::MAX + 1;
        while taken(packet) {
            packet = packet % u16::MAX + 1;
        }
        self.last = packet;
        self.flights.push_back(Flight { packet: PacketId(packet), sent: now, of: Some(of) });
        PacketId(packet)
    }

    /// Takes what is acknowledged out of the window.
    pub(super) fn acknowledged(&mut self, packet: PacketId) -> Option<Flight> {
        let at = self.flights.iter().position(|flight| flight.packet == packet)?;
        self.flights.remove(at)
    }

    /// Everything in it, in order, for a new connection, on which nothing is owed yet.
    pub(super) fn take_all(&mut self) -> VecDeque<Flight> {
        std::mem::take(&mut self.flights)
    }

    /// Puts back what is sent again.
    pub(super) fn put_back(&mut self, flight: Flight) {
        self.flights.push_back(flight);
    }

    /// What is not `ours` is carried for nobody.
    pub(super) fn let_go(&mut self, mut ours: impl FnMut(Partition, Serial) -> bool) {
        for flight in &mut self.flights {
            flight.of = flight.of.filter(|&(partition, serial)| ours(partition, serial));
        }
    }
}
