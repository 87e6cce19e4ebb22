//! How the native code of a component keeps accesses inside of its linear memory, and a trial that finds the faster way.
//!
//! Guard pages cost nothing per access, but the kernel has to open pages whenever a memory grows, and to close them before
//! the next guest: about 10 µs for each request of a guest that grows its memory. Explicit checks need no system call, but
//! make computation slower: measured at 15 to 50 % for interpreters. So code starts with guard pages. If its guests
//! are short and most of them grow, explicit checks are tried, and kept only if the guests take less CPU time with them.

use std::time::Duration;

/// Number of guests whose CPU time is averaged.
const WINDOW: u32 = 1_024;
/// Number of windows before each decision. The fastest one counts: other work on the machine makes guests slower, never
/// faster.
const WINDOWS: u32 = 8;
/// Number of guests that are measured before each decision.
pub const GUESTS: u32 = WINDOW * WINDOWS;
/// CPU time of a guest, with what the node does for it, above which explicit checks are not used: computation dominates.
pub const SHORT: Duration = Duration::from_micros(100);
/// CPU time as which a longer guest counts, so that a few of them do not decide.
const MAX_COUNTED: Duration = Duration::from_micros(400);

/// How native code keeps accesses inside of a linear memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BoundsChecks {
    /// Inaccessible pages after the memory.
    #[default]
    GuardPages,
    /// A comparison before each access.
    Explicit,
}

/// Trial of explicit checks for one component.
#[derive(Debug, Default)]
pub struct BoundsTrial {
    stage: Stage,
    measured: Measured,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Guard pages; explicit checks may become worth a trial.
    #[default]
    Guarded,
    /// Code with explicit checks is being prepared. Carries the time of a guest with guard pages.
    Changing(Duration),
    /// The first guests with explicit checks, for which memory is mapped.
    WarmingUp(Duration),
    /// Explicit checks whose guests are measured.
    OnTrial(Duration),
    /// Explicit checks that were faster.
    Kept,
    /// What runs now stays.
    Over,
}

/// The guests since the last decision.
#[derive(Debug, Default)]
struct Measured {
    guests: u32,
    grew: u32,
    /// CPU time of the guests of the present window.
    used: Duration,
    /// Mean of the fastest window.
    fastest: Option<Duration>,
}

impl Measured {
    /// Returns the mean of the fastest window when all windows are complete.
    fn add(&mut self, used: Duration, grew: bool) -> Option<Duration> {
        self.guests += 1;
        self.grew += u32::from(grew);
        self.used += used.min(MAX_COUNTED);
        if self.guests.is_multiple_of(WINDOW) {
            let mean = std::mem::take(&mut self.used) / WINDOW;
            self.fastest = Some(self.fastest.map_or(mean, |fastest| fastest.min(mean)));
        }
        self.fastest.filter(|_| self.guests >= GUESTS)
    }
}

impl BoundsTrial {
    /// Counts a guest that had an instance of its own: its CPU time, and whether its memory grew. Returns the checks with
    /// which code has to be prepared now; the caller answers with [`changed`](Self::changed) or [`give_up`](Self::give_up).
    pub fn record(&mut self, used: Duration, grew: bool) -> Option<BoundsChecks> {
        if matches!(self.stage, Stage::Changing(_) | Stage::Over) {
            return None;
        }
        let mean = self.measured.add(used, grew)?;
        let most_grow = self.measured.grew > GUESTS / 2;
        self.measured = Measured::default();
        match self.stage {
            Stage::Guarded if mean < SHORT && most_grow => {
                self.stage = Stage::Changing(mean);
                return Some(BoundsChecks::Explicit);
            }
            Stage::WarmingUp(before) => self.stage = Stage::OnTrial(before),
            Stage::OnTrial(before) if mean < before => self.stage = Stage::Kept,
            Stage::Kept if mean < SHORT => {}
            Stage::OnTrial(_) | Stage::Kept => {
                self.stage = Stage::Over;
                return Some(BoundsChecks::GuardPages);
            }
            Stage::Guarded | Stage::Changing(_) | Stage::Over => {}
        }
        None
    }

    /// Takes note that requests run the code with explicit checks from now on. Returns false when that code is not wanted any
    /// longer, because the trial has started again since it was asked for.
    #[must_use]
    pub fn changed(&mut self) -> bool {
        let Stage::Changing(before) = self.stage else {
            return false;
        };
        self.stage = Stage::WarmingUp(before);
        true
    }

    /// Ends the trial: the other code cannot be had.
    pub fn give_up(&mut self) {
        self.stage = Stage::Over;
    }

    /// Takes note that requests run code with guard pages again because it was mapped again.
    pub fn restart(&mut self) {
        if self.stage != Stage::Over {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    /// Records guests until a decision, at most four times as many as one takes.
    fn until_decided(trial: &mut BoundsTrial, used: Duration, grew: bool) -> Option<BoundsChecks> {
        (0..4 * GUESTS).find_map(|_| trial.record(used, grew))
    }

    fn tried(before: Duration) -> BoundsTrial {
        let mut trial = BoundsTrial::default();
        let decided = until_decided(&mut trial, before, true);
        assert_eq!(decided, Some(BoundsChecks::Explicit));
        assert!(trial.changed());
        trial
    }

    #[test]
    fn explicit_checks_are_tried_for_short_guests_that_grow() {
        for (used, grew, tried) in [
            (us(50), true, true),
            (us(99), true, true),
            (us(100), true, false),
            (us(50), false, false),
        ] {
            let mut trial = BoundsTrial::default();
            let decided = until_decided(&mut trial, used, grew);
            assert_eq!(decided.is_some(), tried, "{used:?} {grew}");
        }
    }

    #[test]
    fn nothing_is_decided_early_or_while_code_is_prepared() {
        let mut trial = BoundsTrial::default();
        for _ in 1..GUESTS {
            assert_eq!(trial.record(us(50), true), None);
        }
        assert!(trial.record(us(50), true).is_some());
        assert_eq!(until_decided(&mut trial, us(50), true), None);
    }

    #[test]
    fn explicit_checks_stay_while_guests_are_short() {
        let mut trial = tried(us(50));
        assert_eq!(until_decided(&mut trial, us(49), true), None);
        assert_eq!(until_decided(&mut trial, us(99), true), None);
        let decided = until_decided(&mut trial, us(100), true);
        assert_eq!(decided, Some(BoundsChecks::GuardPages));
        assert_eq!(until_decided(&mut trial, us(10), true), None);
    }

    #[test]
    fn explicit_checks_that_are_not_faster_are_given_up_for_good() {
        let mut trial = tried(us(50));
        let decided = until_decided(&mut trial, us(50), true);
        assert_eq!(decided, Some(BoundsChecks::GuardPages));
        assert_eq!(until_decided(&mut trial, us(10), true), None);
    }

    /// The first guests with the other code map its memory, and do not count.
    #[test]
    fn the_first_guests_are_for_warming_up() {
        let mut trial = tried(us(50));
        for _ in 0..GUESTS {
            assert_eq!(trial.record(us(300), true), None);
        }
        assert_eq!(until_decided(&mut trial, us(40), true), None);
    }

    /// A machine with other work: most windows are slow, in one order or the other.
    #[test]
    fn the_fastest_window_counts() {
        let mut trial = BoundsTrial::default();
        let busy = |guest: u32, fast: u64| us(if guest / WINDOW == 3 { fast } else { 90 });
        let decided = (0..GUESTS).find_map(|guest| trial.record(busy(guest, 50), true));
        assert_eq!(decided, Some(BoundsChecks::Explicit));
        let mut trial = tried(us(50));
        for round in 0..3 {
            let decided = (0..GUESTS).find_map(|guest| trial.record(busy(guest, 45), true));
            assert_eq!(decided, None, "{round}");
        }
    }

    #[test]
    fn a_few_long_guests_do_not_decide() {
        let mut trial = BoundsTrial::default();
        let used = |guest: u32| {
            if guest.is_multiple_of(100) {
                us(1_000_000)
            } else {
                us(50)
            }
        };
        let decided = (0..GUESTS).find_map(|guest| trial.record(used(guest), true));
        assert_eq!(decided, Some(BoundsChecks::Explicit));
    }

    #[test]
    fn code_that_is_mapped_again_is_measured_again() {
        let mut trial = tried(us(50));
        trial.restart();
        assert!(!trial.changed());
        let decided = until_decided(&mut trial, us(50), true);
        assert_eq!(decided, Some(BoundsChecks::Explicit));
        trial.give_up();
        trial.restart();
        assert_eq!(until_decided(&mut trial, us(50), true), None);
    }
}
