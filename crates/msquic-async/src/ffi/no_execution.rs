//! What the rest of `ffi` asks the driver, where there is none.

pub(super) fn run_on_driver<F>(job: F) -> Result<(), F> {
    Err(job)
}

pub(super) fn check_usable() -> Result<(), super::status::Status> {
    Ok(())
}

pub(super) fn is_driven() -> bool {
    false
}

pub(super) fn closes_registrations() -> bool {
    true
}
