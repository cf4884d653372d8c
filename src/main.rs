//! The `mailweir` program: everything is in the library.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The kernel makes huge pages of what the allocator uses thinly: 14 of 34 MB under load, and more
    // the longer it lasts. Where it knows no such pages, there is nothing to refuse.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    mailweir::cli::main()
}
