use std::time::Duration;

use delivery::rollout::{BakePolicy, Fallback, Holdback, Policy, Step, StepWeight, Weight};
use jiff::{SignedDuration, Timestamp};

use super::play::{Outcome, Play, Setup, first_start, play};
use super::recording::{Recording, write};
use super::repeat::repeat;
use super::settings::Manifest;
use super::timeline::{Timeline, Versions};
use super::{json as data, report, svg};
use crate::text::Paint;
use crate::view::Style;

const STYLE: Style = Style {
    paint: Paint { on: false },
    width: 120,
    now: Timestamp::UNIX_EPOCH,
};

/// Steps of 10 % and 50 %, and a bake of a minute.
fn setup() -> Setup {
    let steps = [10, 50].map(|percent| Step {
        weight: StepWeight::Fixed(Weight::percent(percent)),
        ..Step::default()
    });
    Setup {
        namespace: "shop".into(),
        name: "checkout".into(),
        policy: Policy {
            steps: steps.to_vec(),
            bake: BakePolicy {
                duration: Duration::from_secs(60),
                holdback: Holdback::Auto,
            },
            ..Policy::default()
        },
        seed: 1,
    }
}

/// Revision, and the number of its failures in an interval.
type Version<'a> = (&'a str, &'a dyn Fn(u32) -> Option<u64>);

/// CSV with intervals of 15 s and 3000 requests to each revision, of which the given number fails. Intervals without a number
/// are left out.
fn csv(intervals: u32, revisions: &[Version<'_>]) -> String {
    let mut text = "time,revision,requests,failures,le_0.005,le_0.02,le_+Inf\n".to_owned();
    for index in 0..intervals {
        for (revision, failures) in revisions {
            if let Some(failures) = failures(index) {
                let at = 1_800_000_000 + 15 * index;
                text += &format!("{at},{revision},3000,{failures},2000,2900,3000\n");
            }
        }
    }
    text
}

fn timeline(text: &str, candidate: Option<&str>, earlier: u64) -> Result<Timeline, String> {
    let versions = Versions {
        stable: "v1".into(),
        candidate: candidate.map(Into::into),
        earlier: Duration::from_secs(earlier),
    };
    Timeline::new(&Recording::parse(text)?, versions, None)
}

fn played(text: &str) -> (Timeline, Play) {
    let timeline = timeline(text, Some("v2"), 0).unwrap();
    let play = play(&timeline, &setup(), first_start(&timeline), true);
    (timeline, play)
}

#[test]
fn both_forms_of_a_file_are_the_same_recording() {
    let table = "# of the shop\ntime,process,revision,requests,failures,client_errors,le_0.005,le_0.02\n\
         2027-01-15T08:00:00Z, a, v1, 100, 2, 3, 70, 90\n1800000015,a,v1,0,0,0,0,0\n";
    let lines = r#"{"time":"2027-01-15T08:00:00Z","process":"a","revision":"v1","requests":100,"failures":2,"clientErrors":3,"latency":{"0.005":70,"0.02":90}}
        {"time":1800000015,"process":"a","revision":"v1","requests":0,"failures":0,"latency":{"0.005":0}}"#;
    let recording = Recording::parse(table).unwrap();
    assert_eq!(recording, Recording::parse(lines).unwrap());
    let tally = recording.rows[0].tally;
    assert_eq!(
        (tally.requests, tally.errors, tally.client_errors),
        (100, 2, 3)
    );
    // the rest took longer than 20 ms
    assert_eq!(
        (tally.latency.count(), tally.latency.slower_than(12)),
        (100, 10)
    );
    let written = write(&recording.rows);
    assert_eq!(Recording::parse(&written).unwrap(), recording, "{written}");
}

#[test]
fn what_is_wrong_with_a_recording_is_named_with_its_line() {
    let head = "time,revision,requests,failures";
    for (text, expected) in [
        ("", "the recording is empty"),
        (head, "the recording has no rows"),
        ("time,revision,requests\n", "no column failures"),
        (
            "time,revision,requests,failures,p99\n",
            "\"p99\" is unknown",
        ),
        (&format!("{head},le_x\n"), "\"x\" is not a bound"),
        (&format!("{head}\n1,v1,5\n"), "line 2: it has 3 cells"),
        (
            &format!("{head}\nnoon,v1,5,0\n"),
            "line 2: \"noon\" is not a time",
        ),
        (
            &format!("{head}\n1,v1,-5,0\n"),
            "line 2: \"-5\" is not a number",
        ),
        (&format!("{head}\n1,,5,0\n"), "line 2: it names no revision"),
        (&format!("{head}\n1,v1,5,6\n"), "line 2: 6 requests failed"),
        (
            &format!("{head},le_0.007\n1,v1,5,0,5\n"),
            "line 2: the latencies are wrong: a histogram has an unknown bucket bound",
        ),
        (
            &format!("{head}\n1,v1,5,0\n1,v1,5,0\n"),
            "two rows have the time",
        ),
        (
            r#"{"time":1,"revision":"v1","requests":1}"#,
            "line 1: missing field",
        ),
    ] {
        let error = Recording::parse(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn a_version_like_stable_is_promoted_and_the_last_line_says_after_what() {
    let text = csv(400, &[("v1", &|_| Some(6)), ("v2", &|_| Some(6))]);
    let (timeline, play) = played(&text);
    assert_eq!(play.outcome, Outcome::Promoted);
    let weights: Vec<u32> = play.decisions.iter().map(|it| it.weight.parts()).collect();
    assert_eq!(weights.first(), Some(&0));
    assert_eq!(weights.last(), Some(&10_000));
    assert!(weights.is_sorted(), "{weights:?}");
    let lines = report::play(&timeline, &play, 1, STYLE);
    let last = format!(
        "v2 would have become stable after {} requests ({} to the candidate) and {} s.",
        play.requests,
        play.candidate_requests,
        play.took().as_secs()
    );
    assert_eq!(lines.last(), Some(&last));
    assert!(play.candidate_requests > 0 && play.candidate_requests < play.requests);
    // the same seed is the same play, and another one chooses other requests
    assert_eq!(played(&text).1.requests, play.requests);
    let other = super::play::play(
        &timeline,
        &Setup { seed: 2, ..setup() },
        first_start(&timeline),
        false,
    );
    assert_ne!(other.requests, play.requests);
}

#[test]
fn a_failing_version_is_rolled_back_in_the_words_of_the_operator() {
    let text = csv(400, &[("v1", &|_| Some(6)), ("v2", &|_| Some(600))]);
    let (timeline, play) = played(&text);
    let reason = "ErrorsWorse".to_owned();
    assert_eq!(play.outcome, Outcome::RolledBack { reason });
    assert!(
        play.message.starts_with("rolled back from 10 %"),
        "{}",
        play.message
    );
    assert!(play.ln_evidence.is_some_and(|ln| ln >= play.ln_limit));
    let lines = report::play(&timeline, &play, 1, STYLE).join("\n");
    assert!(
        lines.contains("v2 would have been rolled back (ErrorsWorse) after"),
        "{lines}"
    );
    let object = data::play(&timeline, &play, 1);
    assert_eq!(object["outcome"], "RolledBack");
    assert_eq!(
        object["points"].as_array().map(Vec::len),
        Some(play.points.len())
    );
}

#[test]
fn when_the_data_ends_first_it_is_said_where_the_rollout_would_be() {
    let text = csv(60, &[("v1", &|_| Some(6)), ("v2", &|_| Some(6))]);
    let mut slow = setup();
    slow.policy.steps[0].min_duration = Duration::from_secs(3_600);
    let timeline = timeline(&text, Some("v2"), 0).unwrap();
    let play = play(&timeline, &slow, first_start(&timeline), false);
    let last = report::summary(&play);
    assert!(last.starts_with("The data ends after "), "{last}");
    assert!(
        last.contains("; the rollout would be at 10 %, evidence "),
        "{last}"
    );
    assert!(last.ends_with(", limit 100 to 1."), "{last}");
}

/// Without rows nothing is measured: the weight waits, and the result names the gap.
#[test]
fn a_gap_is_named_and_is_not_evidence() {
    let present = |index: u32| !(42..142).contains(&index);
    let rows = |index: u32| present(index).then_some(6);
    let text = csv(400, &[("v1", &rows), ("v2", &rows)]);
    let (timeline, play) = played(&text);
    let [gap] = &play.gaps[..] else {
        panic!("{:?}", play.gaps)
    };
    let length = gap.to.duration_since(gap.from);
    assert_eq!(length, SignedDuration::from_secs(15 * 101));
    let during = |at: Timestamp| at > gap.from && at < gap.to;
    let held = play.decisions.iter().filter(|it| during(it.at));
    let reasons: Vec<_> = held.map(|it| it.reason).collect();
    assert_eq!(reasons, ["Held"], "{:?}", play.decisions);
    let lines = report::play(&timeline, &play, 1, STYLE).join("\n");
    assert!(
        lines.contains("The recording has 1 gap, in which nothing was measured: "),
        "{lines}"
    );
}

#[test]
fn versions_that_were_served_one_after_the_other_need_an_earlier_time_of_stable() {
    let before = |index: u32| (index < 200).then_some(6);
    let after = |index: u32| (index >= 200).then_some(6);
    let text = csv(400, &[("v1", &before), ("v2", &after)]);
    let error = timeline(&text, Some("v2"), 0).unwrap_err();
    assert!(error.contains("--stable-earlier 24h"), "{error}");
    let timeline = timeline(&text, Some("v2"), 200 * 15).unwrap();
    let play = play(&timeline, &setup(), first_start(&timeline), false);
    assert_eq!(play.outcome, Outcome::Promoted);
    // each version has all requests, so everything could be played
    assert!(play.requests > play.served / 100 * 95, "{play:?}");
    let lines = report::play(&timeline, &play, 1, STYLE).join("\n");
    assert!(
        lines.contains("are 3000 s older than those of v2"),
        "{lines}"
    );
    let error = super::tests::timeline(&text, Some("v3"), 0).unwrap_err();
    assert_eq!(error, "the recording has no revision v3; it has v1, v2");
}

#[test]
fn a_version_against_itself_is_played_from_many_starts() {
    let text = csv(300, &[("v1", &|index| Some(u64::from(index % 7)))]);
    let timeline = timeline(&text, None, 0).unwrap();
    let mut ticks = 0;
    let found = repeat(
        &timeline,
        &setup(),
        Some(Duration::from_secs(150)),
        |_, _| {
            ticks += 1;
        },
    );
    assert_eq!(found.plays(), ticks);
    assert_eq!((found.plays(), found.rollbacks.len()), (27, 0), "{found:?}");
    assert!(found.promoted > 0 && found.unfinished > 0, "{found:?}");
    let last = report::repeated(&found, 1, STYLE).pop().unwrap();
    assert_eq!(
        last,
        "0 of 27 rollouts of a version that is not different would have been rolled back (0 %); the policy accepts 1 % \
         (analysis.falseRollbacks)."
    );
    assert_eq!(data::repeated(&found, 1)["promoted"], found.promoted);
}

/// The first step needs two minutes of these requests, so a deadline of one minute rolls back every candidate.
#[test]
fn a_policy_that_rolls_back_what_is_not_different_is_found() {
    let text = csv(120, &[("v1", &|_| Some(6))]);
    let timeline = timeline(&text, None, 0).unwrap();
    let every = Some(Duration::from_secs(300));
    let found = repeat(&timeline, &setup(), every, |_, _| {});
    assert!(!found.exceeds(), "{found:?}");
    let mut hasty = setup();
    for step in &mut hasty.policy.steps {
        step.deadline = Duration::from_secs(60);
        step.on_deadline = Fallback::Rollback;
    }
    let found = repeat(&timeline, &hasty, every, |_, _| {});
    assert!(found.exceeds(), "{found:?}");
    assert_eq!(found.rollbacks[0].reason, "DeadlineExceeded");
    let lines = report::repeated(&found, 1, STYLE).join("\n");
    assert!(lines.contains("(DeadlineExceeded)"), "{lines}");
}

#[test]
fn a_picture_shows_the_play_and_names_cannot_leave_their_texts() {
    let text = csv(400, &[("v1", &|_| Some(6)), ("v2", &|_| Some(600))]);
    let (_, mut play) = played(&text);
    play.candidate = "<b>&\"".into();
    let picture = svg::draw(&play, setup().policy.analysis.errors);
    assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
    for title in [
        "Weight of the candidate",
        "Failed requests",
        "Evidence against",
    ] {
        assert!(picture.contains(title), "{title}");
    }
    assert!(picture.contains("&lt;b&gt;&amp;&quot;") && !picture.contains("<b>"));
    assert!(
        !picture.contains("NaN") && !picture.contains("inf"),
        "{picture}"
    );
}

const FUNCTION: &str = "apiVersion: selvage.dev/v1alpha1
kind: EdgeFunction
metadata: { name: checkout, namespace: shop }
spec:
  source: { image: registry.example/checkout:1 }
  routes: [{ hosts: [a.example] }]
  rollout: { policyRef: { name: careful } }
";
const POLICY: &str = "---
apiVersion: selvage.dev/v1alpha1
kind: RolloutPolicy
metadata: { name: careful }
spec: { canary: { steps: [{ weight: 3% }] } }
";

#[test]
fn the_policy_of_a_file_is_that_of_its_function_or_its_only_one() {
    let both = Manifest::parse(&format!("{FUNCTION}{POLICY}---\nkind: ConfigMap\n")).unwrap();
    let found = both.choose(None).unwrap();
    assert_eq!(
        (found.namespace.as_deref(), found.name.as_str()),
        (Some("shop"), "checkout")
    );
    assert_eq!(
        found.policy.steps[0].weight,
        StepWeight::Fixed(Weight::percent(3))
    );
    assert!(
        both.choose(Some("other"))
            .unwrap_err()
            .contains("no EdgeFunction other")
    );
    let alone = Manifest::parse(POLICY)
        .unwrap()
        .choose(Some("cart"))
        .unwrap();
    assert_eq!((alone.name.as_str(), alone.policy.steps.len()), ("cart", 1));
    let missing = Manifest::parse(FUNCTION).unwrap().choose(None).unwrap_err();
    assert!(missing.contains("\"careful\" does not exist"), "{missing}");
}

/// A field with a typing error would leave its default in force, and the play would be of another policy.
#[test]
fn fields_that_do_not_exist_are_refused() {
    let text = POLICY.replace("weight:", "wieght:");
    let error = Manifest::parse(&text).unwrap_err();
    assert_eq!(error, "careful: there is no field spec.canary.steps.wieght");
    let error = Manifest::parse("kind: Secret\n").unwrap_err();
    assert_eq!(error, "there is no EdgeFunction and no RolloutPolicy");
}
