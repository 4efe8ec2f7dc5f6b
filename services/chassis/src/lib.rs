//! What each role needs before its own work: settings, catalogue, authentication of requests, errors, health, metrics, shutdown
