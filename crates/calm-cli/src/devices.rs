//! `--device` and `--devices`, and work that several devices share.

use calm_eval::Replica;
use calm_lm::{DEVICE_FORMS, NamedDevice};

use crate::error::Result;
use crate::output::tell;

/// One device, or several.
#[derive(clap::Args)]
pub struct DevicesArgs {
    /// The device.
    #[arg(long, default_value = "flex", help = format!("The device: {DEVICE_FORMS}"))]
    pub device: String,
    /// Several devices, such as cuda:0,cuda:1 or remote:ws://HOST:PORT/0,...: each has the model and
    /// takes its share of the parts of a training step (`accumulate` of the stage), the windows of an
    /// evaluation, or the prompts of a batch. The first also has what is not shared. Only training limits
    /// the wait for a remote one.
    #[arg(
        long,
        value_delimiter = ',',
        conflicts_with = "device",
        value_name = "DEVICE,.."
    )]
    pub devices: Vec<String>,
}

impl DevicesArgs {
    /// The devices, one at least. What remote ones lack is said on stderr.
    pub fn open(&self) -> Result<Vec<NamedDevice>> {
        let names = match self.devices.as_slice() {
            [] => std::slice::from_ref(&self.device),
            several => several,
        };
        let devices = NamedDevice::open_all(names)?;
        for remote in devices.iter().filter(|device| device.is_remote()) {
            tell(&format!(
                "{}: kernels in their plain versions, from Burn's own operations",
                remote.name
            ));
        }
        Ok(devices)
    }
}

/// The model on every device, by `load`.
pub fn replicas<M>(
    devices: &[NamedDevice],
    load: impl Fn(&NamedDevice) -> Result<M>,
) -> Result<Vec<Replica<M>>> {
    let replica = |device: &NamedDevice| {
        Ok(Replica {
            model: load(device)?,
            device: device.clone(),
        })
    };
    devices.iter().map(replica).collect()
}
