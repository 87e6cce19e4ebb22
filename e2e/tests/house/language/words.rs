//! Words and phrases to avoid, and what to write instead. Add to the list what a review finds twice.

/// Lower case, words separated by one space. A phrase is found across line breaks, not across punctuation.
pub(super) const AVOIDED: [(&str, &str); 26] = [
    ("nobody", "name the actor: no client, no node, no test"),
    (
        "somebody",
        "name the actor: a client, a user, another function",
    ),
    (
        "whoever",
        "name the actor: the client that …, the user who …",
    ),
    ("whomever", "name the actor"),
    ("everybody", "name the actors: all clients, all nodes"),
    ("anybody", "name the actor: any client, any user"),
    ("for ever", "forever, indefinitely, until …"),
    ("of ours", "our own, Selvage's"),
    ("is told", "receives, is notified of, reads"),
    ("are told", "receive, are notified of, read"),
    ("was told", "received, was notified of"),
    ("were told", "received, were notified of"),
    ("be told", "receive, be notified of"),
    ("been told", "received, been notified of"),
    ("in vain", "without success, fails"),
    ("spoke of", "mentioned, reported"),
    ("speaks of", "mentions, reports"),
    ("no more", "no longer"),
    ("on trial", "is the candidate, is being evaluated"),
    ("becomes of", "happens to"),
    ("wish", "the desired revision"),
    ("wishes", "desired revisions, requests"),
    ("wished", "desired, requested"),
    ("hears", "receives"),
    ("hear", "receive"),
    ("for want of", "because … is missing"),
];

/// Where a word stays: file, phrase (`*` for all), reason. An entry that allows nothing fails the test.
pub(super) const ALLOWED: [(&str, &str, &str); 2] = [
    ("e2e/tests/house/language/words.rs", "*", "the list itself"),
    (
        "e2e/tests/house/language/mod.rs",
        "*",
        "examples in the tests of this check",
    ),
];
