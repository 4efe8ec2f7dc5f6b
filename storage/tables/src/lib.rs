//! Documents as Parquet segments and manifests on object storage; DocumentStore over them and the log's tail
