//! The functions of the module `execution` in builds without the feature `driver`.

use super::jobs::Place;

pub(super) fn run_on_driver<F>(job: F) -> Result<Place, F> {
    Err(job)
}

pub(super) fn cancel_on_driver(_: Place) {}

pub(super) fn check_usable() -> Result<(), super::status::Status> {
    Ok(())
}

pub(super) fn is_driven() -> bool {
    false
}

pub(super) fn closes_registrations() -> bool {
    true
}
