//! What must not lie in a core dump: messages, passwords, private keys.
//!
//! A process that holds them is not dumpable: no core file, nothing for a program that collects dumps
//! (a limit of 0 bytes alone does not stop one), and its memory and files under `/proc` are for root
//! only, debuggers included. [`ALLOW`] lifts that for who looks for a fault.

/// The variable that, set to `1`, leaves the process as the system made it.
pub const ALLOW: &str = "MAILWEIR_CORE_DUMPS";

/// Keeps this process out of core dumps. To be called before anything secret is read.
pub(crate) fn refuse() {
    if std::env::var_os(ALLOW).is_some_and(|value| value == "1") {
        return;
    }
    // A system that does not know the one may know the other; what knows neither makes no core dumps.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Core);
    let none = rustix::process::Rlimit { current: Some(0), ..limit };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
}
