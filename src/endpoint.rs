//! Endpoints: where a socket binds or connects, read from text such as `tcp://127.0.0.1:5555`.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// The longest `ipc` path or abstract name, in bytes: Linux's `sun_path` without the NUL, which ends a path and begins an
/// abstract name. The same on every system, so that what an endpoint is does not depend on the system; one with less room
/// refuses the path in `bind` or `connect`.
const IPC_MAX: usize = 107;

/// The longest host name, in bytes, without a trailing dot (RFC 1035 §2.3.4, less the length octets).
const NAME_MAX: usize = 253;

/// The longest label of a host name, in bytes (RFC 1035 §2.3.4). A longer one can never be resolved.
const LABEL_MAX: usize = 63;

/// The longest interface name, in bytes (`IFNAMSIZ` without the NUL).
const ZONE_MAX: usize = 15;

/// The most digits that a port is written with.
const PORT_DIGITS_MAX: usize = 5;

/// Where a socket binds or connects.
///
/// | text | meaning |
/// | --- | --- |
/// | `tcp://127.0.0.1:5555`, `tcp://[::1]:5555`, `tcp://[fe80::1%eth0]:5555` | an address; IPv6 stands in brackets |
/// | `tcp://host.example:5555`, `tcp://eth0:5555` | a host name; in `bind` also the name of an interface |
/// | `tcp://*:5555`, `tcp://127.0.0.1:*`, `tcp://127.0.0.1:0` | in `bind` only: every interface, any free port |
/// | `ipc:///run/feed`, `ipc://feed` | a Unix-domain socket: an absolute path, or one relative to the working directory |
/// | `ipc://@feed` | an abstract name (Linux) |
/// | `ipc://*` | in `bind` only: a fresh path |
///
/// Reading is stricter than libzmq's: nothing is trimmed, cut to 16 bits or ignored. Text that is read and printed again
/// gives an equal endpoint. Names compare as written, upper case differs from lower case.
///
/// # Errors
///
/// Reading text fails with an [`EndpointError`] that says what is wrong with it.
///
/// # Examples
///
/// ```
/// use sinew::Endpoint;
///
/// let endpoint: Endpoint = "tcp://127.0.0.1:5555".parse()?;
/// assert_eq!(endpoint.to_string(), "tcp://127.0.0.1:5555");
/// assert!(!endpoint.is_wildcard());
/// assert!("tcp://127.0.0.1".parse::<Endpoint>().is_err());
/// # Ok::<(), sinew::EndpointError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// `tcp://host:port`.
    Tcp(TcpEndpoint),
    /// `ipc://path`.
    Ipc(IpcEndpoint),
}

impl Endpoint {
    /// Whether a part is left to `bind` to choose: the host or port of `tcp`, the path of `ipc`.
    ///
    /// `0.0.0.0` and `[::]` are addresses like any other here.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.host == Host::Any || tcp.port == 0,
            Self::Ipc(ipc) => *ipc == IpcEndpoint::Any,
        }
    }

    /// Refuses an `ipc` path or name that was put together by hand and that reading text would have refused.
    pub(crate) fn check_bindable(&self) -> Result<(), EndpointError> {
        match self {
            Self::Tcp(_) => Ok(()),
            Self::Ipc(ipc) => ipc.check(|| self.to_string()),
        }
    }

    /// Refuses what cannot be bound, and each wildcard with its own error.
    pub(crate) fn check_connectable(&self) -> Result<(), EndpointError> {
        let wildcard: fn(String) -> EndpointError = match self {
            Self::Tcp(tcp) if tcp.host == Host::Any => EndpointError::WildcardHostInConnect,
            Self::Tcp(tcp) if tcp.port == 0 => EndpointError::WildcardPortInConnect,
            Self::Ipc(IpcEndpoint::Any) => EndpointError::WildcardPathInConnect,
            Self::Tcp(_) | Self::Ipc(_) => return self.check_bindable(),
        };
        Err(wildcard(self.to_string()))
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        match text.split_once("://") {
            None | Some(("", _)) => Err(EndpointError::MissingScheme(text.into())),
            Some(("tcp" | "ipc", "")) => Err(EndpointError::EmptyAddress(text.into())),
            Some(("tcp", address)) => TcpEndpoint::parse(text, address).map(Self::Tcp),
            Some(("ipc", address)) => IpcEndpoint::parse(text, address).map(Self::Ipc),
            Some(_) => Err(EndpointError::UnknownScheme(text.into())),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(tcp) => tcp.fmt(f),
            Self::Ipc(ipc) => ipc.fmt(f),
        }
    }
}

impl TryFrom<&str> for Endpoint {
    type Error = EndpointError;

    fn try_from(text: &str) -> Result<Self, EndpointError> {
        text.parse()
    }
}

impl TryFrom<String> for Endpoint {
    type Error = EndpointError;

    fn try_from(text: String) -> Result<Self, EndpointError> {
        text.parse()
    }
}

impl TryFrom<&String> for Endpoint {
    type Error = EndpointError;

    fn try_from(text: &String) -> Result<Self, EndpointError> {
        text.parse()
    }
}

impl From<&Endpoint> for Endpoint {
    fn from(endpoint: &Endpoint) -> Self {
        endpoint.clone()
    }
}

/// A host and a port: `tcp://host:port`.
///
/// # Examples
///
/// ```
/// use std::net::SocketAddr;
/// use sinew::{Endpoint, Host, TcpEndpoint};
///
/// let address = SocketAddr::from(([127, 0, 0, 1], 5555));
/// let tcp = TcpEndpoint::from(address);
/// assert_eq!(tcp.host(), &Host::Ip(address.ip()));
/// assert_eq!(tcp.port(), 5555);
/// assert_eq!(Endpoint::Tcp(tcp), "tcp://127.0.0.1:5555".parse()?);
/// # Ok::<(), sinew::EndpointError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TcpEndpoint {
    host: Host,
    port: u16,
}

impl TcpEndpoint {
    /// The host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port; 0 means any free port, and is printed as `*`.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Reads `address`, the part of `text` behind the scheme.
    fn parse(text: &str, address: &str) -> Result<Self, EndpointError> {
        let invalid_host = |reason| EndpointError::InvalidHost { endpoint: text.into(), reason };
        let missing_port = || EndpointError::MissingPort(text.into());

        if address.contains(';') {
            return Err(EndpointError::SourceAddress(text.into()));
        }
        let (host, port) = if let Some(bracketed) = address.strip_prefix('[') {
            let (literal, rest) =
                bracketed.split_once(']').ok_or_else(|| invalid_host("the closing bracket is missing"))?;
            if !rest.is_empty() && !rest.starts_with(':') {
                return Err(invalid_host("only a port can follow the closing bracket"));
            }
            let port = rest.strip_prefix(':').ok_or_else(missing_port)?;
            (Host::parse_literal(literal), port)
        } else {
            let (host, port) = address.rsplit_once(':').ok_or_else(missing_port)?;
            // Without a port, the last group of the address looks like one: try the whole as well.
            if is_ipv6(host) || is_ipv6(address) {
                return Err(EndpointError::UnbracketedIpv6(text.into()));
            }
            (Host::parse(host), port)
        };
        let host = host.map_err(invalid_host)?;
        let port = parse_port(text, port)?;
        Ok(Self { host, port })
    }
}

impl fmt::Display for TcpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            0 => write!(f, "tcp://{}:*", self.host),
            port => write!(f, "tcp://{}:{port}", self.host),
        }
    }
}

/// Keeps the scope id of an IPv6 address as its zone; drops its flow label, which has no text form.
impl From<SocketAddr> for TcpEndpoint {
    fn from(address: SocketAddr) -> Self {
        let port = address.port();
        let host = match address {
            SocketAddr::V6(v6) if v6.scope_id() != 0 => Host::ScopedV6(*v6.ip(), v6.scope_id().to_string()),
            _ => Host::Ip(address.ip()),
        };
        Self { host, port }
    }
}

/// The host of a [`TcpEndpoint`].
///
/// # Examples
///
/// ```
/// use sinew::{Endpoint, Host};
///
/// let Endpoint::Tcp(tcp) = "tcp://eth0.100:5555".parse()? else { unreachable!() };
/// assert_eq!(tcp.host(), &Host::Name("eth0.100".into()));
/// # Ok::<(), sinew::EndpointError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Host {
    /// `*`: every interface.
    Any,
    /// An address; IPv6 is printed in brackets.
    Ip(IpAddr),
    /// An IPv6 address and its zone, `[fe80::1%eth0]`: an interface's name, or its index (above 0, without leading zeros).
    ScopedV6(Ipv6Addr, String),
    /// The name of a host or of an interface, as written; `bind` finds out which.
    Name(String),
}

impl Host {
    /// Reads a host without brackets.
    fn parse(text: &str) -> Result<Self, &'static str> {
        if text == "*" {
            return Ok(Self::Any);
        }
        match text.parse::<Ipv4Addr>() {
            Ok(v4) => Ok(Self::Ip(v4.into())),
            Err(_) => Self::parse_name(text),
        }
    }

    /// Reads what stands in brackets: an address, never a name.
    ///
    /// IPv4 in brackets is superfluous, but libzmq takes it.
    fn parse_literal(text: &str) -> Result<Self, &'static str> {
        match text.split_once('%') {
            None => text.parse().map(Self::Ip).map_err(|_| "there is no IP address in the brackets"),
            Some((address, zone)) => {
                let address = address.parse().map_err(|_| "there is no IPv6 address in front of the zone")?;
                Ok(Self::ScopedV6(address, parse_zone(zone)?))
            }
        }
    }

    fn parse_name(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("it is empty");
        }
        if !text.bytes().all(is_name_byte) {
            return Err("a name has only ASCII letters, digits, '-', '_' and '.'");
        }
        let relative = text.strip_suffix('.').unwrap_or(text);
        if relative.len() > NAME_MAX {
            return Err("the name is longer than 253 bytes");
        }
        if relative.split('.').any(|label| label.is_empty() || label.len() > LABEL_MAX) {
            return Err("a part of the name between dots is empty or longer than 63 bytes");
        }
        // Resolvers read these as IPv4 in the manner of inet_aton: 1.2.3 as 1.2.0.3, 0x7f000001 as 127.0.0.1.
        if relative.split('.').all(is_number) {
            return Err("it is a number, but not an IPv4 address");
        }
        Ok(Self::Name(text.to_owned()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Ip(IpAddr::V4(v4)) => write!(f, "{v4}"),
            Self::Ip(IpAddr::V6(v6)) => write!(f, "[{v6}]"),
            Self::ScopedV6(v6, zone) => write!(f, "[{v6}%{zone}]"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// What host names and interface names are made of. The kernel allows more in an interface name, but `%`, `:`, `;`, `[`, `]`
/// and `*` mean something in an endpoint, and the `@if2` that `ip link` prints is not part of the name.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or(label.strip_prefix("0X"));
    hex.unwrap_or(label).bytes().all(|byte| byte.is_ascii_digit() || hex.is_some() && byte.is_ascii_hexdigit())
}

fn is_ipv6(text: &str) -> bool {
    let address = text.split_once('%').map_or(text, |(address, _)| address);
    address.parse::<Ipv6Addr>().is_ok()
}

fn parse_zone(text: &str) -> Result<String, &'static str> {
    // As in libzmq, a digit begins an index. It also catches RFC 6874's `%25eth0`: nothing is percent-decoded here.
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        let index = text.parse::<u32>().ok().filter(|&index| index > 0);
        return index.map(|index| index.to_string()).ok_or("a zone that begins with a digit is a 32-bit index above 0");
    }
    if text.is_empty() || text.len() > ZONE_MAX || !text.bytes().all(is_name_byte) {
        return Err("a zone has 1 to 15 ASCII letters, digits, '-', '_' and '.'");
    }
    Ok(text.to_owned())
}

fn parse_port(text: &str, port: &str) -> Result<u16, EndpointError> {
    if port == "*" {
        return Ok(0);
    }
    if port.is_empty() {
        return Err(EndpointError::MissingPort(text.into()));
    }
    // More digits because of leading zeros are bad form; without them the number is too large.
    let padded = port.len() > PORT_DIGITS_MAX && port.starts_with('0');
    if padded || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(EndpointError::InvalidPort(text.into()));
    }
    port.parse().map_err(|_| EndpointError::PortOutOfRange(text.into()))
}

/// A Unix-domain socket: `ipc://path`.
///
/// A path or name has 1 to 107 bytes, without a NUL. Reading text checks this at once; `bind` and `connect` check it for
/// one that was put together by hand.
///
/// # Examples
///
/// ```
/// use sinew::{Endpoint, IpcEndpoint};
///
/// let endpoint = Endpoint::Ipc(IpcEndpoint::Path("/run/feed".into()));
/// assert_eq!(endpoint, "ipc:///run/feed".parse()?);
/// assert_eq!(endpoint.to_string(), "ipc:///run/feed");
/// # Ok::<(), sinew::EndpointError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IpcEndpoint {
    /// A path, absolute or relative to the working directory. What is not UTF-8 in it is printed as U+FFFD.
    Path(PathBuf),
    /// `@name`: a name in Linux's abstract namespace, without the `@`.
    Abstract(String),
    /// `*`: a fresh path, chosen by `bind`.
    Any,
}

impl IpcEndpoint {
    /// Reads `address`, the part of `text` behind the scheme.
    fn parse(text: &str, address: &str) -> Result<Self, EndpointError> {
        let ipc = match address.strip_prefix('@') {
            Some(name) => Self::Abstract(name.into()),
            None if address == "*" => Self::Any,
            None => Self::Path(address.into()),
        };
        ipc.check(|| text.into())?;
        Ok(ipc)
    }

    /// Checks what both kinds of name need to fit into a socket address; `endpoint` is for the error.
    fn check(&self, endpoint: impl FnOnce() -> String) -> Result<(), EndpointError> {
        let bytes = match self {
            Self::Path(path) => path.as_os_str().as_encoded_bytes(),
            Self::Abstract(name) => name.as_bytes(),
            Self::Any => return Ok(()),
        };
        let (length, max) = (bytes.len(), IPC_MAX);
        if length == 0 {
            return Err(EndpointError::EmptyPath(endpoint()));
        }
        if bytes.contains(&0) {
            return Err(EndpointError::EmbeddedNul(endpoint()));
        }
        if length > max {
            return Err(EndpointError::PathTooLong { endpoint: endpoint(), length, max });
        }
        Ok(())
    }
}

impl fmt::Display for IpcEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => {
                // `./` in front gives the same file, which can't be taken for an abstract name or for the wildcard.
                let shield = match path.as_os_str().as_encoded_bytes() {
                    b"*" | [b'@', ..] => "./",
                    _ => "",
                };
                write!(f, "ipc://{shield}{}", path.display())
            }
            Self::Abstract(name) => write!(f, "ipc://@{name}"),
            Self::Any => f.write_str("ipc://*"),
        }
    }
}

/// Why text is not an [`Endpoint`], or an endpoint not one to connect to.
///
/// Each variant carries what was refused as text, and each message quotes it.
///
/// # Examples
///
/// ```
/// use sinew::{Endpoint, EndpointError};
///
/// let error = "tcp://localhost:70000".parse::<Endpoint>().unwrap_err();
/// assert!(matches!(error, EndpointError::PortOutOfRange(_)));
/// assert_eq!(error.to_string(), r#"invalid endpoint "tcp://localhost:70000": the port is above 65535"#);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// There is no `://`, or nothing in front of it.
    #[error("invalid endpoint {0:?}: no scheme such as tcp:// or ipc://")]
    MissingScheme(String),
    /// The scheme is neither `tcp` nor `ipc` in lower case.
    #[error("invalid endpoint {0:?}: the scheme is neither tcp nor ipc (in lower case)")]
    UnknownScheme(String),
    /// There is nothing behind the scheme.
    #[error("invalid endpoint {0:?}: nothing follows the scheme")]
    EmptyAddress(String),
    /// A `tcp` endpoint has no port.
    #[error("invalid endpoint {0:?}: the port is missing (tcp://host:port)")]
    MissingPort(String),
    /// The port is neither `*` nor 1 to 5 ASCII digits: letters, a sign, a blank, something behind it.
    #[error("invalid endpoint {0:?}: the port is neither `*` nor 1 to 5 digits")]
    InvalidPort(String),
    /// The port is a number above 65535.
    #[error("invalid endpoint {0:?}: the port is above 65535")]
    PortOutOfRange(String),
    /// The host is neither `*`, an IP address, nor a possible name.
    #[error("invalid endpoint {endpoint:?}: invalid host: {reason}")]
    InvalidHost {
        /// What was refused.
        endpoint: String,
        /// What is wrong with it, for a person to read.
        reason: &'static str,
    },
    /// An IPv6 address stands without brackets, so that its end cannot be told from the port.
    #[error("invalid endpoint {0:?}: an IPv6 address needs brackets (tcp://[::1]:port)")]
    UnbracketedIpv6(String),
    /// libzmq's `tcp://source;host:port`, which is not supported.
    #[error("invalid endpoint {0:?}: a source address in front of `;` is not supported")]
    SourceAddress(String),
    /// The path, or the name behind `@`, is empty.
    #[error("invalid endpoint {0:?}: the path or name is empty")]
    EmptyPath(String),
    /// The path or abstract name does not fit into a socket address.
    #[error("invalid endpoint {endpoint:?}: the path or name has {length} bytes, at most {max} fit")]
    PathTooLong {
        /// What was refused.
        endpoint: String,
        /// The length of the path, or of the name without its `@`, in bytes.
        length: usize,
        /// The longest that fits, in bytes.
        max: usize,
    },
    /// There is a NUL in the path or abstract name.
    #[error("invalid endpoint {0:?}: there is a NUL in the path or name")]
    EmbeddedNul(String),
    /// The host is `*`, which is for `bind` only.
    #[error("cannot connect to {0:?}: the host `*` is for bind only")]
    WildcardHostInConnect(String),
    /// The port is `*` or 0, which is for `bind` only.
    #[error("cannot connect to {0:?}: the port `*` (or 0) is for bind only")]
    WildcardPortInConnect(String),
    /// The endpoint is `ipc://*`, which is for `bind` only.
    #[error("cannot connect to {0:?}: the path `*` is for bind only")]
    WildcardPathInConnect(String),
}

/// For functions that take `impl TryInto<Endpoint>`: an [`Endpoint`] itself converts without fail.
impl From<Infallible> for EndpointError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod tests {
    use std::mem;
    use std::net::SocketAddrV6;

    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Endpoint, EndpointError> {
        text.parse()
    }

    fn tcp(text: &str) -> TcpEndpoint {
        match parse(text) {
            Ok(Endpoint::Tcp(tcp)) => tcp,
            other => panic!("{text:?} gave {other:?}"),
        }
    }

    fn ipc(text: &str) -> IpcEndpoint {
        match parse(text) {
            Ok(Endpoint::Ipc(ipc)) => ipc,
            other => panic!("{text:?} gave {other:?}"),
        }
    }

    fn ip(text: &str) -> Host {
        Host::Ip(text.parse().unwrap())
    }

    fn name(text: &str) -> Host {
        Host::Name(text.to_owned())
    }

    fn scoped(address: &str, zone: &str) -> Host {
        Host::ScopedV6(address.parse().unwrap(), zone.to_owned())
    }

    /// Asserts that each text is refused with the given variant, and that the message quotes the text.
    macro_rules! assert_refused {
        ($pattern:pat => $($text:expr),+ $(,)?) => {$(
            let text: &str = &$text;
            match parse(text) {
                Err(error @ $pattern) => {
                    assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
                }
                other => panic!("{text:?} gave {other:?}, not {}", stringify!($pattern)),
            }
        )+};
    }

    /// Asserts the host and port of each text, and how it is printed if not as it was.
    macro_rules! assert_accepted {
        ($($text:expr $(, $printed:expr)? => $host:expr, $port:expr;)+) => {$({
            let text: &str = &$text;
            let tcp = tcp(text);
            assert_eq!((tcp.host(), tcp.port()), (&$host, $port), "{text}");
            assert_eq!(Some(tcp.to_string().as_str()), [text, $($printed)?].last().copied());
            assert_eq!(parse(&tcp.to_string()), Ok(Endpoint::Tcp(tcp)));
        })+};
    }

    #[test]
    fn every_accepted_tcp_form_is_read_and_printed() {
        let longest_label = "a".repeat(LABEL_MAX);
        let longest_name = [longest_label.as_str(); 4].join(".")[..NAME_MAX].to_owned();
        assert_accepted! {
            "tcp://*:*" => Host::Any, 0;
            "tcp://*:0", "tcp://*:*" => Host::Any, 0;
            "tcp://*:1234" => Host::Any, 1234;
            "tcp://1.2.128.129:123" => ip("1.2.128.129"), 123;
            "tcp://1.2.128.129:0", "tcp://1.2.128.129:*" => ip("1.2.128.129"), 0;
            "tcp://127.0.0.1:00080", "tcp://127.0.0.1:80" => ip("127.0.0.1"), 80;
            "tcp://0.0.0.0:1" => ip("0.0.0.0"), 1;
            "tcp://255.255.255.255:65535" => ip("255.255.255.255"), 65535;
            "tcp://[192.168.1.1]:5555", "tcp://192.168.1.1:5555" => ip("192.168.1.1"), 5555;
            "tcp://[::]:80" => ip("::"), 80;
            "tcp://[1234::1]:*" => ip("1234::1"), 0;
            "tcp://[ABCD:0::1:0:234]:1", "tcp://[abcd::1:0:234]:1" => ip("abcd::1:0:234"), 1;
            "tcp://[::ffff:11.22.33.44]:55" => ip("::ffff:11.22.33.44"), 55;
            "tcp://[3000:4:5::1:234%2]:1111" => scoped("3000:4:5::1:234", "2"), 1111;
            "tcp://[fe80::1%02]:1", "tcp://[fe80::1%2]:1" => scoped("fe80::1", "2"), 1;
            "tcp://[3000:4:5::1:234%eth0]:8080" => scoped("3000:4:5::1:234", "eth0"), 8080;
            "tcp://[fe80::1%eth0.100]:1" => scoped("fe80::1", "eth0.100"), 1;
            "tcp://[::1%lo]:*" => scoped("::1", "lo"), 0;
            "tcp://ip.zeromq.org:1234" => name("ip.zeromq.org"), 1234;
            "tcp://ip.zeromq.org.:1234" => name("ip.zeromq.org."), 1234;
            "tcp://LocalHost:1" => name("LocalHost"), 1;
            "tcp://eth0.100:1" => name("eth0.100"), 1;
            "tcp://wlan-1:*" => name("wlan-1"), 0;
            "tcp://my_service:1" => name("my_service"), 1;
            "tcp://3com.example:1" => name("3com.example"), 1;
            "tcp://1.2.3.four:1" => name("1.2.3.four"), 1;
            format!("tcp://{longest_label}:1") => name(&longest_label), 1;
            format!("tcp://{longest_name}:1") => name(&longest_name), 1;
            format!("tcp://{longest_name}.:1") => name(&format!("{longest_name}.")), 1;
        }
    }

    #[test]
    fn every_accepted_ipc_form_is_read_and_printed() {
        let longest = format!("/{}", "p".repeat(IPC_MAX - 1));
        let table = [
            ("ipc:///tmp/feed", IpcEndpoint::Path("/tmp/feed".into())),
            ("ipc://feed", IpcEndpoint::Path("feed".into())),
            ("ipc://./@feed", IpcEndpoint::Path("./@feed".into())),
            ("ipc://*.sock", IpcEndpoint::Path("*.sock".into())),
            ("ipc:// a b ", IpcEndpoint::Path(" a b ".into())),
            ("ipc://tcp://a", IpcEndpoint::Path("tcp://a".into())),
            ("ipc:///tmp/größe", IpcEndpoint::Path("/tmp/größe".into())),
            ("ipc://@feed", IpcEndpoint::Abstract("feed".into())),
            ("ipc://@@", IpcEndpoint::Abstract("@".into())),
            ("ipc://@*", IpcEndpoint::Abstract("*".into())),
            ("ipc://*", IpcEndpoint::Any),
            (&format!("ipc://{longest}"), IpcEndpoint::Path(longest.clone().into())),
            (&format!("ipc://@{longest}"), IpcEndpoint::Abstract(longest.clone())),
        ];
        for (text, expected) in table {
            assert_eq!(ipc(text), expected);
            assert_eq!(expected.to_string(), text);
        }
    }

    #[test]
    fn a_scheme_is_needed_known_and_lower_case() {
        assert_refused!(EndpointError::MissingScheme(_) =>
            "", "tcp", "tcp:", "tcp:/x", "localhost:80", "://localhost:80",
        );
        assert_refused!(EndpointError::UnknownScheme(_) =>
            "TCP://localhost:80", "Ipc://x", " tcp://localhost:80", "inproc://x",
            "udp://1.2.3.4:5", "http://", "tcp\0://x",
        );
        assert_refused!(EndpointError::EmptyAddress(_) => "tcp://", "ipc://");
    }

    #[test]
    fn a_port_is_needed() {
        assert_refused!(EndpointError::MissingPort(_) =>
            "tcp://localhost", "tcp://localhost:", "tcp://*", "tcp://1.2.3.4", "tcp://[::1]",
            "tcp://[::1]:", "tcp://1.2.128.129]", "tcp://[192.168.1.1:5555]",
            "tcp://[192.168.1.1:*]", "tcp://[ip.zeromq.org:22]",
        );
    }

    #[test]
    fn a_port_is_digits_only() {
        assert_refused!(EndpointError::InvalidPort(_) =>
            "tcp://1.2.3.4:567bad", "tcp://1.2.3.4:bad", "tcp://h:80x", "tcp://h:+80",
            "tcp://h:-1", "tcp://h: 80", "tcp://h:80 ", "tcp://h:80\n", "tcp://h:0x50",
            "tcp://h:**", "tcp://h:http", "tcp://h:80/path", "tcp://h:８０", "tcp://h:000080",
            "tcp://h:000000", "tcp://h:8\u{0}",
        );
    }

    #[test]
    fn a_port_has_16_bits() {
        assert_eq!(tcp("tcp://h:65535").port(), 65535);
        assert_refused!(EndpointError::PortOutOfRange(_) =>
            "tcp://h:65536", "tcp://h:70000", "tcp://h:99999", "tcp://h:100000",
            "tcp://h:18446744073709551696",
        );
    }

    #[test]
    fn ipv6_stands_in_brackets() {
        assert_refused!(EndpointError::UnbracketedIpv6(_) =>
            "tcp://::1", "tcp://:::80", "tcp://::1:80", "tcp://::",
            "tcp://abcd:1234::1:0:234:123", "tcp://3000:4:5::1:234%2:1111",
            "tcp://3000:4:5::1:234%eth0:8080", "tcp://fe80::1%eth0", "tcp://::1:*",
            "tcp://1:2:3:4:5:6:7:8:80",
        );
    }

    #[test]
    fn brackets_are_balanced_and_hold_an_address() {
        assert_refused!(EndpointError::InvalidHost { .. } =>
            "tcp://[1.2.128.129", "tcp://[1.2.128].129:80", "tcp://[192.168.1.1:]5555",
            "tcp://::1]:80", "tcp://1.2.128.129]:80", "tcp://[::1", "tcp://[::1:80",
            "tcp://[abcd:1234::1:]0:234", "tcp://[[::1]]:80", "tcp://[]:80", "tcp://[*]:80",
            "tcp://[::1] :80", "tcp://[::g]:80", "tcp://[1:2:3:4:5:6:7:8:9]:80",
            "tcp://[ip.zeromq.org]:22", "tcp://[ip.zeromq].org:22",
        );
    }

    #[test]
    fn a_zone_is_an_index_or_an_interface_name() {
        assert_refused!(EndpointError::InvalidHost { .. } =>
            "tcp://[::1%]:80", "tcp://[3000:4:5::1:234%0]:80", "tcp://[::1%4294967296]:80",
            "tcp://[::1%25eth0]:80", "tcp://[::1%+1]:80", "tcp://[::1%a%b]:80",
            "tcp://[::1%a b]:80", "tcp://[::1%sixteen-letters-]:80", "tcp://[%eth0]:80",
            "tcp://[1.2.3.4%eth0]:80", "tcp://[ip.zeromq.org%lo0]:4444",
            "tcp://ip.zeromq.org%lo0:4444",
        );
        assert_eq!(tcp("tcp://[::1%4294967295]:80").host(), &scoped("::1", "4294967295"));
        assert_eq!(tcp("tcp://[::1%fifteen-letters]:80").host(), &scoped("::1", "fifteen-letters"));
    }

    #[test]
    fn what_a_resolver_would_take_for_ipv4_is_not_a_name() {
        assert_refused!(EndpointError::InvalidHost { .. } =>
            "tcp://256.0.0.1:80", "tcp://1.2.3:80", "tcp://1.2.3.4.5:80", "tcp://1:80",
            "tcp://127.0.0.01:80", "tcp://1.2.3.4.:80", "tcp://2130706433:80",
            "tcp://0x7f000001:80", "tcp://0X7F.1:80", "tcp://127.0.0.0x1:80",
        );
    }

    #[test]
    fn a_name_is_one_that_can_exist() {
        let long_label = "a".repeat(LABEL_MAX + 1);
        let long_name = format!("{}bb", "a.".repeat(NAME_MAX / 2));
        assert_eq!(long_name.len(), NAME_MAX + 1);
        assert_refused!(EndpointError::InvalidHost { .. } =>
            "tcp://:80", "tcp://.:80", "tcp://..:80", "tcp://a..b:80", "tcp://.a:80",
            "tcp://a..:80", "tcp:// h:80", "tcp://h :80", "tcp://a b:80", "tcp://größe:80",
            "tcp://a/b:80", "tcp://user@h:80", "tcp://veth@if2:80", "tcp://eth0:1:80",
            "tcp://**:80", "tcp://*.example:80", "tcp://h\0:80", "tcp://tcp://h:80",
            format!("tcp://{long_label}:80"), format!("tcp://{long_name}:80"),
        );
    }

    #[test]
    fn a_source_address_is_refused_as_such() {
        assert_refused!(EndpointError::SourceAddress(_) =>
            "tcp://eth1:0;server:5555", "tcp://127.0.0.1:0;localhost:80", "tcp://;",
            "tcp://[::1]:0;[::1]:80",
        );
    }

    #[test]
    fn an_ipc_path_fits_into_a_socket_address() {
        assert_refused!(EndpointError::EmptyPath(_) => "ipc://@");
        assert_refused!(EndpointError::EmbeddedNul(_) =>
            "ipc:///tmp/a\0b", "ipc://\0", "ipc://@a\0b", "ipc://@\0",
        );
        let long = "p".repeat(IPC_MAX + 1);
        assert_refused!(EndpointError::PathTooLong { length: 108, max: 107, .. } =>
            format!("ipc://{long}"), format!("ipc://@{long}"),
            // Bytes count, not characters.
            format!("ipc://{}", "ß".repeat(54)),
        );
    }

    #[test]
    fn a_path_put_together_by_hand_is_checked_before_use() {
        let refused = |ipc: IpcEndpoint| {
            let endpoint = Endpoint::Ipc(ipc);
            let error = endpoint.check_bindable().unwrap_err();
            assert_eq!(endpoint.check_connectable(), Err(error.clone()));
            error
        };
        for name in ["", "a\0b", &"p".repeat(IPC_MAX + 1)] {
            let expected = parse(&format!("ipc://@{name}")).unwrap_err();
            assert_eq!(refused(IpcEndpoint::Abstract(name.into())), expected);
            let error = refused(IpcEndpoint::Path(name.into()));
            assert_eq!(mem::discriminant(&error), mem::discriminant(&expected));
        }
    }

    #[test]
    fn a_path_put_together_by_hand_is_not_printed_as_something_else() {
        for (path, printed) in [("@a", "ipc://./@a"), ("*", "ipc://./*"), ("*a", "ipc://*a")] {
            let endpoint = Endpoint::Ipc(IpcEndpoint::Path(path.into()));
            assert_eq!(endpoint.to_string(), printed);
            assert_eq!(endpoint.check_connectable(), Ok(()));
            assert!(matches!(ipc(printed), IpcEndpoint::Path(_)));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_path_that_is_not_utf8_can_be_printed() {
        use std::os::unix::ffi::OsStringExt;

        let path = std::ffi::OsString::from_vec(b"/tmp/\xff".to_vec());
        let ipc = IpcEndpoint::Path(path.into());
        assert_eq!(ipc.to_string(), "ipc:///tmp/\u{fffd}");
    }

    #[test]
    fn each_wildcard_is_refused_in_connect_with_its_own_error() {
        let refused = |text: &str| {
            let endpoint = parse(text).unwrap();
            assert!(endpoint.is_wildcard(), "{text}");
            let error = endpoint.check_connectable().unwrap_err();
            assert!(error.to_string().contains(&format!("{:?}", endpoint.to_string())), "{error}");
            error
        };
        for text in ["tcp://*:*", "tcp://*:0", "tcp://*:1234"] {
            assert!(matches!(refused(text), EndpointError::WildcardHostInConnect(_)));
        }
        for text in ["tcp://127.0.0.1:*", "tcp://127.0.0.1:0", "tcp://[::1]:*", "tcp://localhost:0"] {
            assert!(matches!(refused(text), EndpointError::WildcardPortInConnect(_)));
        }
        assert!(matches!(refused("ipc://*"), EndpointError::WildcardPathInConnect(_)));

        for text in ["tcp://0.0.0.0:1", "tcp://[::]:1", "tcp://localhost:1", "ipc://a", "ipc://@*", "ipc://./*"] {
            let endpoint = parse(text).unwrap();
            assert!(!endpoint.is_wildcard(), "{text}");
            assert_eq!(endpoint.check_connectable(), Ok(()));
        }
    }

    #[test]
    fn everything_that_converts_into_an_endpoint_gives_one_error_type() {
        fn convert<T: TryInto<Endpoint>>(value: T) -> Result<Endpoint, EndpointError>
        where
            EndpointError: From<T::Error>,
        {
            Ok(value.try_into()?)
        }

        let expected = parse("tcp://127.0.0.1:80").unwrap();
        let text = expected.to_string();
        assert_eq!(convert(text.as_str()).as_ref(), Ok(&expected));
        assert_eq!(convert(&text).as_ref(), Ok(&expected));
        assert_eq!(convert(text).as_ref(), Ok(&expected));
        assert_eq!(convert(&expected).as_ref(), Ok(&expected));
        assert_eq!(convert(expected.clone()).as_ref(), Ok(&expected));
        assert_eq!(convert("80"), Err(EndpointError::MissingScheme("80".into())));
    }

    #[test]
    fn a_socket_address_keeps_its_scope() {
        let address = SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 0, 3);
        let endpoint = TcpEndpoint::from(SocketAddr::from(address));
        assert_eq!(endpoint.host(), &scoped("fe80::1", "3"));
        assert_eq!(endpoint.to_string(), "tcp://[fe80::1%3]:80");
    }

    /// Pieces that mean something in an endpoint, so that random texts come close to the border on both sides.
    fn nearly_an_endpoint() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            r"[\x00*%;:.@/\[\]_ +-]",
            "(:|::1|\\[::1\\]|\\[fe80::1%|127.0.0.1|0x7f|80|65535|65536)",
            "(eth0|a|ß|example.org|://|tcp|ipc)",
            "[a-z0-9.:]{0,4}",
        ];
        let scheme = prop::sample::select(vec!["tcp://", "tcp://", "tcp://", "ipc://", "ipc://@", ""]);
        let port = prop::sample::select(vec!["", ":0", ":*", ":80", ":070"]);
        (scheme, prop::collection::vec(piece, 0..5), port)
            .prop_map(|(scheme, pieces, port)| format!("{scheme}{}{port}", pieces.concat()))
    }

    fn assert_round_trip(text: &str) -> Result<(), TestCaseError> {
        match parse(text) {
            Ok(endpoint) => {
                let printed = endpoint.to_string();
                prop_assert_eq!(parse(&printed), Ok(endpoint.clone()));
                prop_assert_eq!(endpoint.is_wildcard(), endpoint.check_connectable().is_err());
            }
            Err(error) => {
                let quoted = error.to_string().contains(&format!("{text:?}"));
                prop_assert!(quoted, "{}", error);
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_survives_a_round_trip(text in any::<String>()) {
            assert_round_trip(&text)?;
            assert_round_trip(&format!("tcp://{text}"))?;
            assert_round_trip(&format!("tcp://{text}:80"))?;
            assert_round_trip(&format!("ipc://{text}"))?;
        }

        #[test]
        fn text_near_an_endpoint_is_refused_or_survives_a_round_trip(text in nearly_an_endpoint()) {
            assert_round_trip(&text)?;
        }

        #[test]
        fn every_path_is_refused_or_survives_a_round_trip(text in "[@*./a-zß ]{1,120}") {
            let text = format!("ipc://{text}");
            assert_round_trip(&text)?;
            if let Ok(endpoint) = parse(&text) {
                prop_assert_eq!(endpoint.to_string(), text);
            }
        }

        #[test]
        fn every_socket_address_survives_a_round_trip(
            ip in any::<IpAddr>(),
            port in any::<u16>(),
            scope in any::<u32>(),
        ) {
            let mut address = SocketAddr::new(ip, port);
            if let SocketAddr::V6(v6) = &mut address {
                v6.set_scope_id(scope);
            }
            let endpoint = Endpoint::Tcp(address.into());
            prop_assert_eq!(parse(&endpoint.to_string()), Ok(endpoint));
        }

        #[test]
        fn every_port_in_digits_is_read_or_out_of_range(port in 1_u32..200_000) {
            let endpoint = parse(&format!("tcp://h:{port}"));
            match u16::try_from(port) {
                Ok(port) => {
                    let expected = TcpEndpoint { host: name("h"), port };
                    prop_assert_eq!(endpoint, Ok(Endpoint::Tcp(expected)));
                }
                Err(_) => prop_assert!(matches!(endpoint, Err(EndpointError::PortOutOfRange(_)))),
            }
        }
    }
}
