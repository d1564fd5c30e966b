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

/// Gives back what is free in the middle of the pools as well: after the first snapshot, whose
/// lists are many times what is kept of them.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the allocator is set by C calls")]
pub(crate) fn give_back() {
    // SAFETY: may be called at any time by any thread.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators need no words.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn frugal() {}

/// Other allocators need no words.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_back() {}
