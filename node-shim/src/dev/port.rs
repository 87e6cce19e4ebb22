//! The port of `dev`. It is bound before the first build, which may last for minutes, so that a port in use is reported at
//! once. It refuses connections until something is served. Until then, another program can still listen on it; `dev` then
//! ends with an error instead of serving.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};

use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// Binds the first of the addresses that can be bound, without listening.
///
/// # Errors
/// Returns the error of the last address, or that the name has none.
pub(super) fn bind(address: &str) -> io::Result<TcpListener> {
    let mut bound = Err(io::Error::other("the name has no address"));
    for address in address.to_socket_addrs()? {
        bound = bind_one(address);
        if bound.is_ok() {
            break;
        }
    }
    bound
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // as std does: connections of a former process may still be closing
    set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn a_port_that_is_bound_refuses_connections_until_it_listens() {
        for address in ["127.0.0.1:0", "localhost:0"] {
            let port = bind(address).unwrap();
            let address = port.local_addr().unwrap();
            let refused = TcpStream::connect(address).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            rustix::net::listen(&port, 1).unwrap();
            assert!(TcpStream::connect(address).is_ok());
            let used = bind(&address.to_string()).unwrap_err();
            assert_eq!(used.kind(), io::ErrorKind::AddrInUse);
        }
    }
}
