//! Random histories: whatever happens in whatever order, these things hold after every decision.

use std::collections::BTreeMap;

use operator_core::function::Verb;
use operator_core::rollout::*;
use proptest::prelude::{ProptestConfig, any, proptest};

use crate::ops::*;
use crate::world::*;

/// What nodes were ever told under a pair.
type Told = BTreeMap<FencingToken, Share>;

struct Checked {
    world: World,
    told: Told,
    /// The last pair that enough nodes had acknowledged.
    acked: Option<FencingToken>,
}

impl Checked {
    fn tick(&mut self) {
        let before = self.world.state.clone();
        let evidence = self.world.evidence();
        let decision = self.world.tick();
        check(&self.world, &before, &evidence, &decision);
        let looks = |s: &RolloutState| s.rollout.as_ref().map_or(0, |r| r.step_looks);
        if looks(&decision.state) > looks(&before) {
            assert_eq!(
                self.acked,
                Some(before.pair),
                "counted before this share was acknowledged"
            );
        }
        let nodes = &evidence.nodes;
        if nodes.pair == decision.state.pair
            && nodes.live > 0
            && nodes.applied * 100 >= nodes.live * 95
        {
            self.acked = Some(nodes.pair);
        }
        for share in [Some(shares(&decision.state)), decision.hint]
            .into_iter()
            .flatten()
        {
            let known = self.told.entry(share.pair).or_insert_with(|| share.clone());
            assert!(
                known.same_effect(&share),
                "one pair for two shares: {known:?} {share:?}"
            );
        }
        self.world.highest = self
            .told
            .keys()
            .next_back()
            .copied()
            .filter(|_| self.world.live > 0);
        self.world.promoted.clone_from(
            &self
                .world
                .persisted
                .stable
                .as_ref()
                .map(|s| s.revision.clone()),
        );
    }

    fn apply(&mut self, op: &Op) {
        let w = &mut self.world;
        match op {
            Op::Wake(times) => {
                for _ in 0..*times {
                    let w = &mut self.world;
                    if let Some(wake) = w.last.as_ref().and_then(|d| d.wake_at) {
                        w.now = w.now.max(
                            wake.min(
                                w.now
                                    .saturating_add(std::time::Duration::from_secs(4000))
                                    .unwrap(),
                            ),
                        );
                    }
                    self.tick();
                }
                return;
            }
            Op::Jump(seconds) => {
                w.now = w
                    .now
                    .saturating_add(jiff::SignedDuration::from_secs(*seconds))
                    .unwrap();
            }
            Op::Say(n) => w.say = says(*n),
            Op::Wish(n) => w.wish(NAMES[usize::from(*n)]),
            Op::Unknown(0) => w.unknown(),
            Op::Unknown(1) => w.refused(),
            Op::Unknown(_) => w.abandoned(),
            Op::Verb(verb, name, token) => {
                // mostly about what is going on
                let wished = w
                    .function
                    .wish
                    .as_ref()
                    .map(|r| r.name.clone())
                    .unwrap_or_default();
                let revision = NAMES
                    .get(usize::from(*name))
                    .map_or(wished, |n| format!("checkout-{n}"));
                let value = match token {
                    0 => revision,
                    1 => format!("{revision}/step-0"),
                    2 => format!("{revision}/step-1"),
                    n => format!("{revision}/{n}"),
                };
                w.verb(Verb::ALL[usize::from(*verb)], &value);
            }
            Op::Nodes(live, able, failing) => {
                w.live = u32::from(*live).min(w.desired);
                w.able = u32::from(*able).min(w.live);
                w.failing = u32::from(*failing).min(w.live - w.able);
            }
            Op::Acking(acking) => w.acking = *acking,
            Op::Suspend(suspend) => w.function.suspend = *suspend,
            Op::Slot(slot) => w.slot = *slot,
            Op::Restart(seconds) => {
                w.state = w.persisted.clone();
                w.epoch += 1;
                w.now = w
                    .now
                    .saturating_add(jiff::SignedDuration::from_secs(*seconds))
                    .unwrap();
            }
            Op::CrashBeforeWrite => {
                let decision = decide(w.now, &w.function, &w.state, &w.evidence());
                if let Some(hint) = decision.hint {
                    let effect = self.told.entry(hint.pair).or_insert_with(|| hint.clone());
                    assert!(effect.same_effect(&hint));
                }
                w.state = w.persisted.clone();
                w.epoch += 1;
            }
            Op::Conflict => w.state = w.persisted.clone(),
            Op::Policy(n) => {
                w.function.policy = policies(*n);
                w.function.generation += 1;
            }
            Op::Lost => {
                w.state = RolloutState::default();
                w.persisted = RolloutState::default();
                w.epoch += 1;
            }
        }
        self.tick();
    }
}

/// Verbs that had their effect in this very decision.
fn done(before: &RolloutState, after: &RolloutState, verbs: &[Verb]) -> bool {
    after.verbs.iter().any(|v| {
        verbs.contains(&v.verb) && v.result == VerbResult::Done && !before.verbs.contains(v)
    })
}

fn check(w: &World, before: &RolloutState, evidence: &Evidence, decision: &Decision) {
    let after = &decision.state;
    let (old, new) = (shares(before), shares(after));
    let kinds: Vec<_> = decision.transitions.iter().map(|t| t.kind).collect();
    let good = matches!(&evidence.measured, Measured::Look(l) if l.verdict == Verdict::Good);
    let bad =
        matches!(&evidence.measured, Measured::Look(l) if matches!(l.verdict, Verdict::Bad { .. }));
    let measured = matches!(&evidence.measured, Measured::Look(_));
    let by_verb = done(before, after, &[Verb::Promote, Verb::PromoteFull]);

    // P1 and style (1): a share rises only by a good look, the first share, time, or a person
    let same = old.candidate == new.candidate && old.stable == new.stable && old.stable.is_some();
    if same && new.weight > old.weight {
        let first = matches!(before.state, State::Loading | State::Queued);
        let time = before
            .rollout
            .as_ref()
            .and_then(|r| r.plan.steps.get(r.step))
            .map(|s| s.advance)
            == Some(Advance::Time);
        assert!(
            good || first || time || by_verb,
            "raised without a reason: {kinds:?}"
        );
        let r = before.rollout.as_ref().unwrap();
        let paused = r.flags.paused.is_some() && !done(before, after, &[Verb::Resume]);
        assert!(!paused && !w.function.suspend, "raised in spite of a flag");
        assert!(
            evidence.nodes.live > 0 || by_verb,
            "raised where nobody listens"
        );
        assert!(before.state.is_live(), "a raise follows written state");
        let hold = r.flags.hold.as_ref().map(|h| h.reason);
        let held = hold.is_some_and(|h| h != HoldReason::DeadlineExceeded);
        let over =
            kinds.contains(&TransitionKind::Resumed) || kinds.contains(&TransitionKind::Unpaused);
        assert!(!held || over || by_verb, "raised under {hold:?}: {kinds:?}");
        if !first && !by_verb {
            assert!(
                r.acked_at.is_some() && r.step_looks + u32::from(measured) >= 2,
                "a raise needs two looks"
            );
            assert!(
                r.plan
                    .nodes
                    .min_loaded
                    .reached(evidence.nodes.applied, evidence.nodes.live)
            );
        }
    }
    // while it is not known which revision spec asks for nothing rises, and what it no longer asks for gets nothing
    if w.function.wish.is_none() {
        let abandoned = w.function.abandoned.is_some();
        assert!(!same || new.weight <= old.weight, "raised: {kinds:?}");
        assert!(
            !done(
                before,
                after,
                &[Verb::Retry, Verb::Promote, Verb::PromoteFull]
            ),
            "a raise by a person"
        );
        assert!(abandoned || !kinds.contains(&TransitionKind::Abandoned));
        let candidate = before.rollout.as_ref().map(|r| &r.candidate.revision.name);
        if abandoned && candidate == w.function.abandoned.as_ref() && old.stable.is_some() {
            assert_eq!((new.weight, &new.stable), (Weight::ZERO, &old.stable));
        }
    }
    // style (2), P4: what becomes stable is what was on trial to the end, digest and all
    let stable = |s: &RolloutState| s.stable.as_ref().map(|s| s.revision.clone());
    if stable(before) != stable(after) && !kinds.contains(&TransitionKind::StateLost) {
        let r = before.rollout.as_ref();
        let proved = r
            .filter(|_| before.stable.is_some())
            .map(|r| r.candidate.revision.clone());
        let first = || r.map(|r| r.candidate.revision.clone());
        let candidate = proved.or_else(|| w.function.wish.clone()).or_else(first);
        assert_eq!(stable(after), candidate);
        assert!(
            before.stable.is_none() || before.state == State::Baking,
            "promoted from {:?}",
            before.state
        );
        let nodes = &evidence.nodes;
        assert!(
            by_verb
                || nodes.live > 0 && nodes.applied * 100 >= nodes.live * 95
                || before.stable.is_none(),
            "promoted while nodes are behind"
        );
        assert!(!bad || before.stable.is_none(), "promoted with a bad look");
    }
    // style (7), P3: bad is back at stable now, whatever else is going on
    if bad && before.state.is_exposed() {
        assert_eq!(
            (new.weight, new.stable.clone()),
            (Weight::ZERO, old.stable.clone()),
            "bad and still served: {kinds:?}"
        );
    }
    if matches!(before.state, State::RolledBack) && after.rejected.is_none() {
        let wished = w.function.wish.as_ref().map(|x| &x.name);
        let rejected = before.rejected.as_ref().map(|x| &x.revision.name);
        let lost = kinds.contains(&TransitionKind::StateLost);
        assert!(
            wished != rejected || done(before, after, &[Verb::Retry]) || lost,
            "undone by nobody: {kinds:?}"
        );
    }
    // P2: what is missing holds
    if matches!(evidence.measured, Measured::Unavailable { .. }) && same && !by_verb {
        let time = before
            .rollout
            .as_ref()
            .is_some_and(|r| r.plan.steps.iter().any(|s| s.advance == Advance::Time));
        assert!(
            new.weight <= old.weight
                || time
                    && before
                        .rollout
                        .as_ref()
                        .is_some_and(|r| r.flags.unmeasured.is_none())
        );
    }
    for kind in &kinds {
        let wanted = before
            .rollout
            .as_ref()
            .is_some_and(|r| r.plan.analysis.on_unknown == Fallback::Rollback);
        assert!(
            *kind != TransitionKind::UnknownRollback || wanted,
            "rolled back for missing data"
        );
    }
    // style (6): looks from before the acknowledgement move nothing
    if let (Some(a), Some(b)) = (&before.rollout, &after.rollout)
        && b.step_looks > a.step_looks
    {
        assert!(
            measured && a.acked_at.is_some(),
            "counted a look from before the acknowledgement"
        );
        assert_eq!(b.step_looks, a.step_looks + 1);
    }
    // P6: what can come back stays loaded
    if let Some(previous) = &after.previous {
        assert_eq!(new.previous.as_ref(), Some(&previous.revision.name));
    }
    // P8: transitions are numbered without gaps, and each has its line in the table
    let lost = kinds.contains(&TransitionKind::StateLost);
    let first = decision.transitions.first().map_or(0, |t| t.number);
    assert!(
        first == before.transitions + 1 || lost && first > before.transitions || kinds.is_empty()
    );
    let numbers: Vec<u64> = decision.transitions.iter().map(|t| t.number).collect();
    assert_eq!(
        numbers,
        (first..first + numbers.len() as u64).collect::<Vec<_>>()
    );
    assert!(decision.transitions.is_empty() || decision.persist);
    // no two candidates, no candidate that is stable
    assert!(new.candidate.is_none() || new.candidate != new.stable);
    // sentences and conditions exist for whatever there is
    let text = message(w.now, &w.function, after);
    assert!(!text.is_empty() && !text.contains("  "), "{text:?}");
    let all = conditions(&w.function, after, None, &text);
    let status = |kind| all.iter().find(|c| c.kind == kind).map(|c| c.status);
    let trio = [
        ConditionType::Ready,
        ConditionType::Reconciling,
        ConditionType::Stalled,
    ]
    .map(status);
    assert_eq!(
        trio.iter().filter(|s| **s == Some(true)).count(),
        1,
        "exactly one of the three: {all:?}"
    );
}

/// When everything is well again, every history ends at rest, with the wish served or rejected.
fn settles(c: &mut Checked) {
    {
        let w = &mut c.world;
        (w.live, w.able, w.failing, w.acking, w.slot) = (4, 4, 0, true, true);
        w.function.suspend = false;
        w.say = Say::Good;
        w.function.verbs.clear();
        if w.function.wish.is_none() {
            w.wish("a");
        }
    }
    for round in 0..4000 {
        c.tick();
        let w = &mut c.world;
        let Some(r) = w.state.rollout.clone() else {
            break;
        };
        assert!(round < 3999, "never settles: {:#?}", w.state);
        let name = r.candidate.revision.name.clone();
        if r.flags.paused.is_some() || r.flags.brake.is_some_and(|b| b.until_verb) {
            w.verb(Verb::Resume, &format!("{name}/again-{round}"));
        }
        if r.flags.waiting_for.contains(&WaitingFor::Approval) {
            w.verb(Verb::Approve, &format!("{name}/again-{round}"));
        }
        w.now = w
            .last
            .as_ref()
            .and_then(|d| d.wake_at)
            .unwrap_or(w.now)
            .max(w.now);
    }
    let s = &c.world.state;
    let wish = c.world.function.wish.as_ref().map(|w| &w.name);
    let served = s.stable.as_ref().map(|x| &x.revision.name) == wish;
    let rejected = s.rejected.as_ref().map(|x| &x.revision.name) == wish;
    assert!(served != rejected, "wish {wish:?}: {s:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    /// FC-5, FC-6, FC-10, FC-17, HK-9, FF-4: crashes, conflicts, lost status, clock jumps, edits and verbs in any
    /// order.
    #[test]
    fn any_history_keeps_the_promises(start in 0_u8..6, promoted in any::<bool>(), ops in ops()) {
        let mut c = Checked { world: World::new(policies(start)), told: Told::new(), acked: None };
        c.tick();
        if promoted {
            // from here a wish for `a` is a way back
            c.apply(&Op::Wish(1));
            for verb in [Verb::PromoteFull, Verb::Promote] {
                c.world.verb(verb, "checkout-b/at-once");
                c.tick();
                c.tick();
            }
        }
        for op in &ops {
            c.apply(op);
        }
        settles(&mut c);
    }
}
