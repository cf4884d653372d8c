//! What a trial with one sender has found, beside what is refused of the others.

use super::*;

/// A trial in which so much of the one passed and was refused; the control may cost 290.
fn alone(passed: u32, refused: u32, control: Control) -> Alone {
    let mut trial = Trial::of(1, 0.1, Timestamp(0));
    for n in 0..passed + refused {
        let _ = trial.note(n < refused, Timestamp(i64::from(n)));
    }
    let (lane, most) = (Pace::default(), None);
    Alone { trial, closed: false, control: Some(control), lane, most, over: true }
}

fn control(before: f64, seen: u32, refused: u32) -> Control {
    Control { before, seen, refused, most: 290 }
}

#[test]
fn a_control_that_has_cost_enough_is_judged_by_what_there_is() {
    // One of eight of it, and five of six of the others: that is no chance, though eight are few.
    assert_eq!(alone(7, 1, control(0.67, 290, 245)).is_over(), Some(Found::Fewer));
    // As much as of the others.
    assert_eq!(alone(4, 4, control(0.67, 290, 145)).is_over(), Some(Found::Same));
    // The others are not refused any more either: something else has ended.
    assert_eq!(alone(8, 0, control(0.67, 600, 30)).is_over(), Some(Found::Same));
    // Its own pace is so slow that little is known of it: twice as much is allowed.
    assert_eq!(alone(5, 0, control(0.67, 300, 240)).is_over(), None);
    assert_eq!(alone(5, 0, control(0.67, 580, 480)).is_over(), Some(Found::Same));
    assert_eq!(alone(7, 1, control(0.67, 289, 245)).is_over(), None, "it goes on");
}

/// Where hardly anything was refused of the others before, they count when the lane was let go on beyond its pace.
#[test]
fn others_that_are_refused_because_the_lane_was_let_go_on_are_a_control() {
    let of = |passed, refused| alone(passed, refused, control(0.0, 40, 30)).trial;
    assert_eq!(control(0.0, 40, 30).judges(&of(10, 0)), Found::Fewer);
    assert_eq!(control(0.0, 40, 30).judges(&of(3, 0)), Found::Open, "a few attempts say little");
    assert_eq!(control(0.0, 40, 30).judges(&of(2, 8)), Found::Same);
    // What it costs are refusals, as those who pass lose nothing.
    assert!(!control(0.0, 5000, 289).is_over(1) && control(0.0, 5000, 290).is_over(1));
    assert!(control(0.5, 290, 0).is_over(1) && !control(0.5, 290, 0).is_over(2));
}
