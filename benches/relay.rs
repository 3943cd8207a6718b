//! A TCP relay: a link of known speed, latency and reliability on one machine, for
//! `benches/full-size` and `benches/long-way`.
//!
//! `relay LISTEN TARGET MEGABYTES_PER_SECOND [ROUND_TRIP_MS [CUTS EVERY_MEGABYTES]]`. The rate limits the
//! data from the target. With `ROUND_TRIP_MS`, each connection has the full rate, and bytes are
//! delayed by half of this time in each direction. Without it, all connections share the rate. Each
//! time `EVERY_MEGABYTES` have passed, the connection that transfers the last byte is reset, up to
//! `CUTS` times in total.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The maximum burst after a pause, as the time in which the link transfers its data.
const BURST: Duration = Duration::from_millis(2);

/// A link with a limited rate, and the time when it is free again.
struct Link {
    nanos_per_byte: f64,
    free: Mutex<Instant>,
}

impl Link {
    fn new(nanos_per_byte: f64) -> Arc<Self> {
        Arc::new(Link { nanos_per_byte, free: Mutex::new(Instant::now()) })
    }

    fn pass(&self, bytes: usize) {
        let time = Duration::from_nanos((bytes as f64 * self.nanos_per_byte) as u64);
        let now = Instant::now();
        let until = {
            let Ok(mut free) = self.free.lock() else { return };
            *free = (*free).max(now - BURST) + time;
            *free
        };
        thread::sleep(until.saturating_duration_since(now));
    }
}

/// The positions at which connections are reset.
struct Cuts {
    every: u64,
    left: AtomicU64,
    passed: AtomicU64,
}

impl Cuts {
    /// Whether the connection that transfers these bytes must be reset.
    fn strikes(&self, bytes: usize) -> bool {
        let before = self.passed.fetch_add(bytes as u64, Ordering::Relaxed);
        let crosses = self.every > 0 && before / self.every != (before + bytes as u64) / self.every;
        let less = |left: u64| left.checked_sub(1);
        crosses && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

type Delayed = (Instant, Vec<u8>);

/// Reads at the link's speed, and passes on the data with the time at which its delay ends.
fn take(mut from: TcpStream, to: &Sender<Delayed>, link: Option<&Link>, delay: Duration) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = from.read(&mut buffer)?;
        if let Some(link) = link {
            link.pass(count);
        }
        let piece = buffer[..count].to_vec();
        if to.send((Instant::now() + delay, piece)).is_err() || count == 0 {
            return Ok(());
        }
    }
}

fn give(from: &Receiver<Delayed>, mut to: TcpStream, cuts: Option<&Cuts>) -> io::Result<()> {
    for (moment, piece) in from {
        thread::sleep(moment.saturating_duration_since(Instant::now()));
        if piece.is_empty() || cuts.is_some_and(|cuts| cuts.strikes(piece.len())) {
            if let Some(cuts) = cuts {
                eprintln!("{} bytes have passed", cuts.passed.load(Ordering::Relaxed));
            }
            return to.shutdown(if piece.is_empty() { Shutdown::Write } else { Shutdown::Both });
        }
        to.write_all(&piece)?;
    }
    Ok(())
}

fn one_way(
    from: TcpStream,
    to: TcpStream,
    link: Option<Arc<Link>>,
    delay: Duration,
    cuts: Option<Arc<Cuts>>,
) {
    let (sender, receiver) = channel();
    thread::spawn(move || take(from, &sender, link.as_deref(), delay));
    thread::spawn(move || give(&receiver, to, cuts.as_deref()));
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [listen, target, rate, more @ ..] = args.as_slice() else {
        return Err(
            "usage: relay LISTEN TARGET MEGABYTES_PER_SECOND [ROUND_TRIP_MS [CUTS EVERY_MEGABYTES]]".into()
        );
    };
    let number = |index: usize| more.get(index).map_or(Ok(0), |text: &String| text.parse::<u64>());
    let nanos_per_byte = 1000.0 / rate.parse::<f64>()?;
    let shared = Link::new(nanos_per_byte);
    let (round_trip, cuts, every) = (number(0)?, number(1)?, number(2)? * 1_000_000);
    let delay = Duration::from_millis(round_trip) / 2;
    let cuts = Arc::new(Cuts { every, left: AtomicU64::new(cuts), passed: AtomicU64::new(0) });
    for client in TcpListener::bind(listen)?.incoming() {
        let (client, server) = (client?, TcpStream::connect(target)?);
        client.set_nodelay(true)?;
        let link = if round_trip == 0 { shared.clone() } else { Link::new(nanos_per_byte) };
        let (client_too, server_too) = (client.try_clone()?, server.try_clone()?);
        let cuts = cuts.clone();
        thread::spawn(move || {
            // The time of the handshake.
            thread::sleep(delay * 2);
            one_way(client, server, None, delay, None);
            one_way(server_too, client_too, Some(link), delay, Some(cuts));
        });
    }
    Ok(())
}
