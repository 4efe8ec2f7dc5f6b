//! Structured logs on standard error, as text for people or JSON for machines. Nothing secret is ever a field: secrets have
//! types that do not print.

use std::io::IsTerminal as _;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Flags of every command that logs.
#[derive(Clone, Debug, clap::Args)]
pub struct LogSettings {
    /// What is logged: a level (error, warn, info, debug, trace) or a filter such as 'info,bigpeer_gateway=debug'
    #[arg(long, env = "BIGPEER_LOG_FILTER", default_value = "info", value_name = "FILTER")]
    pub log_filter: String,
    /// How log lines look
    #[arg(long, env = "BIGPEER_LOG_FORMAT", value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,
}

/// Starts logging to standard error. The first call of the process wins.
///
/// # Errors
/// When the filter cannot be understood.
pub fn init_logs(settings: &LogSettings) -> Result<(), String> {
    let filter = EnvFilter::try_new(&settings.log_filter)
        .map_err(|error| format!("--log-filter '{}' is not a log filter ({error}); try 'info'", settings.log_filter))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // An error means that another one is installed already, as in tests.
    let _installed = match settings.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    Ok(())
}
