//! What the peer sends: frames become messages, messages become what `GatewaySession` says is to be done, and that is done.

use bigpeer_protocol::pb::{self, CloseCode};
use bigpeer_protocol::{FrameError, GatewayEffect, GatewaySession, decode_peer_frame, encode_frame};
use tokio::time::{Duration, Instant};

use super::Session;
use crate::metrics;
use crate::websocket::{Incoming, Violation};

impl Session {
    /// A WebSocket message, or the end of them.
    pub(super) async fn frame(&mut self, frame: Option<Result<Incoming, Violation>>) {
        let effects = match frame {
            Some(Ok(Incoming::Message(bytes))) => {
                metrics::received(bytes.len());
                self.device.received(bytes.len());
                let wait = self.meter.bytes_in(bytes.len() as u64);
                match decode_peer_frame(bytes, self.machine.max_frame_bytes()) {
                    Ok(framed) => {
                        self.pace.spend(weight(&framed.message), framed.bytes, wait, Instant::now());
                        self.machine.receive(framed.message)
                    }
                    Err(error) => {
                        metrics::malformed_frame();
                        self.machine.malformed(&error)
                    }
                }
            }
            Some(Ok(Incoming::Ping(payload))) => {
                self.device.received(payload.len());
                self.pace.spend(1, payload.len(), Duration::ZERO, Instant::now());
                // The Pong leaves with the next flush.
                return self.outbox.flush();
            }
            Some(Ok(Incoming::Pong)) => return self.pace.spend(1, 0, Duration::ZERO, Instant::now()),
            Some(Err(violation)) => {
                metrics::malformed_frame();
                refused_frame(&mut self.machine, violation)
            }
            Some(Ok(Incoming::Close)) | None => {
                self.machine.close(pb::Close::new(CloseCode::CloseDone, "the connection ended"))
            }
        };
        self.perform(effects).await;
    }

    /// Carries out what a message of the peer asks for.
    async fn perform(&mut self, effects: Vec<GatewayEffect>) {
        for effect in effects {
            match effect {
                GatewayEffect::Append(transactions) => self.append(transactions).await,
                GatewayEffect::Subscribe(subscribe) => self.subscribe(subscribe).await,
                GatewayEffect::Unsubscribe(id) => self.unsubscribe(id),
                GatewayEffect::Renew(token) => self.renew(token),
                GatewayEffect::Held(held) => self.held(&held),
                effect @ (GatewayEffect::Send(_)
                | GatewayEffect::Close(_)
                | GatewayEffect::Resume
                | GatewayEffect::Admit(_)) => self.answer(vec![effect]),
            }
        }
    }

    /// Carries out effects that need nothing but the outbox.
    pub(super) fn answer(&mut self, effects: Vec<GatewayEffect>) {
        for effect in effects {
            match effect {
                GatewayEffect::Send(message) => {
                    let frame = encode_frame(&message, self.machine.compression()).message;
                    match message.message {
                        // What these say is true of what comes after what was sent before.
                        Some(
                            pb::FromGateway::CaughtUp(_)
                            | pb::FromGateway::Resync(_)
                            | pb::FromGateway::Subscribed(_)
                            | pb::FromGateway::Refused(_)
                            | pb::FromGateway::AskHeld(_),
                        ) => self.outbox.answer_after_documents(frame),
                        Some(_) | None => self.outbox.answer(frame),
                    }
                }
                GatewayEffect::Close(close) => {
                    self.ended.get_or_insert(close);
                }
                // Pages and live changes are made when there is credit; the Hello was taken before.
                GatewayEffect::Resume | GatewayEffect::Admit(_) => {}
                // Only answers to messages of the peer, which go through `perform`.
                GatewayEffect::Append(_)
                | GatewayEffect::Subscribe(_)
                | GatewayEffect::Unsubscribe(_)
                | GatewayEffect::Held(_)
                | GatewayEffect::Renew(_) => {}
            }
        }
    }
}

/// The Close for bytes that are no message.
pub(super) fn refused_frame(machine: &mut GatewaySession, violation: Violation) -> Vec<GatewayEffect> {
    match violation {
        Violation::TooLarge { bytes, max } => machine.malformed(&FrameError::TooLarge { bytes, max }),
        Violation::Frame(what) => machine.close(pb::Close::new(CloseCode::CloseProtocolError, what)),
    }
}

/// How many messages a message counts as: some cost more than others.
const fn weight(message: &pb::FromPeer) -> u32 {
    match message {
        pb::FromPeer::Subscribe(_) | pb::FromPeer::Renew(_) => 20,
        pb::FromPeer::Hello(_)
        | pb::FromPeer::Push(_)
        | pb::FromPeer::Unsubscribe(_)
        | pb::FromPeer::Credit(_)
        | pb::FromPeer::Held(_)
        | pb::FromPeer::Close(_) => 1,
    }
}
