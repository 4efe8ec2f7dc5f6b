//! The faults: what goes wrong, when, and when it is well again.

use std::time::Duration;

use rand::Rng;

use crate::client::lock;
use crate::grants::Grant;
use crate::network::{Death, Host};
use crate::stage::LogDeath;
use crate::world::World;

/// What is wrong now, and until when.
#[derive(Default)]
pub struct Faults {
    blocks: Vec<(u64, Host, Host)>,
    slow_until: u64,
    log_until: u64,
    objects_until: u64,
    /// A server that was told to shut down, or whose disk is about to fail, dies for good at this time.
    doomed: Vec<(u64, usize, LogDeath)>,
    next_at: u64,
}

/// How a simulated minute goes wrong.
const PAUSE_MS: std::ops::Range<u64> = 100..1500;

impl Faults {
    /// Brings what is due, and heals what is over.
    pub fn step(&mut self, world: &mut World) {
        let now = world.time.now();
        self.heal(world, now);
        if now < self.next_at {
            return;
        }
        self.next_at = now + world.chance.random_range(PAUSE_MS);
        let (servers, clients) = (world.servers.len(), world.clients.len());
        let (server, client) = (world.chance.random_range(0..servers), world.chance.random_range(0..clients));
        let death = if world.chance.random_ratio(1, 3) { Death::Silent } else { Death::Closing };
        match world.chance.random_range(0..24) {
            0..=3 if world.clients[client].node.is_some() => {
                world.stop_client(client, death);
                world.clients[client].back_at = now + world.chance.random_range(50..3000);
            }
            4..=5 if world.servers[server].node.is_some() => {
                let log = log_death(world);
                self.stop_server(world, server, death, log, now);
            }
            6 if world.servers[server].node.is_some() => {
                world.trace.event(now, format_args!("server {server} drains"));
                world.servers[server].shutdown.cancel();
                self.doomed.push((now + world.chance.random_range(50..2500), server, LogDeath::Kill));
            }
            7 if world.servers[server].node.is_some() && world.stage.is_embedded() => {
                let operations = world.chance.random_range(0..8);
                world.trace.event(now, format_args!("the disk fails in {operations} operations"));
                let app = world.app.clone();
                world.stage.doom(&app, operations);
                let death = LogDeath::Power(world.chance.random());
                self.doomed.push((now + world.chance.random_range(20..1500), server, death));
            }
            8..=12 => self.partition(world, now),
            13..=14 => {
                let longest = world.chance.random_range(50..900);
                world.network.set_latency(10, longest);
                self.slow_until = now + world.chance.random_range(500..5000);
            }
            15..=16 => {
                let host = world.servers[server].host;
                world.network.repeat_a_connection(host);
            }
            17..=18 => skew(world, client, server),
            19..=20 => {
                let grant = Grant(world.chance.random_range(0..Grant::COUNT));
                world.change_grant(client, grant);
            }
            21 => {
                let (often, long) = (world.chance.random_range(20..400), world.chance.random_range(0..120));
                world.stage.log_faults.set(often, Duration::from_millis(long));
                self.log_until = now + world.chance.random_range(500..5000);
            }
            22 => {
                let (often, long) = (world.chance.random_range(20..400), world.chance.random_range(0..200));
                world.stage.object_faults.set(often, Duration::from_millis(long));
                self.objects_until = now + world.chance.random_range(500..5000);
            }
            _ => offline(world, client),
        }
    }

    fn stop_server(&mut self, world: &mut World, which: usize, death: Death, log: LogDeath, now: u64) {
        world.stop_server(which, death, log);
        world.servers[which].back_at = now + world.chance.random_range(50..2500);
        self.doomed.retain(|(_, doomed, _)| *doomed != which);
    }

    fn partition(&mut self, world: &mut World, now: u64) {
        let until = now + world.chance.random_range(300..10_000);
        let both = world.chance.random_ratio(2, 3);
        let to_server = world.chance.random_ratio(1, 2);
        for client in 0..world.clients.len() {
            if !world.chance.random_ratio(1, 3) {
                continue;
            }
            let client = world.clients[client].host;
            for server in 0..world.servers.len() {
                let server = world.servers[server].host;
                if both || to_server {
                    self.blocks.push((until, client, server));
                    world.network.block(client, server);
                }
                if both || !to_server {
                    self.blocks.push((until, server, client));
                    world.network.block(server, client);
                }
            }
        }
        world.trace.event(now, format_args!("partition until {until}"));
    }

    fn heal(&mut self, world: &mut World, now: u64) {
        if self.blocks.iter().any(|(until, ..)| *until <= now) {
            self.blocks.retain(|(until, ..)| *until > now);
            world.network.unblock_all();
            for (_, from, to) in &self.blocks {
                world.network.block(*from, *to);
            }
        }
        for (until, heal) in [(&mut self.slow_until, 0), (&mut self.log_until, 1), (&mut self.objects_until, 2)] {
            if *until != 0 && *until <= now {
                *until = 0;
                match heal {
                    0 => world.network.set_latency(1, 20),
                    1 => world.stage.log_faults.set(0, Duration::ZERO),
                    _ => world.stage.object_faults.set(0, Duration::ZERO),
                }
            }
        }
        let due: Vec<_> = self.doomed.iter().filter(|(at, ..)| *at <= now).copied().collect();
        for (_, server, log) in due {
            if world.servers[server].node.is_some() {
                self.stop_server(world, server, Death::Closing, log, now);
            }
        }
    }

    /// Everything is well from now on; who is down comes back.
    pub fn end(&mut self, world: &mut World) {
        let now = world.time.now();
        for (_, server, log) in std::mem::take(&mut self.doomed) {
            if world.servers[server].node.is_some() {
                self.stop_server(world, server, Death::Closing, log, now);
            }
        }
        world.network.unblock_all();
        world.network.set_latency(1, 20);
        world.stage.log_faults.set(0, Duration::ZERO);
        world.stage.object_faults.set(0, Duration::ZERO);
        for server in &mut world.servers {
            server.clock.skew(0);
            server.back_at = now;
        }
        for client in &mut world.clients {
            client.parts.clock.skew(0);
            client.back_at = now;
        }
        *self = Self::default();
    }
}

fn log_death(world: &mut World) -> LogDeath {
    if world.chance.random_ratio(1, 2) { LogDeath::Kill } else { LogDeath::Power(world.chance.random()) }
}

/// A clock is wrong: within what servers accept, and sometimes beyond.
fn skew(world: &mut World, client: usize, server: usize) {
    let ms = match world.chance.random_range(0..8) {
        0 => world.chance.random_range(70_000..400_000),
        1 => -world.chance.random_range(70_000_i64..400_000),
        2 => 0,
        _ => world.chance.random_range(-50_000..50_000),
    };
    world.trace.event(world.time.now(), format_args!("client {client}'s clock is wrong by {ms}"));
    world.clients[client].parts.clock.skew(ms);
    if world.chance.random_ratio(1, 4) {
        world.servers[server].clock.skew(world.chance.random_range(-5000..5000));
    }
}

/// An app goes offline for a while.
fn offline(world: &mut World, client: usize) {
    let pause = world.chance.random_range(500..9000);
    let client = &world.clients[client];
    let (Some(node), Some(peer)) = (&client.node, lock(&client.parts.slot).clone()) else { return };
    let parts = client.parts.clone();
    node.spawn(async move {
        peer.disconnect().await;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        crate::world::reconnect(&parts, &peer).await;
    });
}
