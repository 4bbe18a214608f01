//! Target `endpoint`: the text of an endpoint.

use std::ffi::OsStr;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::unix::ffi::OsStrExt;

use crate::endpoint::{Endpoint, IpcEndpoint};
use crate::fuzzing::choices::Choices;

/// The bytes are the text, or the part behind the scheme; also an IPC path, and a socket address.
///
/// Invariants: text is refused with an error that quotes it, or is an endpoint that survives being printed and read; such an
/// endpoint can be bound; it can be connected to, or is a wildcard.
pub fn endpoint(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        read(text);
        read(&format!("tcp://{text}"));
        read(&format!("tcp://{text}:80"));
        read(&format!("tcp://[{text}]:80"));
        read(&format!("ipc://{text}"));
    }
    path(data);
    address(data);
}

fn read(text: &str) {
    match text.parse::<Endpoint>() {
        Ok(endpoint) => {
            let printed = endpoint.to_string();
            assert_eq!(printed.parse(), Ok(endpoint.clone()), "{text:?} is printed as {printed:?}");
            assert_eq!(endpoint.check_bindable(), Ok(()), "{text:?}");
            assert_eq!(endpoint.check_connectable().is_err(), endpoint.is_wildcard(), "{text:?}");
        }
        Err(error) => {
            assert!(error.to_string().contains(&format!("{text:?}")), "{error} is about {text:?}");
        }
    }
}

/// A path that was put together by hand: if it can be bound and is text, then it can be printed and read.
fn path(path: &[u8]) {
    let endpoint = Endpoint::Ipc(IpcEndpoint::Path(OsStr::from_bytes(path).into()));
    let printed = endpoint.to_string();
    let refused = endpoint.check_bindable().is_err();
    assert_eq!(refused, path.is_empty() || path.len() > 107 || path.contains(&0));
    // A shield in front of it may make it too long.
    if !refused && path.len() <= 105 && std::str::from_utf8(path).is_ok() {
        let same = printed.parse::<Endpoint>().map(|read| read.to_string());
        assert_eq!(same, Ok(printed));
    }
}

fn address(data: &[u8]) {
    let mut choices = Choices::new(data);
    let port = u16::from_be_bytes(choices.array());
    let scope = u32::from_be_bytes(choices.array());
    let v4 = choices.array::<4>();
    let v6 = Ipv6Addr::from(choices.array::<16>());
    for address in [SocketAddr::from((v4, port)), SocketAddrV6::new(v6, port, 0, scope).into()] {
        let endpoint = Endpoint::Tcp(address.into());
        assert_eq!(endpoint.to_string().parse(), Ok(endpoint), "{address}");
    }
}
