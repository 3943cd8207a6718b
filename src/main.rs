//! The program. `trivy_ferry::cli` is the command line.

fn main() -> std::process::ExitCode {
    trivy_ferry::cli::main()
}
