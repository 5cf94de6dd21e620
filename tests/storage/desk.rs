//! Who commits, and when: what arrives meanwhile shares the commit, a flood waits for one that asks one thing at a time,
//! and a request is committed though the one that was about to do it for all went away.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use tally_agent::ledger::writer;

use crate::bench::{self, Bench};

async fn is_waiting<T>(mut future: Pin<&mut impl Future<Output = T>>) -> bool {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

#[test]
fn what_one_brought_for_all_is_committed_when_it_goes_away() {
    let (engine, app) = Bench::new().into_engine();
    let (ledger, writer) = writer::start(engine).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.build().unwrap();
    runtime.block_on(async {
        // From here on the queue is empty, so that the first bringer is to commit for both.
        ledger.ask(|_, _| ()).await.unwrap();
        let mut first = Box::pin(ledger.record(app, bench::request(1), None));
        let mut second = pin!(ledger.record(app, bench::request(2), None));
        assert!(is_waiting(first.as_mut()).await);
        assert!(is_waiting(second.as_mut()).await);
        drop(first);
        assert_eq!(second.await.unwrap().status, 200);
        ledger.stop();
    });
    writer.thread.join().unwrap();
}

#[test]
fn the_ledger_stops_though_who_was_about_to_commit_does_nothing_any_more() {
    let (engine, app) = Bench::new().into_engine();
    let (ledger, writer) = writer::start(engine).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.build().unwrap();
    let mut first = Box::pin(ledger.record(app, bench::request(1), None));
    runtime.block_on(async {
        // The relief, which looks once when it starts, has started by then.
        for _ in 0..20 {
            ledger.record(app, bench::request(1), None).await.unwrap();
        }
        assert!(is_waiting(first.as_mut()).await);
    });
    ledger.stop();
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || ended.send(writer.thread.join().is_ok()));
    assert_eq!(end.recv_timeout(Duration::from_secs(30)), Ok(true));
    // What had waited was committed before.
    assert_eq!(runtime.block_on(first).unwrap().status, 200);
}

/// How many commits are made while one application asks so often, one thing at a time, beside another that floods; which
/// waits for it for so long, and makes so many commits after that.
fn commits_beside_a_flood(linger: Duration, asks: usize, then: usize) -> u64 {
    let (engine, flood) = Bench::new().into_engine();
    let (ledger, writer) = writer::start_lingering(engine, linger).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.build().unwrap();
    let commits = runtime.block_on(async {
        let other = ledger.app("other").await.unwrap();
        let mut commits = ledger.news();
        for _ in 0..64 {
            let ledger = ledger.clone();
            // Until the ledger stops.
            tokio::spawn(async move {
                while ledger.record(flood, bench::request(1), None).await.is_ok() {}
            });
        }
        let mut before = 0;
        for ask in 0..2 * asks {
            if ask == asks {
                before = *commits.borrow();
            }
            let answer = ledger.record(other, bench::request(1), None).await;
            assert_eq!(answer.unwrap().status, 200);
        }
        let made = *commits.borrow_and_update() - before;
        for _ in 0..then {
            commits.changed().await.unwrap();
        }
        ledger.stop();
        made
    });
    writer.thread.join().unwrap();
    commits
}

#[test]
fn a_flood_waits_for_one_that_asks_one_thing_at_a_time() {
    // Seen to ask at once during the first half, it is waited for during the second, for as long as it takes. A thread
    // that looked before the last turn may make a commit of the flood's; without waiting, there is one for each request.
    let asks = 500;
    let commits = commits_beside_a_flood(Duration::from_hours(1), asks, 0);
    assert!(commits < asks as u64 * 3 / 2, "{commits}");
}

#[test]
fn a_flood_that_waits_in_vain_goes_on() {
    let commits = commits_beside_a_flood(Duration::from_millis(1), 10, 100);
    assert!(commits >= 10, "{commits}");
}

/// How many commits are made of requests that come one after the other, as over sockets: each is found when the runtime
/// looks for the next time after the one before was brought. Another application asks before, or does not.
#[cfg(unix)]
fn commits_of_chains(chains: usize, length: usize, is_alone: bool) -> u64 {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixStream,
    };

    let (engine, app) = Bench::new().into_engine();
    let (ledger, writer) = writer::start(engine).unwrap();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_io().build().unwrap();
    let commits = runtime.block_on(async {
        let other = ledger.app("other").await.unwrap();
        if !is_alone {
            let answer = ledger.record(other, bench::request(1), None).await;
            assert_eq!(answer.unwrap().status, 200);
        }
        let commits = ledger.news();
        let before = *commits.borrow();
        for _ in 0..chains {
            let (mut start, mut turn) = UnixStream::pair().unwrap();
            let mut asking = Vec::new();
            for _ in 0..length {
                let (mut next, next_turn) = UnixStream::pair().unwrap();
                let mut own_turn = std::mem::replace(&mut turn, next_turn);
                let ledger = ledger.clone();
                asking.push(tokio::spawn(async move {
                    own_turn.read_u8().await.unwrap();
                    next.write_u8(0).await.unwrap();
                    ledger.record(app, bench::request(1), None).await
                }));
            }
            start.write_u8(0).await.unwrap();
            for answer in asking {
                assert_eq!(answer.await.unwrap().unwrap().status, 200);
            }
        }
        ledger.stop();
        *commits.borrow() - before
    });
    writer.thread.join().unwrap();
    commits
}

/// The ledger's own thread looks as well when it starts and when it stops, and may find a chain under way.
#[cfg(unix)]
const OTHER_COMMITS: u64 = 4;

#[cfg(unix)]
#[test]
fn what_arrives_one_after_the_other_shares_a_commit() {
    assert!(commits_of_chains(10, 4, true) <= 10 + OTHER_COMMITS);
}

#[cfg(unix)]
#[test]
fn beside_another_application_no_request_waits_for_more_than_a_share_of_others() {
    // Eight to a commit.
    assert!(commits_of_chains(1, 150, false) >= 150 / 8);
}
