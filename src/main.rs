//! The program: parses the command line, runs the verb, renders the outcome.

fn main() {}
