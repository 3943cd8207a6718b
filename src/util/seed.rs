//! The number and the seed of the random cases of a property, for tests only. `test_kit` provides
//! both.

use proptest::test_runner::{Config, RngSeed};

/// The factor by which a nightly run has more cases.
const NIGHTLY: u32 = 20;

/// Returns the number of runs of a test that usually runs `usual` times.
pub(crate) fn rounds(usual: u32) -> u32 {
    let rounds = test_kit::runs(usual.into(), (usual * NIGHTLY).into());
    rounds.try_into().unwrap_or(u32::MAX)
}

/// Returns the configuration of a property that usually has `usual` cases.
pub(crate) fn cases(usual: u32) -> Config {
    let rng_seed = RngSeed::Fixed(test_kit::noise::seed());
    Config { cases: rounds(usual), rng_seed, ..Config::default() }
}
