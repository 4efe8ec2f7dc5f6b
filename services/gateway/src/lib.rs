//! Sync sessions over WebSocket
