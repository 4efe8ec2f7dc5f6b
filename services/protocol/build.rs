//! Compiles `sync.proto` without protoc. Bytes become `bytes::Bytes`: what is decoded is a slice of its frame.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=sync.proto");
    let descriptors = protox::compile(["sync.proto"], ["."])?;
    prost_build::Config::new().bytes(["."]).compile_fds(descriptors)?;
    Ok(())
}
