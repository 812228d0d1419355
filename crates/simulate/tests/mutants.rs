//! The checker detects faults of nodes.

use simulate::{Mutant, Plan, run_virtual};

fn assert_detected(mutant: Mutant, violation: &str) {
    assert_detected_in(Plan::virtual_time(20, 4.0, 1), mutant, violation);
}

fn assert_detected_in(plan: Plan, mutant: Mutant, violation: &str) {
    let plan = Plan { mutant: Some(mutant), ..plan };
    let error = run_virtual(&plan).unwrap_err().to_string();
    assert!(error.contains(violation), "{mutant:?}: {error}");
}

#[test]
fn a_message_that_is_lost_is_detected() {
    assert_detected(Mutant::LosesMessages, "is lost or a node was not woken");
}

#[test]
fn a_message_that_is_received_twice_is_detected() {
    assert_detected(Mutant::ReceivesTwice, "is received again");
}

#[test]
fn a_message_that_has_changed_is_detected() {
    assert_detected(Mutant::AltersMessages, "has changed");
}

#[test]
fn a_message_with_another_sender_is_detected() {
    assert_detected(Mutant::MistakesSenders, "is received with an identity of node");
}

#[test]
fn a_report_that_is_missing_is_detected() {
    assert_detected(Mutant::NeverReports, "is lost or a node was not woken");
}

#[test]
fn a_report_that_denies_an_arrival_is_detected() {
    assert_detected(Mutant::DeniesArrivals, "reported as not arrived");
}

#[test]
fn a_node_that_is_not_woken_is_detected() {
    assert_detected(Mutant::MissesWakeup, "is lost or a node was not woken");
}

#[test]
fn a_rumor_that_is_not_passed_on_is_detected() {
    assert_detected(Mutant::KeepsRumors, "does not know rumor");
}

#[test]
fn a_node_that_does_not_end_is_detected() {
    assert_detected(Mutant::NeverEnds, "does not end");
}

#[test]
fn a_connection_with_a_revoked_key_is_detected() {
    assert_detected(Mutant::KeepsRevoked, "a revoked key of node");
}

#[test]
fn a_listener_that_accepts_a_revoked_key_is_detected() {
    assert_detected(Mutant::AcceptsRevoked, "a revoked key of node");
}

#[test]
fn a_node_that_panics_is_detected() {
    assert_detected(Mutant::Panics, "has panicked");
}

#[test]
fn connections_that_are_not_closed_are_detected() {
    let plan = Plan::virtual_time(40, 15.0, 1);
    assert_detected_in(plan, Mutant::KeepsConnections, "connections, and 9.0 are expected");
}
