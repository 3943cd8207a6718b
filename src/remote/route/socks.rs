//! A connection through a SOCKS 5 proxy (RFC 1928), with or without a login (RFC 1929).

use std::io;
use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::remote::error::PROXY_LOGIN;

const VERSION: u8 = 5;
const NO_LOGIN: u8 = 0;
const PASSWORD: u8 = 2;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Makes the proxy connect to a host. The proxy resolves its name.
pub(crate) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    io: &mut S,
    host: &str,
    port: u16,
    login: Option<&(String, String)>,
) -> io::Result<()> {
    let method = if login.is_some() { PASSWORD } else { NO_LOGIN };
    send(io, &[VERSION, 1, method]).await?;
    let [version, chosen] = receive(io).await?;
    if version != VERSION {
        return Err(io::Error::other("the proxy does not support SOCKS 5"));
    }
    if chosen != method {
        return Err(io::Error::other(PROXY_LOGIN));
    }
    if let Some((name, password)) = login {
        let mut message = vec![1];
        append(&mut message, name)?;
        append(&mut message, password)?;
        send(io, &message).await?;
        let [_, status] = receive(io).await?;
        if status != 0 {
            return Err(io::Error::other(PROXY_LOGIN));
        }
    }
    let mut message = vec![VERSION, CONNECT, 0];
    match host.parse() {
        Ok(IpAddr::V4(address)) => {
            message.push(IPV4);
            message.extend(address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            message.push(IPV6);
            message.extend(address.octets());
        }
        Err(_) => {
            message.push(NAME);
            append(&mut message, host)?;
        }
    }
    message.extend(port.to_be_bytes());
    send(io, &message).await?;
    let [_, status, _, kind] = receive(io).await?;
    if status != 0 {
        return Err(refusal(status));
    }
    // Skip the address that the proxy connected from.
    let length = match kind {
        IPV4 => 4,
        IPV6 => 16,
        NAME => {
            let [length] = receive(io).await?;
            usize::from(length)
        }
        _ => return Err(io::Error::other("the answer of the proxy is not SOCKS 5")),
    };
    io.read_exact(&mut vec![0; length + 2]).await?;
    Ok(())
}

fn append(message: &mut Vec<u8>, text: &str) -> io::Result<()> {
    let length = u8::try_from(text.len());
    let length = length.map_err(|_| io::Error::other("a name or password is too long for SOCKS 5"))?;
    message.push(length);
    message.extend(text.as_bytes());
    Ok(())
}

async fn send<S: AsyncWrite + Unpin>(io: &mut S, message: &[u8]) -> io::Result<()> {
    io.write_all(message).await?;
    io.flush().await
}

async fn receive<S: AsyncRead + Unpin, const N: usize>(io: &mut S) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    io.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Converts the status of a failed connection.
fn refusal(status: u8) -> io::Error {
    let said = match status {
        2 => "the proxy's rules forbid it",
        3 => "the proxy cannot reach the network of the host",
        4 => "the proxy cannot reach it",
        5 => "it refused the connection of the proxy",
        6 => "it did not answer the proxy in time",
        _ => "the proxy could not connect to it",
    };
    io::Error::other(said)
}
