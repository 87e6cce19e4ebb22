//! A write is the only moment at which anything can be lost.

use super::fake::Fate;
use super::story::Story;

/// The story once per write, with that write meeting `fate`.
async fn at_every_write(fate: Fate) {
    let undisturbed = Story::begin(None).whole().await;
    let (writes, expected) = (undisturbed.writes(), undisturbed.ending());
    assert!(writes > 10, "too short a story: {writes} writes");
    assert!(expected.effects.len() > 5, "{expected:#?}");
    for at in 0..writes {
        let story = Story::begin(Some((at, fate))).whole().await;
        assert_eq!(story.ending(), expected, "write {at}: {fate:?}");
    }
}

/// FC-5: killed before any write, the successor ends where nothing happened, and nodes lived through the same shares.
#[tokio::test]
async fn killed_before_any_write_everything_ends_the_same() {
    at_every_write(Fate::KilledBefore).await;
}

/// FC-5: killed after any write, the same.
#[tokio::test]
async fn killed_after_any_write_everything_ends_the_same() {
    at_every_write(Fate::KilledAfter).await;
}

/// FC-11: a write that was accepted and not answered is not made twice, and what follows from it is.
#[tokio::test(start_paused = true)]
async fn whichever_answer_is_lost_everything_ends_the_same() {
    at_every_write(Fate::AnswerLost).await;
}

/// FC-1, FC-12: a write that an API server or an admission webhook refuses once is made later.
#[tokio::test(start_paused = true)]
async fn whichever_write_is_refused_everything_ends_the_same() {
    at_every_write(Fate::Refused).await;
}
