//! Runs an untrusted command with the isolation that the host offers, and says which that was.
