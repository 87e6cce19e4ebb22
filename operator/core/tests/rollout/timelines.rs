//! Whole rollouts as a person would read them.

use crate::world::*;

#[test]
fn good_is_promoted() {
    let mut w = World::new(policy());
    w.run(20);
    w.wish("b");
    w.tick();
    w.say = Say::Good;
    w.run(50);
    w.note();
    w.run(150);
    w.note();
    insta::assert_snapshot!(w.log);
}
