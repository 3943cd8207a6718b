//! Reports as text for people.

mod bundle;
