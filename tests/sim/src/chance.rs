//! Chance of the process under a seed: what the standard library and `rand` ask of the operating system comes from here,
//! for the thread that simulates. So hash maps are ordered, and masks of WebSocket frames are made, the same each time.

use std::cell::Cell;

use libc::{c_long, c_uint, c_void, size_t, ssize_t};

thread_local! {
    /// None: the operating system's own.
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Runs `simulation` on a thread of its own, whose chance follows `seed`.
///
/// # Panics
/// When `simulation` does.
pub fn seeded<T: Send>(seed: u64, simulation: impl FnOnce() -> T + Send) -> T {
    let run = || {
        STATE.set(Some(seed));
        // Named here so that the linker takes it along.
        std::hint::black_box(getrandom as *const ());
        simulation()
    };
    std::thread::scope(|scope| {
        let thread =
            std::thread::Builder::new().name(format!("seed {seed}")).stack_size(16 << 20).spawn_scoped(scope, run);
        match thread.expect("a thread").join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Takes the place of the C library's function.
///
/// # Safety
/// As that of the C library: `buffer` has `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, length: size_t, flags: c_uint) -> ssize_t {
    let Some(mut state) = STATE.try_with(Cell::get).unwrap_or(None) else {
        let done: c_long = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
        return done as ssize_t;
    };
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&next(&mut state).to_le_bytes()[..chunk.len()]);
    }
    STATE.set(Some(state));
    length as ssize_t
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    #[test]
    fn what_the_system_is_asked_for_follows_the_seed() {
        let ask = || (RandomState::new().hash_one(1), rand::random::<u64>());
        let (one, again, two) = (seeded(1, ask), seeded(1, ask), seeded(2, ask));
        assert_eq!(one, again);
        assert_ne!(one.0, two.0);
        assert_ne!(one.1, two.1);
        assert_ne!(ask(), ask());
    }
}
