//! Tests only: how many random cases a test runs, and from which seed.
//!
//! Each run has the same cases. With `TRIVY_FERRY_NIGHTLY=1`, the seed is random and printed, and there are
//! more cases. `TRIVY_FERRY_SEED=NUMBER` repeats a run.

use proptest::test_runner::{Config, RngSeed};

/// The seed of every run that no variable changes.
const FIXED: u64 = 20_261_121;
/// How many times more cases a nightly run has.
const NIGHTLY: u32 = 20;

fn is_nightly() -> bool {
    std::env::var("TRIVY_FERRY_NIGHTLY").is_ok_and(|value| value == "1")
}

/// Returns the seed of this run, and prints one that is random.
fn seed() -> u64 {
    match std::env::var("TRIVY_FERRY_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) if is_nightly() => {
            let seed = getrandom::u64().unwrap();
            eprintln!("TRIVY_FERRY_SEED={seed}");
            seed
        }
        Err(_) => FIXED,
    }
}

/// Returns how often something is repeated that a test repeats `usual` times.
pub(crate) fn rounds(usual: u32) -> u32 {
    if is_nightly() { usual * NIGHTLY } else { usual }
}

/// Returns the configuration of a property with so many cases.
pub(crate) fn cases(usual: u32) -> Config {
    Config { cases: rounds(usual), rng_seed: RngSeed::Fixed(seed()), ..Config::default() }
}
