//! Folds the log's tail into segments and manifests, and trims the log behind them
