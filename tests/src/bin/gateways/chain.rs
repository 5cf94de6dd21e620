//! What stands between an agent and the server, from the agent's side to the server's: a place where answers get lost,
//! the gateway, and another such place.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{
    cache::Cache,
    go::GoGateway,
    hop::Hops,
    loss::Loss,
    program::{Program, Running},
    replica::Replica,
};

/// How likely an answer of the server is lost before it reaches the gateway.
const LOST_BY_SERVER: f64 = 0.4;
/// How likely an answer of the gateway is lost before it reaches the agent.
const LOST_BY_GATEWAY: f64 = 0.15;

/// What stands between agents and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Between {
    /// Nothing: answers get lost, nobody repeats a request, each look-up is fresh
    Nothing,
    /// A gateway with the rule of Go's `net/http` for trying again
    Go,
    /// nginx with `proxy_next_upstream error timeout non_idempotent`
    Nginx,
    /// HAProxy with `retry-on all-retryable-errors`
    Haproxy,
    /// A cache that answers look-ups with answers up to 15 minutes old; only `Age` tells
    CacheAge,
    /// The same; only the old `Date` tells
    CacheDate,
    /// nginx with `proxy_cache`, which keeps answers for 15 minutes, whatever is asked for, and dates them anew
    NginxCache,
    /// A replica that is behind for look-ups
    Replica,
}

/// The parts of a chain, and the two places where answers get lost.
pub(super) struct Chain {
    before_gateway: Arc<Loss>,
    before_server: Arc<Loss>,
    address: SocketAddr,
    _gateway: Option<Running>,
    _hops: Hops,
}

impl Between {
    /// The settle wait of the agents.
    ///
    /// Where only a `Date` in whole seconds tells that an answer is old, an agent must grant some seconds to clocks
    /// that differ; the settle wait must not be shorter than these.
    pub(super) const fn settle_wait(self) -> Duration {
        match self {
            Self::CacheDate => Duration::from_secs(3),
            _ => Duration::from_secs(1),
        }
    }

    /// How far a replica is behind. A replica 60 s behind is two settle waits of the default 30 s behind, and no
    /// reading can tell it from one that is not: the agent takes a second reading a settle wait after the first, so
    /// two settle waits is what it can bear. Here the settle wait is shorter, and so is this: nine tenths of that bound.
    pub(super) fn behind(self) -> Duration {
        self.settle_wait() * 18 / 10
    }
}

impl Chain {
    /// Builds it before a server.
    pub(super) fn build(
        between: Between,
        server: SocketAddr,
        seed: u64,
    ) -> tally_tests::Result<Self> {
        let hops = Hops::start()?;
        let replica = (between == Between::Replica).then(|| Replica::new(between.behind()));
        let before_server = Arc::new(Loss::before_server(server, LOST_BY_SERVER, seed, replica));
        let entry = || hops.serve(Arc::clone(&before_server));
        let mut running = None;
        let gateway = match between {
            Between::Nothing | Between::Replica => entry()?,
            Between::Go => hops.serve(Arc::new(GoGateway::new(entry()?)))?,
            Between::CacheAge => hops.serve(Arc::new(Cache::new(entry()?, true)))?,
            Between::CacheDate => hops.serve(Arc::new(Cache::new(entry()?, false)))?,
            Between::Nginx => running
                .insert(Program::Nginx.start([entry()?, entry()?])?)
                .address(),
            Between::NginxCache => running
                .insert(Program::NginxCache.start([entry()?, entry()?])?)
                .address(),
            Between::Haproxy => running
                .insert(Program::Haproxy.start([entry()?, entry()?])?)
                .address(),
        };
        let before_gateway = Arc::new(Loss::before_gateway(gateway, LOST_BY_GATEWAY, !seed));
        let address = hops.serve(Arc::clone(&before_gateway))?;
        Ok(Self {
            before_gateway,
            before_server,
            address,
            _gateway: running,
            _hops: hops,
        })
    }

    /// The address of its first part, for an agent.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Switches the losses on or off.
    pub(super) fn lose(&self, is_on: bool) {
        self.before_gateway.switch(is_on);
        self.before_server.switch(is_on);
    }

    /// How many consumptions agents sent.
    pub(super) fn sent(&self) -> u64 {
        self.before_gateway.sent()
    }

    /// How many consumptions reached the server.
    pub(super) fn reached(&self) -> u64 {
        self.before_server.sent()
    }

    /// How many answers of the server that counted a consumption were lost, on either side of the gateway.
    pub(super) fn lost(&self) -> u64 {
        self.before_gateway.lost() + self.before_server.lost()
    }
}
