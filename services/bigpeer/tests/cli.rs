//! The command line itself: help that teaches, and errors that say what to do. What the commands do is tested end to end.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so by panicking")]

use std::process::{Command, Output};

fn bigpeer(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bigpeer"));
    for name in ["BIGPEER_CONFIG", "BIGPEER_URL", "BIGPEER_APP", "BIGPEER_API_KEY", "BIGPEER_CREDENTIALS"] {
        command.env_remove(name);
    }
    let empty = tempfile::tempdir().unwrap();
    command.args(args).current_dir(empty.path()).output().unwrap()
}

fn said(output: &[u8]) -> &str {
    std::str::from_utf8(output).unwrap()
}

/// The subcommands that the help lists.
fn subcommands() -> Vec<String> {
    let output = bigpeer(&["--help"]);
    let help = said(&output.stdout).to_owned();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|name| !name.is_empty()));
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn every_command_explains_itself() {
    let commands = subcommands();
    assert!(commands.iter().any(|name| name == "serve") && commands.len() >= 5, "{commands:?}");
    for name in commands {
        let output = bigpeer(&[&name, "--help"]);
        let help = said(&output.stdout);
        assert!(output.status.success(), "{name}: {}", said(&output.stderr));
        assert!(help.contains("Usage: bigpeer") && help.contains(&name), "{name}: {help}");
        assert!(help.contains("Examples:") || help.contains("Commands:"), "{name} shows no example:\n{help}");
    }
}

#[test]
fn a_mistyped_flag_is_refused_with_the_one_that_was_meant() {
    let output = bigpeer(&["serve", "--lisen", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output.stderr).contains("'--listen'"), "{}", said(&output.stderr));
}

#[test]
fn a_command_without_credentials_says_where_they_come_from() {
    let output = bigpeer(&["sql", "SELECT 1"]);
    assert_ne!(output.status.code(), Some(0));
    let error = said(&output.stderr);
    assert!(error.contains("--credentials") && error.contains("--url"), "{error}");
    assert!(!error.contains("panicked"), "{error}");
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let output =
        bigpeer(&["sql", "SELECT 1", "--url", "http://127.0.0.1:1", "--app", "shop", "--api-key", "bp_secret_key"]);
    assert_ne!(output.status.code(), Some(0));
    let error = said(&output.stderr);
    assert!(error.contains("http://127.0.0.1:1"), "{error}");
    assert!(!error.contains("bp_secret_key"), "a secret is shown: {error}");
}
