//! Pseudorandom bytes and choices that are the same in every run.

use std::fs::File;
use std::io::Read;

/// A xorshift64 generator. Not for secrets.
#[derive(Debug, Clone)]
pub struct Noise(u64);

impl Noise {
    /// Returns the generator of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Noise {
        Noise(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Returns the generator of [`seed`].
    #[must_use]
    pub fn seeded() -> Noise {
        Noise::new(seed())
    }

    /// Returns the next 64 bits.
    #[allow(clippy::should_implement_trait)] // It never ends, and an iterator would make each use longer.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Returns a number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }

    /// Returns bytes that do not compress.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

/// Returns the seed of this run: 1, `TRIVY_FERRY_SEED`, or a random one in a nightly run. It is printed, so that a
/// failure can be reproduced.
///
/// # Panics
/// If `TRIVY_FERRY_SEED` is not a number.
#[must_use]
pub fn seed() -> u64 {
    let given = std::env::var("TRIVY_FERRY_SEED").ok().map(|seed| seed.parse().unwrap());
    let drawn = || {
        let mut bytes = [0; 4];
        File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
        u64::from(u32::from_le_bytes(bytes))
    };
    let seed = given.unwrap_or_else(|| if crate::nightly() { drawn() } else { 1 });
    println!("TRIVY_FERRY_SEED={seed}");
    seed
}
