//! What a panic does: it ends the program, in every thread and task alike, however it was compiled.
//!
//! Our own profiles abort at a panic. A build that unwinds, as OpenWrt's feed forces it, would lose the one
//! thread or task, and what is left is a server that answers and does not work: no writer, no listener. What
//! supervises hearth (procd, systemd) can start it anew, but only once it is gone.
//!
//! Nothing is tidied up on the way: what was answered is on disk, and the database recovers from any end.
//!
//! Must not know: what the program does.

use std::panic;

/// From now on a panic ends the program by SIGABRT, after its message was printed as usual.
///
/// For the whole process and for good; called once, before any thread is started.
pub fn end_the_program() {
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

    /// Set where the test runs in a process of its own, which does not survive.
    const VICTIM: &str = "HEARTH_TEST_PANICS";
    /// The same number on all processors. Source: signal(7).
    const SIGABRT: i32 = 6;

    #[test]
    fn a_panic_in_a_thread_ends_the_program() {
        if std::env::var_os(VICTIM).is_some() {
            end_the_program();
            let _ = std::thread::spawn(|| panic!("on purpose")).join();
            return;
        }
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("panics::tests::a_panic_in_a_thread_ends_the_program")
            .env(VICTIM, "yes")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(SIGABRT), "{said}");
        assert!(said.contains("on purpose"), "{said}");
    }
}
