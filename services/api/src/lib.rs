//! The HTTP data API: DQL statements as requests
