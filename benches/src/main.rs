//! The program `chat-bench`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    chat_bench::program::main()
}
