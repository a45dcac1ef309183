//! An evaluation on several devices, which share its windows.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use burn::tensor::Device;
use calm_lm::NamedDevice;

use crate::EvalError;

/// A model and the device that it lives on, without autodiff. Of several, number i scores the windows
/// i, i + n, i + 2n, ..; every window has draws of its own, so that the scores are those of one device up
/// to rounding.
#[derive(Clone, Debug)]
pub struct Replica<M> {
    /// The model.
    pub model: M,
    /// Its device.
    pub device: NamedDevice,
}

impl<M: Clone> Replica<M> {
    /// A model on one device, which needs no name.
    pub(crate) fn only(model: &M, device: &Device) -> Self {
        Self {
            model: model.clone(),
            device: NamedDevice {
                name: String::new(),
                device: device.clone(),
            },
        }
    }
}

/// Calls `score(replica, windows, give)` for every replica, each on a thread of its own where there are
/// several; it scores its windows in order and hands over what it found until it is told to stop. Returns
/// what was found for `count` windows in their order; `None` where `on_window`, called with the number
/// done, ended it.
pub(crate) fn each_window<M: Clone + Send, R: Send>(
    replicas: &[Replica<M>],
    count: usize,
    score: impl Fn(&Replica<M>, &mut dyn Iterator<Item = usize>, &mut dyn FnMut(usize, R)) + Sync,
    on_window: &mut dyn FnMut(usize) -> bool,
) -> Result<Option<Vec<R>>, EvalError> {
    let mut found: Vec<Option<R>> = (0..count).map(|_| None).collect();
    let stop = AtomicBool::new(false);
    let going = |_: &usize| !stop.load(Ordering::Relaxed);
    let mut done = 0;
    let mut take = |i: usize, result: R| {
        found[i] = Some(result);
        done += 1;
        if !on_window(done) {
            stop.store(true, Ordering::Relaxed);
        }
    };
    match replicas {
        // What it ends with is the caller's.
        [only] => score(only, &mut (0..count).take_while(going), &mut take),
        several => {
            let (to, from) = mpsc::channel::<Result<(usize, R), EvalError>>();
            let step = several.len();
            std::thread::scope(|scope| {
                for (at, replica) in several.iter().enumerate() {
                    let (replica, to) = (replica.clone(), to.clone());
                    let (score, going) = (&score, &going);
                    scope.spawn(move || {
                        let mut windows = (at..count).step_by(step).take_while(going);
                        let mut give = |i, result| _ = to.send(Ok((i, result)));
                        let all = || score(&replica, &mut windows, &mut give);
                        if let Err(panic) = catch_unwind(AssertUnwindSafe(all)) {
                            _ = to.send(Err(EvalError::DeviceLost {
                                device: replica.device.name.clone(),
                                detail: words(panic.as_ref()),
                            }));
                        }
                    });
                }
                drop(to);
                for result in &from {
                    match result {
                        Ok((i, result)) => take(i, result),
                        Err(lost) => {
                            stop.store(true, Ordering::Relaxed);
                            return Err(lost);
                        }
                    }
                }
                Ok(())
            })?;
        }
    }
    // Of a pass that was ended after its last window nothing is missing.
    Ok(found.into_iter().collect())
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text,
        (None, Some(text)) => *text,
        (None, None) => "it broke off",
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replicas(count: usize) -> Vec<Replica<usize>> {
        let device = NamedDevice::open("flex").unwrap();
        (0..count)
            .map(|model| Replica {
                model,
                device: NamedDevice {
                    name: format!("number {model}"),
                    ..device.clone()
                },
            })
            .collect()
    }

    fn scored(count: usize, last: usize) -> Result<Option<Vec<(usize, usize)>>, EvalError> {
        let score = |replica: &Replica<usize>,
                     windows: &mut dyn Iterator<Item = usize>,
                     give: &mut dyn FnMut(usize, (usize, usize))| {
            windows.for_each(|i| give(i, (i, replica.model)));
        };
        each_window(&replicas(count), 7, score, &mut |done| done < last)
    }

    #[test]
    fn windows_are_shared_and_come_back_in_order() {
        for count in [1, 2, 3, 9] {
            let found = scored(count, 100).unwrap().unwrap();
            let expected: Vec<_> = (0..7).map(|i| (i, i % count)).collect();
            assert_eq!(found, expected);
            // Ended after the last it is complete.
            assert!(scored(count, 7).unwrap().is_some());
        }
        assert_eq!(scored(1, 3).unwrap(), None);
    }

    #[test]
    fn a_lost_device_is_named_and_ends_the_others() {
        let score = |replica: &Replica<usize>,
                     windows: &mut dyn Iterator<Item = usize>,
                     give: &mut dyn FnMut(usize, usize)| {
            for i in windows {
                assert!(replica.model != 1, "no\nanswer");
                give(i, i);
            }
        };
        let error = each_window(&replicas(3), 30, score, &mut |_| true).unwrap_err();
        let lost = EvalError::DeviceLost {
            device: "number 1".into(),
            detail: "no answer".into(),
        };
        assert_eq!(error, lost);
    }
}
