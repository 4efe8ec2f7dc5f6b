//! Login: a peer gets its site and an access token
