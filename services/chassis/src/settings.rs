//! Settings: a flag wins over the environment, the environment over the file, the file over the default. The file's values
//! become the command's defaults before it is parsed, so all of them are checked in the same way and `--help` shows what
//! holds.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command};
use thiserror::Error;

/// Why settings were refused.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// The command line or an environment variable; also carries `--help`.
    #[error(transparent)]
    Command(#[from] clap::Error),
    /// The file cannot be read.
    #[error("cannot read the settings file {path}: {cause}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// The file is not TOML.
    #[error("the settings file {path} is not valid TOML: {message}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        message: String,
    },
    /// The file names something that does not exist, or gives it the wrong kind of value.
    #[error("the settings file {path} sets '{name}': {problem}")]
    Value {
        /// Which file.
        path: PathBuf,
        /// Which setting.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Parses `args` (the program's name first) with `command`. `--config FILE` (or `BIGPEER_CONFIG`) names a TOML file whose keys
/// are the long flags without their dashes, for the subcommand `[serve]` in the table of its name.
///
/// # Errors
/// When flags, environment or file are wrong, or help was asked for.
pub fn parse_with_file(command: Command, args: &[OsString]) -> Result<ArgMatches, SettingsError> {
    let config = config_path(args).or_else(|| std::env::var_os("BIGPEER_CONFIG").map(PathBuf::from));
    let command = match config {
        Some(path) => with_file(command, &path)?,
        None => command,
    };
    Ok(command.try_get_matches_from(args)?)
}

fn config_path(args: &[OsString]) -> Option<PathBuf> {
    let mut args = args.iter().skip(1);
    while let Some(arg) = args.next() {
        let text = arg.to_str().unwrap_or_default();
        if text == "--" {
            return None;
        }
        if text == "--config" {
            return args.next().map(PathBuf::from);
        }
        if let Some(path) = text.strip_prefix("--config=") {
            return Some(PathBuf::from(path));
        }
    }
    None
}

fn with_file(command: Command, path: &Path) -> Result<Command, SettingsError> {
    let text = std::fs::read_to_string(path).map_err(|cause| SettingsError::Read { path: path.to_owned(), cause })?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| SettingsError::Syntax {
        path: path.to_owned(),
        message: error.to_string(),
    })?;
    apply(command, &table, "").map_err(|(name, problem)| SettingsError::Value { path: path.to_owned(), name, problem })
}

fn apply(mut command: Command, table: &toml::Table, within: &str) -> Result<Command, (String, String)> {
    for (key, value) in table {
        let name = format!("{within}{key}");
        if let toml::Value::Table(inner) = value {
            let Some(sub) = command.find_subcommand_mut(key) else {
                return Err((name, "there is no such command".to_owned()));
            };
            *sub = apply(std::mem::take(sub), inner, &format!("{key}."))?;
            continue;
        }
        let found = command.get_arguments().find(|arg| arg.get_long() == Some(key)).cloned();
        let Some(arg) = found else {
            let known: Vec<_> =
                command.get_arguments().filter_map(Arg::get_long).filter(|long| *long != "help").collect();
            return Err((name, format!("there is no such setting; known are {}", known.join(", "))));
        };
        let text = scalar(value).ok_or_else(|| (name, "expected a text, a number or true/false".to_owned()))?;
        let is_flag = matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::SetFalse);
        command = command.mut_arg(arg.get_id(), |arg| {
            let arg = arg.default_value(text);
            // What the file gives need not be given again.
            if is_flag { arg } else { arg.required(false) }
        });
    }
    Ok(command)
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(truth) => Some(truth.to_string()),
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{FromArgMatches, Parser};
    use std::io::Write;

    #[derive(Debug, Parser)]
    struct Settings {
        #[arg(long, global = true)]
        config: Option<PathBuf>,
        // The variable is one that the test environment always has.
        #[arg(long, env = "CARGO_PKG_NAME", default_value = "default")]
        from_env: String,
        #[arg(long, default_value_t = 1)]
        count: u32,
        #[arg(long)]
        quiet: bool,
        #[command(subcommand)]
        command: Option<Sub>,
    }

    #[derive(Debug, clap::Subcommand)]
    enum Sub {
        Serve {
            #[arg(long, default_value = "127.0.0.1:8080")]
            listen: String,
        },
    }

    fn parse(file: &str, args: &[&str]) -> Result<Settings, SettingsError> {
        use clap::CommandFactory;
        let mut config = tempfile::NamedTempFile::new().unwrap();
        config.write_all(file.as_bytes()).unwrap();
        let mut all = vec![OsString::from("test"), "--config".into(), config.path().into()];
        all.extend(args.iter().map(OsString::from));
        let matches = parse_with_file(Settings::command(), &all)?;
        Ok(Settings::from_arg_matches(&matches).unwrap())
    }

    #[test]
    fn flag_wins_over_environment_over_file_over_default() {
        let file = "count = 2\nfrom-env = 'file'\n[serve]\nlisten = 'file:1'";
        let settings = parse(file, &["serve"]).unwrap();
        assert_eq!((settings.count, settings.from_env.as_str()), (2, "bigpeer-chassis"));
        assert!(matches!(settings.command, Some(Sub::Serve { listen }) if listen == "file:1"));
        let settings = parse(file, &["--count=3", "--from-env", "flag", "serve", "--listen", "flag:1"]).unwrap();
        assert_eq!((settings.count, settings.from_env.as_str()), (3, "flag"));
        assert!(matches!(settings.command, Some(Sub::Serve { listen }) if listen == "flag:1"));
        assert_eq!(parse("", &[]).unwrap().count, 1);
        assert!(parse("quiet = true", &[]).unwrap().quiet);
        assert!(!parse("quiet = false", &[]).unwrap().quiet);
    }

    #[test]
    fn what_is_wrong_in_the_file_is_named() {
        for (file, expected) in [
            ("cuont = 2", "'cuont': there is no such setting; known are config, from-env, count, quiet"),
            ("[sreve]\nlisten = 'x'", "'sreve': there is no such command"),
            ("[serve]\nlitsen = 'x'", "'serve.litsen': there is no such setting"),
            ("count = [1]", "'count': expected a text"),
            ("count = ", "is not valid TOML"),
            ("count = 'many'", "invalid value 'many' for '--count"),
        ] {
            let error = parse(file, &[]).unwrap_err().to_string();
            assert!(error.contains(expected), "{file}: {error}");
        }
        let missing = parse_with_file(Command::new("t"), &["t".into(), "--config=/nowhere".into()]).unwrap_err();
        assert!(missing.to_string().contains("/nowhere"), "{missing}");
    }
}
