//! For tests only: how many random cases a property has, and from which seed. `test_kit` knows both.

use proptest::test_runner::{Config, RngSeed};

/// How many times more cases a nightly run has.
const NIGHTLY: u32 = 20;

/// Returns how often something is repeated that a test repeats `usual` times.
pub(crate) fn rounds(usual: u32) -> u32 {
    let rounds = test_kit::runs(usual.into(), (usual * NIGHTLY).into());
    rounds.try_into().unwrap_or(u32::MAX)
}

/// Returns the configuration of a property with so many cases.
pub(crate) fn cases(usual: u32) -> Config {
    let rng_seed = RngSeed::Fixed(test_kit::noise::seed());
    Config { cases: rounds(usual), rng_seed, ..Config::default() }
}
