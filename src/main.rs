//! The program: all it does is in the library, so that tests reach it.

/// The static programs do without musl's allocator, which puts every size apart and so holds pages for
/// buffers that no connection uses any more.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> std::process::ExitCode {
    hearth::cli::run()
}
