//! Hostile peers: bytes that no socket would send, on connections of their own, while the honest ones lose nothing.

use std::future::poll_fn;
use std::time::Duration;

use fastrand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::simulation::network::{Address, Network};
use crate::simulation::world::{World, dawdle};
use crate::simulation::{pipeline, pubsub};
use crate::transport::Stream;

/// Where a hostile listener waits for those who dial it.
pub(super) const TRAP: u8 = 200;

/// Names of those who are no sockets begin here.
pub(super) const HOSTILE: u16 = 60_000;

/// How many there are.
const ATTACKERS: u16 = 3;

pub(super) async fn run(mut world: World) {
    world.weather_clears();
    if world.rng.bool() {
        pipeline::run(world, false, true).await;
    } else {
        pubsub::run(world, false, true).await;
    }
}

/// Attacks those who listen, by dialling them, and those who dial, by listening. They end when this is dropped.
pub(super) fn besiege(
    network: &Network,
    is_ipc: bool,
    places: u8,
    claims: [&'static str; 2],
    rng: &mut Rng,
) -> JoinSet<()> {
    let mut attackers = JoinSet::new();
    for name in HOSTILE..HOSTILE + ATTACKERS {
        let (network, mut rng) = (network.clone(), rng.fork());
        attackers.spawn(async move {
            for _ in 0..rng.u32(1..30) {
                dawdle(&mut rng, 80, 300).await;
                let address = Address { owner: name, place: rng.u8(0..places), is_ipc };
                if let Ok((stream, _)) = network.dial(address, true).await {
                    attack(Box::new(stream), claims[0], &mut rng).await;
                }
            }
        });
    }
    let listener = network.listen(Address { owner: HOSTILE, place: TRAP, is_ipc }).expect("the trap is free");
    let mut rng = rng.fork();
    attackers.spawn(async move {
        while let Ok(connected) = poll_fn(|cx| listener.poll_accept(cx)).await {
            attack(connected.stream, claims[1], &mut rng).await;
        }
    });
    attackers
}

async fn attack(mut stream: Box<dyn Stream>, claim: &str, rng: &mut Rng) {
    let script = script(claim, rng);
    // A victim that does not read is left.
    let _ = timeout(Duration::from_millis(rng.u64(0..2_000)), stream.write_all(&script)).await;
    if rng.bool() {
        dawdle(rng, 50, 15_000).await;
    }
    if rng.u32(0..4) == 0 {
        let _ = stream.shutdown().await;
    }
    if rng.bool() {
        let mut heard = [0; 500];
        let listen = async { while stream.read(&mut heard).await.is_ok_and(|count| count > 0) {} };
        let _ = timeout(Duration::from_millis(rng.u64(0..15_000)), listen).await;
    }
}

fn greeting() -> Vec<u8> {
    let mut greeting = vec![0; 64];
    greeting[0] = 0xff;
    greeting[8] = 1;
    greeting[9] = 0x7f;
    greeting[10] = 3;
    greeting[11] = 1;
    greeting[12..16].copy_from_slice(b"NULL");
    greeting
}

pub(super) fn handshake(socket_type: &str) -> Vec<u8> {
    let mut bytes = greeting();
    let mut body = b"\x05READY\x0bSocket-Type\0\0\0".to_vec();
    body.push(u8::try_from(socket_type.len()).expect("a short name"));
    body.extend_from_slice(socket_type.as_bytes());
    bytes.extend_from_slice(&[4, u8::try_from(body.len()).expect("a short command")]);
    bytes.extend_from_slice(&body);
    bytes
}

fn noise(rng: &mut Rng, most: usize) -> Vec<u8> {
    let length = rng.usize(0..most);
    (0..length).map(|_| rng.u8(..)).collect()
}

fn script(claim: &str, rng: &mut Rng) -> Vec<u8> {
    let wrong = ["REQ", "PAIR", "", "NONSENSE"];
    let mut bytes = match rng.u32(0..4) {
        0 => greeting(),
        1 => handshake(wrong[rng.usize(0..wrong.len())]),
        _ => handshake(claim),
    };
    let repeat = |what: &[u8], times: usize| what.repeat(times);
    match rng.u32(0..11) {
        0 => return noise(rng, 2_000),
        1 => bytes.truncate(rng.usize(0..bytes.len())),
        2 => {
            let spot = rng.usize(0..bytes.len());
            bytes[spot] = rng.u8(..);
        }
        3 => bytes.extend(noise(rng, 2_000)),
        // Larger than anything may be.
        4 => bytes.extend(b"\x02\x00\x00\x01\x00\x00\x00\x00\x00"),
        5 => bytes.extend(b"\x02\xff\xff\xff\xff\xff\xff\xff\xff"),
        // PING, and nobody reads what is answered.
        6 => bytes.extend(repeat(b"\x04\x0b\x04PING\x00\x01live", rng.usize(1..3_000))),
        // A message without an end.
        7 => bytes.extend(repeat(b"\x01\x00", rng.usize(1..15_000))),
        8 => bytes.extend(repeat(b"\x04\x0d\x09SUBSCRIBEzzz\x04\x0a\x06CANCELzzz", rng.usize(1..500))),
        9 => bytes.extend(repeat(b"\x02\x00\x00\x00\x00\x00\x01\x00\x00half", 1)),
        _ => bytes.extend(repeat(b"\x04\x07\x06NOBODY\x00\x03any", rng.usize(1..300))),
    }
    bytes
}
