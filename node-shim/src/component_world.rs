//! The world of a component before it is compiled.

use node_api::component::Interfaces;
use node_api::world::World;

/// Returns the world of a component whose engine compiles it. That of the world `wasi:http/proxy` compiles what is damaged
/// or of no world, to name the defect.
pub(crate) fn world_to_compile(bytes: &[u8]) -> World {
    let interfaces = Interfaces::read(bytes).ok();
    let world = interfaces.and_then(|interfaces| interfaces.world());
    world.unwrap_or(World::Proxy)
}
