//! Writes what packages have beside the program: `hearth.8`, `hearth.toml.5`, completions for bash, zsh and fish,
//! and the notices of the packages that are in the program.
//!
//!     hearth-manual DIRECTORY
//!
//! The command line and the example configuration are the source of all of it, so that it cannot be out of date.

mod configuration;
mod notices;
mod program;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::CommandFactory as _;
use hearth::cli::{Args, Shell, completion_script};

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: hearth-manual DIRECTORY");
        return ExitCode::from(2);
    };
    match write(&directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("hearth-manual: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn write(directory: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(directory)?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let put = |name: &str, bytes: &[u8]| hearth::files::replace(&directory.join(name), bytes);

    put("hearth.8", &program::page(&Args::command())?)?;
    let example = fs::read_to_string(root.join("hearth.example.toml"))?;
    put("hearth.toml.5", &configuration::page(&example)?)?;
    for (shell, name) in [
        (Shell::Bash, "hearth.bash"),
        (Shell::Zsh, "_hearth"),
        (Shell::Fish, "hearth.fish"),
    ] {
        put(name, completion_script(shell).as_bytes())?;
    }
    put("notices.txt", notices::of_program(&root)?.as_bytes())?;
    Ok(())
}
