//! A small Monte Carlo simulation of the sequential test: few runs with fixed seeds, so that a violated guarantee
//! fails the tests. `cargo run -p bench --release -- monte-carlo` makes as many runs as the required bounds need.

use bench::monte_carlo::{Effort, Property, Row, lines, measure};

fn small(property: Property, divisor: u32) -> Vec<Row> {
    let effort = Effort {
        divisor,
        threads: 2,
        seed: 7,
    };
    measure(property, effort)
}

fn all_bars_are_met(rows: &[Row]) {
    assert!(!rows.is_empty());
    assert!(rows.iter().all(|row| row.ok), "\n{}", lines(rows));
}

#[test]
fn m1_the_mean_factor_of_a_look_is_at_most_one() {
    all_bars_are_met(&small(Property::M1, 1));
}

#[test]
fn m2_no_change_is_not_rolled_back() {
    all_bars_are_met(&small(Property::M2, 20));
}

#[test]
fn m3_exactly_at_the_tolerance_is_rarely_rolled_back() {
    all_bars_are_met(&small(Property::M3, 80));
}

#[test]
fn m8_a_dead_candidate_is_found_at_once() {
    all_bars_are_met(&small(Property::M8, 1));
}

#[test]
fn m12_a_good_candidate_is_promoted_in_time() {
    all_bars_are_met(&small(Property::M12, 50));
}

#[test]
fn m13_a_dead_candidate_is_rolled_back_within_seconds() {
    all_bars_are_met(&small(Property::M13, 40));
}

#[test]
fn m17_one_request_a_minute_decides_nothing_in_a_day() {
    all_bars_are_met(&small(Property::M17, 100));
}
