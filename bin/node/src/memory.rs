//! The allocator's settings: an agent is judged by what it keeps, on nodes that belong to others.

/// Fewer pools of memory, and what is free goes back to the kernel. To be called before there are
/// threads. By default glibc keeps a pool for each thread, none of which shrinks after the first
/// list of the datastore, and learns from that list to keep large blocks as well.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the allocator is set by C calls")]
pub(crate) fn frugal() {
    const KEEP: i32 = 256 << 10;
    const APART: i32 = 128 << 10;
    for (what, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_TRIM_THRESHOLD, KEEP),
        (libc::M_MMAP_THRESHOLD, APART),
        (libc::M_TOP_PAD, 64 << 10),
    ] {
        // SAFETY: `mallopt` takes two numbers, and no other thread exists yet.
        let taken = unsafe { libc::mallopt(what, value) };
        debug_assert_eq!(taken, 1, "a setting that glibc does not know");
    }
}

/// Gives back what is free in the middle of the pools as well, and the pages of the program itself
/// that only its start has needed: after the first snapshot, whose lists are many times what is
/// kept of them.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "memory is given back by C calls")]
pub(crate) fn give_back() {
    // SAFETY: may be called at any time by any thread.
    unsafe { libc::malloc_trim(0) };
    for (start, length) in program_text() {
        let start = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: code that is never written to, mapped from the program's file: what is needed
        // again is taken from there.
        unsafe { libc::madvise(start, length, libc::MADV_DONTNEED) };
    }
}

/// Where the program's code is: start and length. Nothing, if that cannot be told for certain.
#[cfg(target_env = "gnu")]
fn program_text() -> Vec<(usize, usize)> {
    let Ok(program) = std::fs::read_link("/proc/self/exe") else { return Vec::new() };
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let line = |line: &str| {
        // `start-end r-xp offset device inode path`
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let ours = words.next()? == "r-xp" && words.nth(3)? == program.to_str()?;
        let [start, end] = [start, end].map(|n| usize::from_str_radix(n, 16).ok());
        ours.then_some((start?, end? - start?))
    };
    maps.lines().filter_map(line).collect()
}

/// Other allocators need no words.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn frugal() {}

/// Other allocators need no words.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_back() {}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    #[test]
    fn what_is_given_back_is_still_there() {
        let text = super::program_text();
        let here = super::program_text as *const () as usize;
        assert!(text.iter().any(|(start, len)| (*start..start + len).contains(&here)), "{text:?}");
        let kept: Vec<u32> = (0..100_000).collect();
        super::give_back();
        assert_eq!(kept.iter().copied().map(u64::from).sum::<u64>(), 99_999 * 50_000);
    }
}
