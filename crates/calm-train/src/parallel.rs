//! Data-parallel steps: the parts of a step on several devices, and what is read back from them.
//!
//! A step is `accumulate` parts, each with draws of its own, whose gradients are summed. Part i is
//! computed on device i modulo their number, by a copy of the model. Each device sums the gradients of its
//! parts, and the sums move to the first, which has model, optimizer and evaluation. So a step is the same
//! whatever it is computed on, up to rounding.

use std::sync::mpsc;
use std::time::Duration;

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Tensor};
use calm_kernels::{MatmulPrecision, with_gradient_checkpointing, with_matmul_precision};
use calm_lm::NamedDevice;
use calm_nn::{HostDraws, chunk_tensor};
use calm_records::Stage;

use crate::all_reduce::{self, Collective};
use crate::config::{Experiment, Stages};
use crate::step_loop::{StageTask, StepLoss};
use crate::{Error, Result};

/// A part of a step: its windows and the seed of its draws.
pub(crate) struct Part {
    pub tokens: Vec<u32>,
    pub windows: usize,
    pub draws: u64,
}

/// Whether a step has parts enough for every device in the stages that are to run; `autoencoder`, that
/// is among them where all stages are.
pub(crate) fn check_parts(
    experiment: &Experiment,
    stages: Stages,
    autoencoder: bool,
    devices: usize,
) -> Result<()> {
    let wanted: &[Stage] = match stages {
        Stages::Baseline => &[Stage::Baseline],
        Stages::Autoencoder => &[Stage::Autoencoder],
        Stages::All if autoencoder => &[Stage::Autoencoder, Stage::Lm],
        Stages::All | Stages::Lm => &[Stage::Lm],
    };
    for &stage in wanted {
        let parts = experiment.stage(stage).accumulate;
        if parts < devices {
            return Err(Error::FewParts {
                stage,
                parts,
                devices,
            });
        }
    }
    Ok(())
}

/// The devices of a run: the first, and others that take parts of each step.
#[derive(Clone, Copy)]
pub(crate) struct Devices<'a> {
    first: &'a NamedDevice,
    others: &'a [NamedDevice],
    /// What a remote one has for a step.
    timeout: Duration,
    /// Whether gradients are summed by all devices at once.
    all_reduce: bool,
}

impl<'a> Devices<'a> {
    pub(crate) fn new(
        first: &'a NamedDevice,
        others: &'a [NamedDevice],
        timeout: Duration,
        all_reduce: bool,
    ) -> Self {
        Self {
            first,
            others,
            timeout,
            all_reduce,
        }
    }

    pub(crate) fn len(self) -> usize {
        1 + self.others.len()
    }

    /// The first, and the others.
    pub(crate) fn all(self) -> impl Iterator<Item = &'a NamedDevice> {
        std::iter::once(self.first).chain(self.others)
    }

    fn named(self, i: usize) -> &'a NamedDevice {
        self.all().nth(i).expect("a device of the run")
    }

    /// A number that a device holds. A remote device that is gone, or does not answer in time, is an
    /// error with its name.
    pub(crate) fn read(self, i: usize, value: Tensor<1>) -> Result<f64> {
        self.answer(i, value).map_err(|detail| self.lost(i, detail))
    }

    /// Work for device i failed: it is lost, or another that it waited for.
    fn lost(self, i: usize, detail: String) -> Error {
        let is_lost = |&j: &usize| {
            let zero = Tensor::zeros([1], &self.named(j).device);
            j != i && self.answer(j, zero).is_err()
        };
        let lost = (0..self.len()).find(is_lost).unwrap_or(i);
        let device = self.named(lost).name.clone();
        Error::DeviceLost { device, detail }
    }

    /// The number, or in one line why there is none.
    fn answer(self, i: usize, value: Tensor<1>) -> std::result::Result<f64, String> {
        let answer = self.in_time([i, i], move || value.try_into_scalar::<f32>())?;
        let words = |e: String| e.split_whitespace().collect::<Vec<_>>().join(" ");
        answer.map(f64::from).map_err(|e| words(e.to_string()))
    }

    /// Work that waits for two devices, which may never answer.
    fn in_time<R: Send + 'static>(
        self,
        ends: [usize; 2],
        work: impl FnOnce() -> R + Send + 'static,
    ) -> std::result::Result<R, String> {
        if !ends.iter().any(|&end| self.named(end).is_remote()) {
            return Ok(work());
        }
        let (to, from) = mpsc::channel();
        // Where nothing comes this thread goes on waiting until the process ends.
        std::thread::spawn(move || to.send(work()));
        from.recv_timeout(self.timeout).map_err(|e| match e {
            mpsc::RecvTimeoutError::Timeout => {
                format!("no answer within {} s", self.timeout.as_secs())
            }
            mpsc::RecvTimeoutError::Disconnected => "it broke off".to_owned(),
        })
    }

    /// The sum of the devices' gradients on the first, to which the others send theirs.
    fn gather<M: Module + 'static>(
        self,
        model: &M,
        of_devices: Vec<GradientsParams>,
        first: &Device,
        replicas: &[M],
    ) -> Result<GradientsParams> {
        let mut all = GradientsAccumulator::new();
        for (at, gradients) in of_devices.into_iter().enumerate() {
            let gradients = match at {
                0 => gradients,
                at => {
                    let (first, replica) = (first.clone(), replicas[at - 1].clone());
                    let moved =
                        self.in_time([0, at], move || gradients.to_device(&first, &replica));
                    moved.map_err(|detail| self.lost(at, detail))?
                }
            };
            all.accumulate(model, gradients);
        }
        Ok(all.grads())
    }

    fn collective(self) -> Collective {
        let devices = self.all().map(|named| named.device.clone()).collect();
        Collective { devices }
    }

    /// Whether the first device answers: before what can't fail is asked of it.
    pub(crate) fn check_first(self) -> Result<()> {
        match self.first.is_remote() {
            true => {
                let zero = Tensor::zeros([1], &self.first.device);
                self.read(0, zero).map(|_| ())
            }
            false => Ok(()),
        }
    }
}

/// How a part is computed.
#[derive(Clone, Copy)]
pub(crate) struct Method {
    pub precision: MatmulPrecision,
    pub checkpointing: bool,
}

impl Method {
    fn run<R>(self, work: impl FnOnce() -> R) -> R {
        with_matmul_precision(self.precision, || {
            with_gradient_checkpointing(self.checkpointing, work)
        })
    }
}

/// What a step's parts gave.
pub(crate) struct Summed {
    /// The losses of the parts, each with the device that holds it.
    pub losses: Vec<(usize, StepLoss)>,
    /// Their mean.
    pub loss: f64,
    /// The mean of the parts' gradients, on the first device.
    pub gradients: GradientsParams,
}

/// Losses and gradients of a step.
pub(crate) fn gradients<T: StageTask>(
    task: &T,
    model: &T::Model,
    parts: &[Part],
    devices: Devices<'_>,
    method: Method,
    k: usize,
) -> Result<Summed> {
    let autodiff: Vec<Device> = devices
        .all()
        .map(|named| named.device.clone().autodiff())
        .collect();
    let mut replicas: Vec<T::Model> = Vec::with_capacity(devices.len() - 1);
    for (at, device) in autodiff.iter().enumerate().skip(1) {
        let (model, device) = (model.clone(), device.clone());
        // From one device to the other where both are of one kind; not through this process.
        let replica = devices.in_time([0, at], move || model.fork(&device));
        replicas.push(replica.map_err(|detail| devices.lost(at, detail))?);
    }
    let mut losses = Vec::with_capacity(parts.len());
    // Each device sums its own parts as they come: it has one set of gradients, and one more while a part
    // is computed, whatever their number.
    let mut sums: Vec<_> = (0..devices.len())
        .map(|_| GradientsAccumulator::<T::Model>::new())
        .collect();
    for (i, part) in parts.iter().enumerate() {
        let at = i % devices.len();
        let (device, of_part) = match at {
            0 => (&autodiff[0], model),
            at => (&autodiff[at], &replicas[at - 1]),
        };
        let tokens = chunk_tensor(&part.tokens, part.windows, k, device);
        let mut draws = HostDraws::new(part.draws);
        let gradients = method.run(|| {
            let loss = task.loss(of_part, tokens, &mut draws);
            // The accumulator sums; the step is to follow the mean.
            let gradients = (loss.total.clone() / parts.len() as f64).backward();
            losses.push((at, loss));
            GradientsParams::from_grads(gradients, of_part)
        });
        sums[at].accumulate(of_part, gradients);
    }
    // All parts are under way before the first is waited for. The losses come first: one that can't be
    // read names its device.
    let totals = losses.iter().map(|(at, loss)| (*at, &loss.total));
    let loss = mean(devices, totals)?;
    let sums = sums.into_iter().map(|mut sum| sum.grads()).collect();
    let gradients = match devices.all_reduce {
        true => all_reduce::sum(model, sums, &devices.collective()),
        false => devices.gather(model, sums, &autodiff[0], &replicas)?,
    };
    Ok(Summed {
        losses,
        loss,
        gradients,
    })
}

/// The mean of numbers on several devices.
pub(crate) fn mean<'a>(
    devices: Devices<'_>,
    values: impl ExactSizeIterator<Item = (usize, &'a Tensor<1>)>,
) -> Result<f64> {
    let count = values.len() as f64;
    let mut sum = 0.0;
    for (at, value) in values {
        sum += devices.read(at, value.clone())?;
    }
    Ok(sum / count)
}
