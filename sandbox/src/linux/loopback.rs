//! Turns on the loopback interface of a new network namespace, so that tests can listen on 127.0.0.1.

use std::io;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// `lo` is the first interface of each network namespace.
const LOOPBACK_INDEX: i32 = 1;
const RTM_NEWLINK: u16 = 16;
/// NLM_F_REQUEST and NLM_F_ACK.
const REQUEST_ACKNOWLEDGED: u16 = 1 | 4;
const IFF_UP: u32 = 1;

pub(super) fn turn_on() -> io::Result<()> {
    // Protocol 0 of this family is NETLINK_ROUTE.
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    // A header (nlmsghdr: length, type, flags, sequence, port) and a body (ifinfomsg: family, type, index, flags, change mask).
    let mut request = Vec::with_capacity(32);
    request.extend(32_u32.to_ne_bytes());
    request.extend(RTM_NEWLINK.to_ne_bytes());
    request.extend(REQUEST_ACKNOWLEDGED.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([0; 4]);
    request.extend(LOOPBACK_INDEX.to_ne_bytes());
    request.extend(IFF_UP.to_ne_bytes());
    request.extend(IFF_UP.to_ne_bytes());
    rustix::net::send(&socket, &request, SendFlags::empty())?;
    let mut answer = [0; 256];
    let (received, _) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty())?;
    // The body of the answer (nlmsgerr) starts with a negative error number, or 0.
    let code = answer[..received].get(16..20).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()).map(i32::from_ne_bytes);
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
