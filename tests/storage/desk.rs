//! Who commits: a request is committed though the one that was about to do it for all went away.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
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
        ledger.stop().await;
    });
    writer.thread.join().unwrap();
}
