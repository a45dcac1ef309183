//! `--device` and `--devices`, and work that several devices share.

use calm_eval::Replica;
use calm_lm::{DEVICE_FORMS, NamedDevice};

use crate::error::{CliError, Result};
use crate::output::tell;

/// One device, or several.
#[derive(clap::Args)]
pub struct DevicesArgs {
    /// The device.
    #[arg(long, default_value = "flex", help = format!("The device: {DEVICE_FORMS}"))]
    pub device: String,
    /// Several devices, such as cuda:0,cuda:1 or remote:ws://HOST:PORT/0,...: each has the model and
    /// takes its share of the parts of a training step (`accumulate` of the stage), the windows of an
    /// evaluation, or the prompts of a batch. The first also has what is not shared.
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

/// What `work(number, replica)` gives for every replica, each on a thread of its own where there are
/// several.
pub fn on_each<M: Send, R: Send>(
    replicas: Vec<Replica<M>>,
    work: impl Fn(usize, Replica<M>) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    if replicas.len() == 1 {
        let alone = replicas.into_iter().map(|replica| work(0, replica));
        return alone.collect();
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = (replicas.into_iter().enumerate())
            .map(|(i, replica)| {
                let (name, work) = (replica.device.name.clone(), &work);
                (name, scope.spawn(move || work(i, replica)))
            })
            .collect();
        let results = threads.into_iter().map(|(name, thread)| {
            let broke_off = |_| CliError::Usage(format!("device '{name}' is lost: it broke off"));
            thread.join().map_err(broke_off)?
        });
        results.collect()
    })
}
