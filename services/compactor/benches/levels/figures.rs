//! Figures: what is measured of a process and of a directory, and how it is told.

use std::path::Path;
use std::time::{Duration, Instant};

/// The target of a figure: the most or the least that it should be.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    None,
}

/// Prints a figure for scripts.
pub(crate) fn show(name: &str, value: f64, unit: &str, target: Target) {
    let (sign, limit, met) = match target {
        Target::AtLeast(limit) => ("≥", limit, value >= limit),
        Target::AtMost(limit) => ("≤", limit, value <= limit),
        Target::None => return println!("levels_{name}\t{value:.2}\t{unit}\t"),
    };
    let met = if met { "met" } else { "MISSED" };
    println!("levels_{name}\t{value:.2}\t{unit}\ttarget {sign} {limit}: {met}");
}

/// Tells people how far it is, now and then.
pub(crate) struct Progress {
    since: Instant,
    told: Instant,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self { since: now, told: now }
    }

    pub(crate) fn say(&mut self, what: &str) {
        self.told = Instant::now();
        eprintln!("levels {:>4} s: {what}", self.since.elapsed().as_secs());
    }

    pub(crate) fn say_seldom(&mut self, what: impl Fn() -> String) {
        if self.told.elapsed() >= Duration::from_secs(5) {
            self.say(&what());
        }
    }
}

/// Time that passed, and time of processors, of all threads together.
#[derive(Clone, Copy, Default)]
pub(crate) struct Spent {
    pub(crate) wall: Duration,
    pub(crate) processors: Duration,
}

impl Spent {
    pub(crate) fn and(self, other: Self) -> Self {
        Self { wall: self.wall + other.wall, processors: self.processors + other.processors }
    }
}

pub(crate) struct Stopwatch(Instant, Duration);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(Instant::now(), processors())
    }

    pub(crate) fn stop(&self) -> Spent {
        Spent { wall: self.0.elapsed(), processors: processors() - self.1 }
    }
}

/// What all threads of this process have used; in steps of 10 ms.
fn processors() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(')').unwrap().1;
    let ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum::<u64>();
    Duration::from_millis(ticks * 10)
}

/// So many in a second.
pub(crate) fn rate(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(1e-9)
}

pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The middle one of several times.
pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// MiB of this process's memory: `VmRSS` is what is resident, `VmHWM` the most that ever was.
pub(crate) fn resident(what: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

/// All segment files below a directory, with their lengths, whether a manifest names them or not.
pub(crate) fn segment_files(dir: &Path) -> Vec<(std::path::PathBuf, u64)> {
    let (mut found, mut dirs) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        let Ok(entries) = std::fs::read_dir(dir) else { continue };
        for entry in entries.map(Result::unwrap) {
            let path = entry.path();
            // What is deleted meanwhile is no more.
            let Ok(about) = entry.metadata() else { continue };
            if about.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|ending| ending == "parquet") {
                found.push((path, about.len()));
            }
        }
    }
    found.sort();
    found
}

pub(crate) fn bytes_of(files: &[(std::path::PathBuf, u64)]) -> u64 {
    files.iter().map(|(_, bytes)| bytes).sum()
}

/// Asks the system to forget the contents of these files, as after a start of the machine. Whether it was asked.
pub(crate) fn make_cold(files: &[(std::path::PathBuf, u64)]) -> bool {
    files.iter().all(|(path, _)| {
        let mut input = std::ffi::OsString::from("if=");
        input.push(path);
        let dd = std::process::Command::new("dd").arg(input).args(["iflag=nocache", "count=0", "status=none"]).status();
        dd.is_ok_and(|status| status.success())
    })
}
