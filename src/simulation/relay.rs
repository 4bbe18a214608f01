//! Through a proxy: PULL to PUSH, paused at random; and publishers through XSUB and XPUB.

use crate::simulation::world::World;
use crate::simulation::{pipeline, pubsub};

pub(super) async fn run(mut world: World) {
    if world.rng.u32(0..3) == 0 {
        pipeline::run(world, true, false).await;
    } else {
        pubsub::run(world, true, false).await;
    }
}
