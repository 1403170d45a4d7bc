//! Faults of the servers, and of the ways to them.

use crate::{
    history::What,
    live::{
        proxy::{Pace, Traffic},
        stack::ServerOrder,
    },
    scenario::ServerFault,
};

use super::{Breaker, Ended, World};

impl Breaker {
    /// Begins fault number `fault`, which is this one.
    pub(super) async fn begin_server(
        &mut self,
        fault: usize,
        kind: &ServerFault,
        world: &World<'_>,
    ) -> anyhow::Result<()> {
        let server = kind.server();
        if kind.is_of_link() {
            let link = world.target.link(server)?;
            self.traffic.insert(fault, link.traffic());
        }
        let order = match *kind {
            ServerFault::Kill { .. } => ServerOrder::Kill,
            ServerFault::Restart { .. } => ServerOrder::End,
            ServerFault::Pause { .. } => ServerOrder::Pause,
            ServerFault::FullDisk { .. } => ServerOrder::FillDisk,
            ServerFault::CutLink { .. } => {
                world.target.link(server)?.cut();
                return Ok(());
            }
            ServerFault::SlowLink { delay, bytes_per_s, .. } => {
                let pace = Pace { latency: delay.unwrap_or_default(), bytes_per_second: bytes_per_s };
                world.target.link(server)?.slow(pace);
                return Ok(());
            }
            ServerFault::HalfOpenLink { .. } => {
                world.target.link(server)?.half_open();
                return Ok(());
            }
        };
        world.target.order(server, order)?.await?;
        world.journal.enter(What::FaultActed { fault, times: 1 }).await;
        Ok(())
    }

    /// Ends fault number `fault`, which is this one.
    pub(super) async fn end_server(
        &mut self,
        fault: usize,
        kind: &ServerFault,
        world: &World<'_>,
    ) -> anyhow::Result<Ended> {
        let server = kind.server();
        match kind {
            // It takes seconds, in which the load goes on.
            ServerFault::Kill { .. } | ServerFault::Restart { .. } => {
                let (back, journal) = (world.target.order(server, ServerOrder::Start)?, world.journal.clone());
                self.tasks.spawn(async move {
                    back.await?;
                    journal.enter(What::FaultEnded(fault)).await;
                    Ok(())
                });
                return Ok(Ended::Later);
            }
            ServerFault::Pause { .. } => world.target.order(server, ServerOrder::Resume)?.await?,
            ServerFault::FullDisk { .. } => world.target.order(server, ServerOrder::FreeDisk)?.await?,
            ServerFault::CutLink { .. } | ServerFault::HalfOpenLink { .. } => {
                self.restore(fault, kind, world, |traffic| traffic.cut).await?;
            }
            ServerFault::SlowLink { .. } => self.restore(fault, kind, world, |traffic| traffic.bytes).await?,
        }
        Ok(Ended::Now)
    }

    /// Mends a link, and tells what its fault did to it.
    async fn restore(
        &mut self,
        fault: usize,
        kind: &ServerFault,
        world: &World<'_>,
        of: impl Fn(Traffic) -> u64,
    ) -> anyhow::Result<()> {
        let link = world.target.link(kind.server())?;
        let before = self.traffic.remove(&fault).unwrap_or_default();
        let times = of(link.traffic()).saturating_sub(of(before));
        link.restore();
        world.journal.enter(What::FaultActed { fault, times }).await;
        Ok(())
    }
}
