//! The program: all it does is in the library, so that tests reach it.

/// The static programs do without musl's allocator, which puts every size apart and so holds pages for
/// buffers that no connection uses any more. It counts in pages of 4 KB; where they are larger, as on the Raspberry
/// Pi 5, nothing goes wrong: it asks for multiples of 64 KB, and the kernel rounds the rest up.
///
/// The crate takes pages of 4 KB for granted, and yet kernels with pages of 16 or 64 KB (the Raspberry Pi 5)
/// are no trouble: whatever it maps, shrinks and unmaps is a multiple of 64 KB, its granularity. The page size
/// counts only for allocations that are mappings of their own, and it makes none. (0.2.14: `sys_alloc`,
/// `sys_trim`, `release_unused_segments`; `mmap_resize` is never reached. To be read again with a new version.)
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> std::process::ExitCode {
    hearth::cli::run()
}
