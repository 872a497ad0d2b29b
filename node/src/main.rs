//! The `tillmesh` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    tillmesh_node::cli::main()
}
