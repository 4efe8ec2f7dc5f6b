//! `terraform-provider-bigpeer`: what Terraform starts to make tenants, apps and all below them on a bigpeer server.
//! `terraform-provider-bigpeer docs FOLDER` writes the documentation of its resources.

mod client;
mod connection;
mod data_source;
mod docs;
mod field;
mod kinds;
mod mapping;
mod provider;
mod resource;
mod rules;
mod value;

use std::path::Path;
use std::process::ExitCode;

use provider::BigpeerProvider;

/// What Terraform sets for the plugins that it starts.
const STARTED_BY_TERRAFORM: &str = "TF_PLUGIN_MAGIC_COOKIE";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["docs", folder] => docs::write(Path::new(folder)).map_err(|error| error.to_string()),
        [] if std::env::var_os(STARTED_BY_TERRAFORM).is_some() => {
            tf_provider::serve("bigpeer", BigpeerProvider::new()).await.map_err(|error| format!("{error:#}"))
        }
        _ => Err("this is a plugin, which Terraform starts; 'docs FOLDER' writes its documentation".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            #[allow(clippy::print_stderr, reason = "a command line program says why it fails")]
            {
                eprintln!("terraform-provider-bigpeer: {message}");
            }
            ExitCode::FAILURE
        }
    }
}
