//! What the cores can sign: RSA with 2,048 bits, as the agent signs its answers.

use std::{
    thread,
    time::{Duration, Instant},
};

use tally_shared::signature::Signer;

/// Signatures per second, on all cores.
#[expect(clippy::cast_precision_loss, reason = "a rate, for people")]
pub(crate) fn per_second(duration: Duration) -> tally_tests::Result<f64> {
    let signer = Signer::generate()?;
    let answer = [b'x'; 300];
    let cores = thread::available_parallelism()?.get();
    let sign = || {
        let (start, mut count) = (Instant::now(), 0_u64);
        while start.elapsed() < duration {
            signer.sign(&answer)?;
            count += 1;
        }
        anyhow::Ok(count as f64 / start.elapsed().as_secs_f64())
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..cores).map(|_| scope.spawn(sign)).collect();
        running
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| anyhow::bail!("signing panicked"))
            })
            .sum()
    })
}
