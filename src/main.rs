//! The program: all it does is in the library, so that tests reach it.

fn main() -> std::process::ExitCode {
    hearth::cli::run()
}
