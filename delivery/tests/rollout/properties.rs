//! Random histories: properties that hold after every decision, for any order of operations.

use std::collections::BTreeMap;

use delivery::function::Action;
use delivery::rollout::*;
use proptest::prelude::{ProptestConfig, any, proptest};

use crate::ops::*;
use crate::sentences::{word_in_lower_case, word_with_a_capital};
use crate::world::*;

/// The traffic split that was sent with each fencing token.
type SentSplits = BTreeMap<FencingToken, TrafficSplit>;

struct Checked {
    world: World,
    sent: SentSplits,
    /// Last fencing token that enough nodes had acknowledged.
    acked: Option<FencingToken>,
}

impl Checked {
    fn tick(&mut self) {
        let before = self.world.state.clone();
        let input = self.world.input();
        let decision = self.world.tick();
        check(&self.world, &before, &input, &decision);
        let evaluations = |s: &RolloutState| s.rollout.as_ref().map_or(0, |r| r.step_evaluations);
        if evaluations(&decision.state) > evaluations(&before) {
            assert_eq!(
                self.acked,
                Some(before.token),
                "counted before this weight was acknowledged"
            );
        }
        let nodes = &input.nodes;
        if nodes.token == decision.state.token
            && nodes.live > 0
            && nodes.applied * 100 >= nodes.live * 95
        {
            self.acked = Some(nodes.token);
        }
        for split in [Some(traffic_split(&decision.state)), decision.hint]
            .into_iter()
            .flatten()
        {
            let known = self
                .sent
                .entry(split.token)
                .or_insert_with(|| split.clone());
            assert!(
                known.same_effect(&split),
                "one token for two splits: {known:?} {split:?}"
            );
        }
        self.world.highest = self
            .sent
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
            Op::Scenario(n) => w.scenario = scenario(*n),
            Op::SetDesired(n) => w.set_desired(NAMES[usize::from(*n)]),
            Op::Unknown(0) => w.unknown(),
            Op::Unknown(1) => w.refused(),
            Op::Unknown(_) => w.abandoned(),
            Op::Annotate(action, name, token) => {
                // mostly the desired revision
                let desired = w
                    .function
                    .desired
                    .as_ref()
                    .map(|r| r.name.clone())
                    .unwrap_or_default();
                let revision = NAMES
                    .get(usize::from(*name))
                    .map_or(desired, |n| format!("checkout-{n}"));
                let value = match token {
                    0 => revision,
                    1 => format!("{revision}/step-0"),
                    2 => format!("{revision}/step-1"),
                    n => format!("{revision}/{n}"),
                };
                w.annotate(Action::ALL[usize::from(*action)], &value);
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
                let decision = decide(w.now, &w.function, &w.state, &w.input());
                if let Some(hint) = decision.hint {
                    let effect = self.sent.entry(hint.token).or_insert_with(|| hint.clone());
                    assert!(effect.same_effect(&hint));
                }
                w.state = w.persisted.clone();
                w.epoch += 1;
            }
            Op::Conflict => w.state = w.persisted.clone(),
            Op::Policy(n) => {
                w.function.policy = Some(policies(*n));
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

/// Whether one of these actions was carried out in this decision.
fn done(before: &RolloutState, after: &RolloutState, actions: &[Action]) -> bool {
    after.actions.iter().any(|v| {
        actions.contains(&v.action) && v.result == ActionResult::Done && !before.actions.contains(v)
    })
}

fn check(w: &World, before: &RolloutState, input: &DecisionInput, decision: &Decision) {
    let after = &decision.state;
    let (old, new) = (traffic_split(before), traffic_split(after));
    let kinds: Vec<_> = decision.transitions.iter().map(|t| t.kind).collect();
    let good = matches!(&input.measured, Measured::Evaluation(l) if l.verdict == Verdict::Good);
    let bad = matches!(&input.measured, Measured::Evaluation(l) if matches!(l.verdict, Verdict::Bad { .. }));
    let measured = matches!(&input.measured, Measured::Evaluation(_));
    let by_action = done(before, after, &[Action::Promote, Action::PromoteFull]);

    // P1, property (1): a weight rises only by a good evaluation, as the first weight, by time, or by an action
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
            good || first || time || by_action,
            "raised without a reason: {kinds:?}"
        );
        let r = before.rollout.as_ref().unwrap();
        let paused = r.flags.paused.is_some() && !done(before, after, &[Action::Resume]);
        assert!(!paused && !w.function.suspend, "raised in spite of a flag");
        assert!(
            input.nodes.live > 0 || by_action,
            "raised without live nodes"
        );
        assert!(before.state.is_live(), "a raise follows written state");
        let hold = r.flags.hold.as_ref().map(|h| h.reason);
        let held = hold.is_some_and(|h| h != HoldReason::DeadlineExceeded);
        let over =
            kinds.contains(&TransitionKind::Resumed) || kinds.contains(&TransitionKind::Unpaused);
        assert!(
            !held || over || by_action,
            "raised under {hold:?}: {kinds:?}"
        );
        if !first && !by_action {
            assert!(
                r.acked_at.is_some() && r.step_evaluations + u32::from(measured) >= 2,
                "a rise needs two evaluations"
            );
            assert!(
                r.plan
                    .nodes
                    .min_loaded
                    .reached(input.nodes.applied, input.nodes.live)
            );
        }
    }
    // while the desired revision is unknown no weight rises, and an abandoned candidate gets no requests
    if w.function.desired.is_none() {
        let abandoned = w.function.abandoned.is_some();
        assert!(!same || new.weight <= old.weight, "raised: {kinds:?}");
        assert!(
            !done(
                before,
                after,
                &[Action::Retry, Action::Promote, Action::PromoteFull]
            ),
            "a rise by an action"
        );
        assert!(abandoned || !kinds.contains(&TransitionKind::Abandoned));
        let candidate = before.rollout.as_ref().map(|r| &r.candidate.revision.name);
        if abandoned && candidate == w.function.abandoned.as_ref() && old.stable.is_some() {
            assert_eq!((new.weight, &new.stable), (Weight::ZERO, &old.stable));
        }
    }
    // P4, property (2): the revision that becomes stable is the evaluated candidate, including its digest
    let stable = |s: &RolloutState| s.stable.as_ref().map(|s| s.revision.clone());
    if stable(before) != stable(after) && !kinds.contains(&TransitionKind::StateLost) {
        let r = before.rollout.as_ref();
        let proved = r
            .filter(|_| before.stable.is_some())
            .map(|r| r.candidate.revision.clone());
        let first = || r.map(|r| r.candidate.revision.clone());
        let candidate = proved.or_else(|| w.function.desired.clone()).or_else(first);
        assert_eq!(stable(after), candidate);
        assert!(
            before.stable.is_none() || before.state == State::Baking,
            "promoted from {:?}",
            before.state
        );
        let nodes = &input.nodes;
        assert!(
            by_action
                || nodes.live > 0 && nodes.applied * 100 >= nodes.live * 95
                || before.stable.is_none(),
            "promoted while nodes are behind"
        );
        assert!(
            !bad || before.stable.is_none(),
            "promoted with a bad evaluation"
        );
    }
    // P3, property (7): the verdict bad sends all requests to stable at once, in any situation
    if bad && before.state.is_exposed() {
        assert_eq!(
            (new.weight, new.stable.clone()),
            (Weight::ZERO, old.stable.clone()),
            "bad and still served: {kinds:?}"
        );
    }
    if matches!(before.state, State::RolledBack) && after.rejected.is_none() {
        let desired = w.function.desired.as_ref().map(|x| &x.name);
        let rejected = before.rejected.as_ref().map(|x| &x.revision.name);
        let lost = kinds.contains(&TransitionKind::StateLost);
        assert!(
            desired != rejected || done(before, after, &[Action::Retry]) || lost,
            "the rejection ended without a cause: {kinds:?}"
        );
    }
    // P2: missing samples never raise the weight
    if matches!(input.measured, Measured::Unavailable { .. }) && same && !by_action {
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
    // property (6): evaluations from before the acknowledgement do not count
    if let (Some(a), Some(b)) = (&before.rollout, &after.rollout)
        && b.step_evaluations > a.step_evaluations
    {
        assert!(
            measured && a.acked_at.is_some(),
            "counted an evaluation from before the acknowledgement"
        );
        assert_eq!(b.step_evaluations, a.step_evaluations + 1);
    }
    // P6: a revision that can return stays loaded
    if let Some(previous) = &after.previous {
        assert_eq!(new.previous.as_ref(), Some(&previous.revision.name));
    }
    // P8: transitions are numbered without gaps
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
    // the candidate is never the stable revision
    assert!(new.candidate.is_none() || new.candidate != new.stable);
    // every state has a message and conditions
    let text = message(w.now, &w.function, after);
    assert!(!text.is_empty() && !text.contains("  "), "{text:?}");
    assert_eq!(word_in_lower_case(&text), None, "{text:?}");
    assert_eq!(word_with_a_capital(&text), None, "{text:?}");
    let all = conditions(&w.function, after, None, &text);
    let status = |kind| all.iter().find(|c| c.kind == kind).map(|c| c.status);
    let trio = [
        ConditionType::Ready,
        ConditionType::Reconciling,
        ConditionType::Stalled,
    ]
    .map(status);
    assert_eq!(
        trio.iter()
            .filter(|s| **s == Some(ConditionStatus::True))
            .count(),
        1,
        "exactly one of the three: {all:?}"
    );
}

/// Checks that every history ends without a rollout once all faults are gone, with the desired revision served or rejected.
fn settles(c: &mut Checked) {
    {
        let w = &mut c.world;
        (w.live, w.able, w.failing, w.acking, w.slot) = (4, 4, 0, true, true);
        w.function.suspend = false;
        w.scenario = Scenario::Good;
        w.function.actions.clear();
        if w.function.desired.is_none() {
            w.set_desired("a");
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
        if r.flags.paused.is_some() || r.flags.backstop.is_some_and(|b| b.until_action) {
            w.annotate(Action::Resume, &format!("{name}/again-{round}"));
        }
        if r.flags.waiting_for.contains(&WaitingFor::Approval) {
            w.annotate(Action::Approve, &format!("{name}/again-{round}"));
        }
        w.now = w
            .last
            .as_ref()
            .and_then(|d| d.wake_at)
            .unwrap_or(w.now)
            .max(w.now);
    }
    let s = &c.world.state;
    let desired = c.world.function.desired.as_ref().map(|w| &w.name);
    let served = s.stable.as_ref().map(|x| &x.revision.name) == desired;
    let rejected = s.rejected.as_ref().map(|x| &x.revision.name) == desired;
    assert!(served != rejected, "desired {desired:?}: {s:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    /// FC-5, FC-6, FC-10, FC-17, HK-9, FF-4: crashes, conflicts, lost status, clock jumps, edits and actions in any order.
    #[test]
    fn properties_hold_in_any_history(start in 0_u8..6, promoted in any::<bool>(), ops in ops()) {
        let mut c = Checked { world: World::new(policies(start)), sent: SentSplits::new(), acked: None };
        c.tick();
        if promoted {
            // from here the desired revision `a` is a revert
            c.apply(&Op::SetDesired(1));
            for action in [Action::PromoteFull, Action::Promote] {
                c.world.annotate(action, "checkout-b/at-once");
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
