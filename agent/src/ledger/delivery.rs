//! Answers on their way to who asked. To wake another thread is a call into the system, as long as all else of an
//! answer: so a thread is woken once for all the answers of a commit that wait there, and hands them out by itself.

use tokio::{runtime::Handle, sync::oneshot};

use super::job::Recording;

/// Who waits for an answer, and where.
pub struct Recipient {
    reply: oneshot::Sender<Recording>,
    /// `None` outside of any runtime.
    home: Option<Handle>,
}

impl From<oneshot::Sender<Recording>> for Recipient {
    /// Who waits on the runtime that this is called on.
    fn from(reply: oneshot::Sender<Recording>) -> Self {
        Self {
            reply,
            home: Handle::try_current().ok(),
        }
    }
}

type Letter = (oneshot::Sender<Recording>, Recording);

/// Sends answers, those of one runtime in their order.
pub(super) fn deliver(answers: impl Iterator<Item = (Recipient, Recording)>) {
    let here = Handle::try_current().ok().map(|here| here.id());
    let mut here_too = Vec::new();
    let mut elsewhere: Vec<(Handle, Vec<Letter>)> = Vec::new();
    for (Recipient { reply, home }, answer) in answers {
        let letter = (reply, answer);
        let Some(home) = home.filter(|home| Some(home.id()) != here) else {
            here_too.push(letter);
            continue;
        };
        match elsewhere.iter_mut().find(|(at, _)| at.id() == home.id()) {
            Some((_, letters)) => letters.push(letter),
            None => elsewhere.push((home, vec![letter])),
        }
    }
    for (home, letters) in elsewhere {
        home.spawn(async { hand_out(letters) });
    }
    hand_out(here_too);
}

fn hand_out(letters: Vec<Letter>) {
    for (reply, answer) in letters {
        // The asker may have gone away.
        let _ = reply.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use tokio::runtime::Builder;

    use super::*;
    use crate::ledger::{answers::Answer, job::RecordError};

    fn answer(status: u16) -> Answer {
        Answer {
            status,
            body: String::new(),
            replayed: false,
        }
    }

    #[test]
    fn who_waits_outside_of_a_runtime_has_the_answer_at_once() {
        let (reply, mut waits) = oneshot::channel();
        deliver([(reply.into(), Ok(answer(200)))].into_iter());
        assert_eq!(waits.try_recv().unwrap(), Ok(answer(200)));
    }

    #[tokio::test]
    async fn who_waits_on_the_committing_thread_has_the_answer_at_once() {
        let (reply, mut waits) = oneshot::channel();
        deliver([(reply.into(), Err(RecordError::Unknown))].into_iter());
        assert_eq!(waits.try_recv().unwrap(), Err(RecordError::Unknown));
    }

    #[test]
    fn who_waits_on_other_threads_gets_the_answer_to_what_was_asked() {
        let (asked, recipients) = mpsc::channel();
        let waiting = |number: u16| {
            let asked = asked.clone();
            thread::spawn(move || {
                let runtime = Builder::new_current_thread().build().unwrap();
                runtime.block_on(async {
                    let (one, first) = oneshot::channel();
                    let (other, second) = oneshot::channel();
                    let ours = [
                        (one.into(), Ok(answer(number))),
                        (other.into(), Ok(answer(number + 1))),
                    ];
                    asked.send(ours).unwrap();
                    assert_eq!(first.await.unwrap(), Ok(answer(number)));
                    assert_eq!(second.await.unwrap(), Ok(answer(number + 1)));
                });
            })
        };
        let threads = [waiting(200), waiting(400)];
        let (one, other) = (recipients.recv().unwrap(), recipients.recv().unwrap());
        deliver(one.into_iter().zip(other).flat_map(|(a, b)| [a, b]));
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
