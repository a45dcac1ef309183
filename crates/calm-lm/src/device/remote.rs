//! Devices of other machines, through Burn's compute server.

use std::net::SocketAddr;
use std::path::PathBuf;

use burn::tensor::Device;

use crate::{Error, Result};

/// The environment variable with the token that servers ask for.
pub const TOKEN_VARIABLE: &str = "CALM_DEVICE_TOKEN";

/// The token in [`TOKEN_VARIABLE`], the same for a server and its clients; none where it is empty.
pub fn device_token() -> Option<String> {
    let token = std::env::var(TOKEN_VARIABLE).ok()?;
    let token = token.trim();
    (!token.is_empty()).then(|| token.to_owned())
}

/// How a server is reached.
#[derive(Clone, Debug)]
pub enum Listen {
    /// WebSocket, which is not encrypted: a token that others can read stops strays, nobody else.
    WebSocket(SocketAddr),
    /// Iroh: encrypted, and both ends know each other by key.
    Iroh {
        /// UDP port, on all interfaces.
        port: u16,
        /// Where the server's key is kept; made where there is none.
        key: PathBuf,
        /// Reachable through public relays too, from any network.
        relays: bool,
    },
}

/// Serves `devices`, which are of one executor, until Ctrl-C. `ready` gets the device string of the
/// first once the server is bound, or is about to be; where it listens on all interfaces, THIS_HOST
/// stands for the machine's name.
///
/// # Errors
/// Where the address is taken or the key can't be read; a build without feature `remote`.
pub fn serve_devices(
    devices: Vec<Device>,
    listen: Listen,
    token: Option<&str>,
    ready: impl FnOnce(&str),
) -> Result<()> {
    imp::serve(devices, listen, token, ready)
}

pub(super) use imp::open;

#[cfg(not(feature = "remote"))]
mod imp {
    use super::*;

    fn not_compiled<T>(given: &str) -> Result<T> {
        Err(Error::NotCompiled {
            given: given.to_owned(),
            feature: "remote",
        })
    }

    pub fn open(given: &str) -> Result<Device> {
        not_compiled(given)
    }

    pub fn serve(_: Vec<Device>, _: Listen, _: Option<&str>, _: impl FnOnce(&str)) -> Result<()> {
        not_compiled("remote")
    }
}

#[cfg(feature = "remote")]
mod imp {
    use std::net::{TcpListener, ToSocketAddrs};
    use std::path::Path;

    use burn::remote::{ConnectError, IrohHost, IrohIdentity, IrohRelays, RemoteHost};
    use burn::server::{
        IrohTransport, RemoteServer, TokenAuthorizer, Transport, WebSocketTransport,
    };

    use super::*;
    use crate::DEVICE_FORMS;

    pub fn open(given: &str) -> Result<Device> {
        let unknown = || Error::UnknownDevice {
            given: given.to_owned(),
            known: DEVICE_FORMS,
        };
        let address = given.strip_prefix("remote:").ok_or_else(unknown)?;
        let (scheme, place) = address.split_once("://").ok_or_else(unknown)?;
        let (place, index) = match place.split_once('/') {
            Some((place, index)) => (place, index.parse::<u32>().map_err(|_| unknown())?),
            None => (place, 0),
        };
        let host = match scheme {
            "ws" if !place.is_empty() => RemoteHost::websocket(&format!("ws://{place}")),
            "iroh" => RemoteHost::iroh(iroh_host(place).ok_or_else(unknown)?),
            _ => return Err(unknown()),
        };
        let host = match device_token() {
            Some(token) => host.with_credential(token.as_str()),
            None => host,
        };
        let options = Device::remote_options(&host).device_index(index);
        options.init().map_err(|error| Error::Remote {
            device: given.to_owned(),
            detail: match error {
                ConnectError::Unauthorized => {
                    format!("it refuses the token in {TOKEN_VARIABLE}, or wants one")
                }
                other => other.to_string(),
            },
        })
    }

    /// What clients elsewhere put their way to this machine for.
    const HERE: &str = "THIS_HOST";

    /// `ID@HOST:PORT`, reached directly, or `ID`, looked up through public relays.
    fn iroh_host(place: &str) -> Option<IrohHost> {
        let Some((id, address)) = place.split_once('@') else {
            let id: burn::remote::EndpointId = place.parse().ok()?;
            return Some(IrohHost::new(id));
        };
        let id: burn::remote::EndpointId = id.parse().ok()?;
        let host = IrohHost::new(id).with_relays(IrohRelays::Disabled);
        Some(host.with_address(address.to_socket_addrs().ok()?.next()?))
    }

    pub fn serve(
        devices: Vec<Device>,
        listen: Listen,
        token: Option<&str>,
        ready: impl FnOnce(&str),
    ) -> Result<()> {
        let mut server = RemoteServer::new(devices);
        if let Some(token) = token {
            let authorizer = TokenAuthorizer::new(token).map_err(|error| Error::Remote {
                device: TOKEN_VARIABLE.to_owned(),
                detail: error.to_string(),
            })?;
            server = server.with_authorizer(authorizer);
        }
        let (transport, address): (Transport, String) = match listen {
            Listen::WebSocket(at) => {
                let cannot = |source| Error::Io {
                    path: at.to_string().into(),
                    source,
                };
                let listener = TcpListener::bind(at).map_err(cannot)?;
                let at = listener.local_addr().map_err(cannot)?;
                let transport = WebSocketTransport::from_listener(listener);
                let host = match at.ip().is_unspecified() {
                    true => format!("{HERE}:{}", at.port()),
                    false => at.to_string(),
                };
                (transport.into(), format!("remote:ws://{host}"))
            }
            Listen::Iroh { port, key, relays } => {
                let identity = identity(&key)?;
                let transport = IrohTransport::new(identity).with_port(port);
                let id = transport.id();
                match relays {
                    true => (transport.into(), format!("remote:iroh://{id}")),
                    false => (
                        transport.with_relays(IrohRelays::Disabled).into(),
                        format!("remote:iroh://{id}@{HERE}:{port}"),
                    ),
                }
            }
        };
        ready(&address);
        server.serve(transport).map_err(|error| Error::Remote {
            device: address,
            detail: error.to_string(),
        })
    }

    fn identity(key: &Path) -> Result<IrohIdentity> {
        IrohIdentity::load_or_create(key).map_err(Error::io(key))
    }
}
