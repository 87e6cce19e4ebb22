//! Evidence that the simulated [`World`] provides: nodes and samples.

use std::time::Duration;

use delivery::rollout::*;

use crate::world::{Scenario, World};

impl World {
    /// Number of nodes ahead of the state: all but `loyal` ones.
    fn ahead(&self) -> u32 {
        let newer = self
            .highest
            .is_some_and(|token| token > hint_token(self.state.token));
        if newer {
            self.live.saturating_sub(self.loyal)
        } else {
            0
        }
    }

    pub fn input(&self) -> DecisionInput {
        let required = required_measurements(self.now, &self.function, &self.state);
        let split = traffic_split(&self.state);
        let names = [&split.stable, &split.candidate, &split.previous];
        let on = |name: &String| RevisionOnNodes {
            revision: name.clone(),
            loaded: if Some(name) == split.candidate.as_ref() {
                self.able.min(self.live)
            } else {
                self.live
            },
            failed: if Some(name) == split.candidate.as_ref() {
                self.failing
            } else {
                0
            },
            problem: (self.able < self.live).then(|| NodeProblem {
                node: "node-17".into(),
                reason: "Unauthorized".into(),
                message: "registry said 401".into(),
            }),
        };
        let desired = self.function.desired.iter().map(|w| &w.name);
        let mut revisions: Vec<_> = names.into_iter().flatten().map(on).collect();
        for name in desired {
            if !revisions.iter().any(|r| r.revision == *name) {
                let loaded = self.able.min(self.live);
                revisions.push(RevisionOnNodes {
                    loaded,
                    failed: self.failing,
                    ..on(name)
                });
            }
        }
        DecisionInput {
            epoch: self.epoch,
            nodes: NodesView {
                desired: self.desired,
                live: self.live,
                revisions,
                token: split.token,
                applied: if self.acking {
                    self.able.min(self.live)
                } else {
                    0
                },
                highest_token: self.highest,
                ahead: self.ahead(),
                returned: self.returned,
            },
            measured: if required.evaluation {
                self.measure()
            } else {
                Measured::NotDue
            },
            slot: self.slot,
            traffic: required.traffic.then_some(Traffic {
                requests_per_second: self.rps,
            }),
            promoted: self.promoted.clone(),
            unsupervised_ttl: Duration::from_secs(600),
        }
    }

    fn measure(&self) -> Measured {
        match self.scenario {
            Scenario::Outage => {
                return Measured::Unavailable {
                    kind: UnmeasuredKind::NoAnswer,
                    message: "connection refused".into(),
                };
            }
            Scenario::Empty => {
                return Measured::Unavailable {
                    kind: UnmeasuredKind::NothingUsable,
                    message: "no series".into(),
                };
            }
            _ => (),
        }
        Measured::Evaluation(Box::new(self.evaluation()))
    }

    pub fn evaluation(&self) -> Evaluation {
        let r = self.rollout();
        let number = r.analysis.as_ref().map_or(0, |a| a.evaluations) + 1;
        let before = self.state.evidence_summary.clone().unwrap_or_default();
        let requests = if self.scenario == Scenario::NoTraffic {
            0
        } else {
            self.requests
        };
        let bad = matches!(self.scenario, Scenario::Bad(_));
        let candidate = RequestCounts {
            requests: before.candidate.requests + requests,
            errors: before.candidate.errors + if bad { requests } else { 0 },
            client_errors: 0,
        };
        let stable = RequestCounts {
            requests: before.stable.requests + 900,
            errors: before.stable.errors + 1,
            client_errors: 0,
        };
        let decisive = bad.then(|| Decisive {
            metric: if self.scenario == Scenario::Bad("SlowerThanStable") {
                "latency/300ms"
            } else {
                "errors"
            }
            .into(),
            evaluation: number,
            at: self.now,
            ln_e: 236_f64.ln(),
            ln_limit: 100_f64.ln(),
            candidate: (11, 11),
            stable: (97, 1),
        });
        let shared = self.scenario == Scenario::Shared;
        Evaluation {
            revision: r.candidate.revision.name.clone(),
            number,
            at: self.now,
            analysis: format!("v1 evaluations={number}"),
            verdict: match self.scenario {
                Scenario::Good => Verdict::Good,
                Scenario::Bad(reason) => Verdict::Bad {
                    reason: reason.into(),
                },
                _ => Verdict::NotEnough,
            },
            backstop: self.scenario == Scenario::Backstop,
            shared_failure: shared.then(|| {
                "both revisions miss the SLO (3.1 % and 3 %, limit 1 %), so the cause is shared"
                    .into()
            }),
            stable_meets_slo: !shared,
            covered: self.covered,
            share_mismatch: (self.scenario == Scenario::Mismatch)
                .then(|| "the candidate has 30 % of requests at a share of 5 %".into()),
            // without traffic, stable gets none either
            stable_health: (requests > 0).then_some(StableHealth::Answering),
            candidate_requests: requests,
            evidence_summary: EvidenceSummary {
                dominant: None,
                stale: None,
                evaluations: number,
                evaluated_at: Some(self.now),
                source: "Prometheus".into(),
                coverage: Some(1.0),
                candidate,
                stable,
                metrics: Vec::new(),
                pass: PassProgress {
                    progress: 0.62,
                    limiting: None,
                    need_requests: Some(150),
                    eta: None,
                },
                power: Vec::new(),
                decisive,
            },
        }
    }
}
