//! A TCP relay of limited speed: a link of a known rate on one machine, for `benches/full-size`.
//!
//! `relay LISTEN TARGET MEGABYTES_PER_SECOND`; all connections share the rate, which holds for
//! what the target sends.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What may pass at once after a pause.
const BURST: Duration = Duration::from_millis(2);

/// A link: the moment from which it is free again.
struct Link {
    nanos_per_byte: f64,
    free: Mutex<Instant>,
}

impl Link {
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

fn copy(mut from: TcpStream, mut to: TcpStream, link: Option<&Link>) -> io::Result<()> {
    let mut buffer = vec![0; 128 << 10];
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return to.shutdown(Shutdown::Write);
        }
        if let Some(link) = link {
            link.pass(count);
        }
        to.write_all(&buffer[..count])?;
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [listen, target, rate] = args.as_slice() else {
        return Err("usage: relay LISTEN TARGET MEGABYTES_PER_SECOND".into());
    };
    let nanos_per_byte = 1000.0 / rate.parse::<f64>()?;
    let link = Arc::new(Link { nanos_per_byte, free: Mutex::new(Instant::now()) });
    for client in TcpListener::bind(listen)?.incoming() {
        let (client, server, link) = (client?, TcpStream::connect(target)?, link.clone());
        let (client_too, server_too) = (client.try_clone()?, server.try_clone()?);
        thread::spawn(move || copy(client, server, None));
        thread::spawn(move || copy(server_too, client_too, Some(&link)));
    }
    Ok(())
}
