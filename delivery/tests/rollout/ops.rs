//! Operations of a random history.

use delivery::rollout::*;
use proptest::prelude::{Just, any, prop, prop_oneof};
use proptest::strategy::Strategy as Gen;

use crate::world::*;

#[derive(Clone, Debug)]
pub enum Op {
    /// Advances to `wake_at` and decides, this many times.
    Wake(u8),
    /// Advances the clock or sets it back, in seconds.
    Jump(i64),
    Scenario(u8),
    SetDesired(u8),
    /// Makes the desired revision unknown: not resolved, not accepted, or certainly not the candidate.
    Unknown(u8),
    Annotate(u8, u8, u8),
    Nodes(u8, u8, u8),
    Acking(bool),
    Suspend(bool),
    Slot(bool),
    /// The leader crashes; its successor starts after this many seconds.
    Restart(i64),
    /// The leader crashes after it decided and sent the hint, before it wrote.
    CrashBeforeWrite,
    /// Another leader wrote first: decide again from the written state.
    Conflict,
    Policy(u8),
    Lost,
}

pub fn ops() -> impl Gen<Value = Vec<Op>> {
    let op = prop_oneof![
        30 => (1_u8..12).prop_map(Op::Wake),
        4 => prop_oneof![0_i64..90, -7200_i64..7200].prop_map(Op::Jump),
        16 => (0_u8..18).prop_map(Op::Scenario),
        4 => (0_u8..4).prop_map(Op::SetDesired),
        3 => (0_u8..3).prop_map(Op::Unknown),
        10 => (0_u8..7, 0_u8..12, 0_u8..5).prop_map(|(v, r, t)| Op::Annotate(v, r, t)),
        2 => (0_u8..5, 0_u8..5, 0_u8..3).prop_map(|(l, a, f)| Op::Nodes(l, a, f)),
        4 => Just(Op::Nodes(4, 4, 0)),
        2 => any::<bool>().prop_map(Op::Acking),
        2 => any::<bool>().prop_map(Op::Suspend),
        2 => any::<bool>().prop_map(Op::Slot),
        2 => (1_i64..900).prop_map(Op::Restart),
        2 => Just(Op::CrashBeforeWrite),
        2 => Just(Op::Conflict),
        2 => (0_u8..6).prop_map(Op::Policy),
        1 => Just(Op::Lost),
    ];
    prop::collection::vec(op, 1..60)
}

pub const NAMES: [&str; 4] = ["a", "b", "c", "d"];

pub fn policies(n: u8) -> Policy {
    let mut p = policy();
    match n {
        1 => p.strategy = Strategy::AllAtOnce,
        2 => {
            p.analysis.on_unknown = Fallback::Rollback;
            p.nodes.on_load_deadline = Fallback::Rollback;
            p.steps[0].on_deadline = Fallback::Rollback;
        }
        3 => {
            p.gates = vec![
                Gate {
                    name: "m".into(),
                    at: GateAt::Step,
                },
                Gate {
                    name: "s".into(),
                    at: GateAt::Start,
                },
            ];
            p.steps[0].gates = vec!["m".into()];
        }
        4 => {
            p.steps[0].advance = Advance::Time;
            p.steps[0].weight = StepWeight::Auto;
            p.bake.holdback = Holdback::Auto;
        }
        5 => {
            p.strategy = Strategy::AllAtOnce;
            p.bake.holdback = Holdback::Fixed(Weight::ZERO);
        }
        _ => (),
    }
    p
}

pub fn scenario(n: u8) -> Scenario {
    match n {
        0..=4 | 14.. => Scenario::Good,
        5 | 6 => Scenario::NotEnough,
        7 => Scenario::Bad("ErrorsWorse"),
        8 => Scenario::Backstop,
        9 => Scenario::Shared,
        10 => Scenario::NoTraffic,
        11 => Scenario::Mismatch,
        12 => Scenario::Outage,
        13 => Scenario::Empty,
    }
}
