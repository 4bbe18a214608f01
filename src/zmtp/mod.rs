//! The protocol, ZMTP 3.1 (RFC 37): no I/O, no task, no clock; bytes in, events out.

pub(crate) mod command;
pub(crate) mod connection;
pub(crate) mod decoder;
pub(crate) mod encoder;
pub(crate) mod frame;
pub(crate) mod greeting;
pub(crate) mod null;
pub(crate) mod run;
pub(crate) mod socket_type;
