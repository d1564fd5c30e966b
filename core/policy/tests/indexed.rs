//! The form for many questions against the one that is read, on random clusters.

use clusters::{Dice, cluster, sample};
use policy::{Judge, Overlay, evaluate};

#[test]
fn decide_is_evaluate_without_what_was_considered() {
    let (mut steps, mut silent) = (0, 0);
    for seed in 0..300 {
        let mut dice = Dice::new(seed);
        let mut view = cluster(&mut dice);
        if dice.one_in(2) {
            view.overlay = Overlay::Tunnelled;
        }
        let judge = Judge::new(&view);
        let packets = sample(&mut dice, 60);
        // The second time round everything is remembered.
        for packet in packets.iter().chain(&packets) {
            let mut want = evaluate(&view, packet);
            want.steps.iter_mut().for_each(|step| step.considered.clear());
            assert_eq!(judge.decide(packet), want, "seed {seed}, {packet:?}");
            steps += want.steps.len();
            silent += want.steps.iter().filter(|s| s.reason == policy::Reason::Undecided).count();
        }
    }
    assert!(steps > 10_000 && silent > 100, "{steps} steps, {silent} of them undecided");
}
