//! Many who have joined and of whom nothing is heard.

use std::sync::Arc;

use anyhow::Context;

use super::fan_out::{self, Face};
use crate::Load;
use crate::report::Figure;
use crate::server::Server;

/// The server's memory for each Phoenix socket with one channel.
pub(crate) async fn sockets(load: &Load, server: &Arc<Server>) -> anyhow::Result<Vec<Figure>> {
    let process = server
        .process
        .context("the memory of idle sockets needs a --pid")?;
    let topic = load.topic("idle");
    server.create(&topic).await?;
    let before = process.memory_bytes()?;
    let sockets = fan_out::connect(server, &topic, Face::Phoenix, load.sockets).await?;
    let grown = process.memory_bytes()?.saturating_sub(before);
    let each = grown as f64 / sockets.len() as f64;
    Ok(vec![Figure::new("memory a socket", each / 1024.0, "KiB")])
}
