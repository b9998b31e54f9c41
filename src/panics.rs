//! Panics abort the program, in every thread and task, however it was compiled.
//!
//! The profiles of hearth abort at a panic. A build that unwinds, as OpenWrt's feed forces it, would lose a
//! single thread or task and leave a server that answers but does not work: no writer, no listener. procd or
//! systemd can restart hearth only after it has exited.
//!
//! There is no cleanup: everything that was answered is on disk, and the database recovers from a crash.
//!
//! Must not know: what the program does.

use std::panic;

/// Makes every panic abort the program by SIGABRT, after its message was printed as usual.
///
/// Applies to the whole process; called once, before any thread starts.
pub fn abort_on_panic() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    /// Set in the process of the test that aborts.
    const VICTIM: &str = "HEARTH_TEST_PANICS";
    /// The same number on all processors. Source: signal(7).
    const SIGABRT: i32 = 6;

    #[test]
    fn a_panic_in_a_thread_aborts_the_program() {
        if std::env::var_os(VICTIM).is_some() {
            abort_on_panic();
            let _ = std::thread::spawn(|| panic!("on purpose")).join();
            return;
        }
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("panics::tests::a_panic_in_a_thread_aborts_the_program")
            .env(VICTIM, "yes")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(SIGABRT), "{said}");
        assert!(said.contains("on purpose"), "{said}");
    }
}
