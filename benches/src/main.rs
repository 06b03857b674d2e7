//! The program `chat-bench`.

fn main() -> std::process::ExitCode {
    chat_bench::program::main()
}
