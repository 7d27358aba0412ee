//! Compares two sides that were measured in turn: the median of the pairs' ratios, and how sure of it one can be.

/// Times that the interval is drawn from.
const RESAMPLES: usize = 2000;

/// How a side compares to the one that it is measured against, the base.
#[derive(Debug, Clone, Copy)]
pub struct Comparison {
    /// Medians, in the unit of what was measured.
    pub base: f64,
    /// As `base`, of the other side.
    pub side: f64,
    /// The median of the pairs' ratios, side to base.
    pub ratio: f64,
    /// Where 95 % of the medians of resampled pairs lie.
    pub interval: (f64, f64),
}

impl Comparison {
    /// Of pairs of base and side that were measured close in time: at least one.
    ///
    /// # Panics
    ///
    /// Without a pair.
    #[must_use]
    pub fn of(pairs: &[(f64, f64)]) -> Self {
        let ratios: Vec<f64> = pairs.iter().map(|(base, side)| side / base).collect();
        // The same choices in every run: the interval differs only where the times do.
        let mut random = fastrand::Rng::with_seed(1);
        let mut medians: Vec<f64> =
            (0..RESAMPLES).map(|_| median(ratios.iter().map(|_| ratios[random.usize(..ratios.len())]))).collect();
        medians.sort_by(f64::total_cmp);
        Self {
            base: median(pairs.iter().map(|(base, _)| *base)),
            side: median(pairs.iter().map(|(_, side)| *side)),
            ratio: median(ratios.iter().copied()),
            interval: (medians[RESAMPLES / 40], medians[RESAMPLES - 1 - RESAMPLES / 40]),
        }
    }
}

/// The middle one of some values: at least one.
///
/// # Panics
///
/// Without a value.
#[must_use]
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// How a number compares to its goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is only reported.
    NoGoal,
    /// All of the interval is at most the goal.
    Met,
    /// All of the interval is above the goal.
    Missed,
    /// The goal lies inside of the interval.
    Undecided,
}

impl Verdict {
    /// A number that lies between `low` and `high`, and is to be `goal` at most.
    #[must_use]
    pub fn of(goal: Option<f64>, (low, high): (f64, f64)) -> Self {
        match goal {
            None => Self::NoGoal,
            Some(goal) if low > goal => Self::Missed,
            Some(goal) if high <= goal => Self::Met,
            Some(_) => Self::Undecided,
        }
    }

    /// A word for it; none where there is no goal.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoGoal => "",
            Self::Met => "met",
            Self::Missed => "missed",
            Self::Undecided => "undecided",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_around_the_median() {
        let pairs: Vec<_> = (0..101).map(|at| (100.0, 110.0 + f64::from(at % 11))).collect();
        let comparison = Comparison::of(&pairs);
        assert_eq!((comparison.base, comparison.side, comparison.ratio), (100.0, 115.0, 1.15));
        let (low, high) = comparison.interval;
        assert!((1.12..=1.15).contains(&low) && (1.15..=1.18).contains(&high), "{low} to {high}");
    }

    #[test]
    fn only_what_lies_above_the_goal_misses_it() {
        assert_eq!(Verdict::of(Some(1.05), (1.06, 1.10)), Verdict::Missed);
        assert_eq!(Verdict::of(Some(1.05), (1.04, 1.10)), Verdict::Undecided);
        assert_eq!(Verdict::of(Some(1.05), (0.90, 1.05)), Verdict::Met);
        assert_eq!(Verdict::of(None, (2.0, 3.0)), Verdict::NoGoal);
    }
}
