//! Measures the speed of parity: `cargo run --release --example parity -- FILE [PERCENT]` reads the file as a
//! bundle in volumes of 64 MiB, writes its parity beside it, and prints the time of one core.

use std::fs::File;
use std::path::PathBuf;
use std::time::Instant;

use trivy_ferry::bundle::parity::{Shape, encode};
use trivy_ferry::digest::Digest;
use trivy_ferry::progress::{Progress, Silent};

const VOLUME: u64 = 64 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = PathBuf::from(args.next().ok_or("usage: parity FILE [PERCENT]")?);
    let percent = args.next().as_deref().unwrap_or("10%").parse()?;
    let file = File::open(&path)?;
    let length = file.metadata()?.len();
    // All volumes have the same bytes, which is sufficient for a measurement.
    let count = length / VOLUME;
    let shape = Shape::new(vec![VOLUME; usize::try_from(count)?], percent)?;
    let data = vec![&file; usize::try_from(count)?];
    let beside = path.with_extension("par");
    let parity = File::options().read(true).write(true).create(true).truncate(true).open(&beside)?;
    let began = Instant::now();
    let step = Silent.begin("", 0, "");
    encode(&shape, Digest::of(b"x"), &data, &[(0..shape.parity(), &parity)], &*step)?;
    let took = began.elapsed().as_secs_f64();
    std::fs::remove_file(beside)?;
    let bytes = (count * VOLUME) as f64;
    println!(
        "{} shards of {} bytes, {} of parity: {took:.2} s, {:.2} GB/s",
        shape.data(),
        shape.shard(),
        shape.parity(),
        bytes / took / 1e9
    );
    Ok(())
}
