//! `calm serve-device`: this machine's devices for trainers elsewhere.

use std::net::SocketAddr;
use std::path::PathBuf;

use calm_lm::{DEVICE_FORMS, Listen, TOKEN_VARIABLE, device_token, open_device, serve_devices};

use crate::error::{CliError, Result};
use crate::output::tell;

#[derive(clap::Args)]
pub struct Args {
    /// The device; several of one kind are numbered for clients in the order given.
    #[arg(
        long,
        default_value = "flex",
        value_delimiter = ',',
        help = format!("The device or devices, of one kind: {DEVICE_FORMS}")
    )]
    device: Vec<String>,
    /// The address for WebSocket clients, which is not encrypted; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:41001", value_name = "HOST:PORT")]
    listen: SocketAddr,
    /// Serve by Iroh instead, encrypted, on this UDP port of all interfaces.
    #[arg(long, value_name = "PORT", conflicts_with = "listen")]
    iroh: Option<u16>,
    /// With --iroh: where the server's key is kept; made where there is none.
    #[arg(long, value_name = "FILE", default_value = "calm-device.key")]
    key: PathBuf,
    /// With --iroh: reachable through public relays too, from any network.
    #[arg(long, requires = "iroh")]
    relays: bool,
    /// Serve whoever comes, without a token.
    #[arg(long)]
    insecure: bool,
}

pub fn run(args: Args) -> Result<()> {
    let token = match (device_token(), args.insecure) {
        (_, true) => None,
        (None, false) => {
            return Err(CliError::Usage(format!(
                "a server asks its clients for a token: set {TOKEN_VARIABLE} here and there, or \
                 pass --insecure"
            )));
        }
        (token, false) => token,
    };
    let is_cpu = |name: &String| name == "flex";
    if args.device.iter().any(is_cpu) && !args.device.iter().all(is_cpu) {
        let message = "a server has devices of one executor: flex alone, or GPUs";
        return Err(CliError::Usage(message.to_owned()));
    }
    let devices: calm_lm::Result<Vec<_>> =
        args.device.iter().map(|name| open_device(name)).collect();
    let listen = match args.iroh {
        Some(port) => Listen::Iroh {
            port,
            key: args.key,
            relays: args.relays,
        },
        None => Listen::WebSocket(args.listen),
    };
    serve_devices(devices?, listen, token.as_deref(), |address| {
        let guard = match &token {
            Some(_) => "",
            None => ", open to whoever reaches it",
        };
        tell(&format!(
            "serving {} as {address}{guard}",
            args.device.join(", ")
        ));
    })?;
    Ok(())
}
