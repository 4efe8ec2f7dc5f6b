//! SQL over the app's collections with DataFusion: catalogue, table provider, HTTP SQL
