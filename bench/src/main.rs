//! The `corecached-bench` binary: one subcommand for each kind of measurement.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use corecached_bench::{compare, generators, load, memory, replay, resize, tails};

/// Load generator, trace replay and comparisons for corecached and its peers.
#[derive(Debug, Parser)]
#[command(name = "corecached-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Load(load::LoadArgs),
    Replay(replay::ReplayArgs),
    Compare(compare::CompareArgs),
    Memory(memory::MemoryArgs),
    Resize(resize::ResizeArgs),
    Tails(tails::TailsArgs),
    Generators(generators::GeneratorsArgs),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Load(args) => load::main(&args),
        Command::Replay(args) => replay::main(&args),
        Command::Compare(args) => compare::main(&args),
        Command::Resize(args) => resize::main(&args),
        Command::Tails(args) => tails::main(&args),
        Command::Memory(args) => memory::main(&args),
        Command::Generators(args) => generators::main(&args),
    };
    outcome.unwrap_or_else(|failure| {
        eprintln!("corecached-bench: {failure}");
        ExitCode::FAILURE
    })
}
