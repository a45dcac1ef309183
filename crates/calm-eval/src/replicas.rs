//! An evaluation on several devices, which share its windows.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};

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

/// What `work(number, replica)` gives for every replica, each on a thread of its own where there are
/// several; `meanwhile` runs on this one.
///
/// # Errors
/// [`EvalError::DeviceLost`] where the work of one of several broke off; all have ended by then. The work of
/// a single one breaks off as it does.
pub fn on_each<M: Send, R: Send>(
    replicas: Vec<Replica<M>>,
    work: impl Fn(usize, Replica<M>) -> R + Sync,
    meanwhile: impl FnOnce(),
) -> Result<Vec<R>, EvalError> {
    if replicas.len() <= 1 {
        let found = replicas.into_iter().map(|replica| work(0, replica));
        let found = found.collect();
        meanwhile();
        return Ok(found);
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = (replicas.into_iter().enumerate())
            .map(|(i, replica)| {
                let (device, work) = (replica.device.name.clone(), &work);
                (device, scope.spawn(move || work(i, replica)))
            })
            .collect();
        meanwhile();
        let ended: Vec<_> = threads
            .into_iter()
            .map(|(device, thread)| (device, thread.join()))
            .collect();
        let found = ended.into_iter().map(|(device, ended)| {
            ended.map_err(|panic| EvalError::DeviceLost {
                device,
                detail: words(panic.as_ref()),
            })
        });
        found.collect()
    })
}

/// Calls `score(replica, windows, give)` for every replica; it scores its windows in order and hands over
/// what it found until there are no more. Returns what was found for `count` windows in their order; `None`
/// where `on_window`, called with the number done, ended it before all of them were, which of several
/// devices finish those under way.
///
/// # Panics
/// Without a replica.
pub(crate) fn each_window<M: Clone + Send, R: Send>(
    replicas: &[Replica<M>],
    count: usize,
    score: impl Fn(&Replica<M>, &mut dyn Iterator<Item = usize>, &mut dyn FnMut(usize, R)) + Sync,
    on_window: &mut dyn FnMut(usize) -> bool,
) -> Result<Option<Vec<R>>, EvalError> {
    assert!(!replicas.is_empty(), "no device to score on");
    let mut found: Vec<Option<R>> = (0..count).map(|_| None).collect();
    let stop = AtomicBool::new(false);
    let going = |_: &usize| !stop.load(Ordering::Relaxed);
    let mut done = 0;
    let mut take = |i: usize, result: R| {
        found[i] = Some(result);
        done += 1;
        if !stop.load(Ordering::Relaxed) && !on_window(done) {
            stop.store(true, Ordering::Relaxed);
        }
    };
    if let [only] = replicas {
        score(only, &mut (0..count).take_while(going), &mut take);
    } else {
        let parts = replicas.len();
        let (to, from) = mpsc::channel();
        // One for each thread, which drops it at its end, whatever that is.
        let senders = Mutex::new(vec![to; parts]);
        let work = |at: usize, replica: Replica<M>| {
            let to = senders.lock().map(|mut all| all.pop());
            let to = to.ok().flatten().expect("one for each thread");
            let _end = EndWithPanic(&stop);
            let mut windows = (at..count).step_by(parts).take_while(going);
            score(&replica, &mut windows, &mut |i, result| {
                _ = to.send((i, result))
            });
        };
        let meanwhile = || from.into_iter().for_each(|(i, result)| take(i, result));
        on_each(replicas.to_vec(), work, meanwhile)?;
    }
    // Of a pass that was ended after its last window nothing is missing.
    Ok(found.into_iter().collect())
}

/// Where a thread breaks off the others need not go on.
struct EndWithPanic<'a>(&'a AtomicBool);

impl Drop for EndWithPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
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
    fn once_told_to_stop_nobody_is_asked_again() {
        for count in [1, 2, 3] {
            let mut asked = 0;
            let score = |_: &Replica<usize>,
                         windows: &mut dyn Iterator<Item = usize>,
                         give: &mut dyn FnMut(usize, usize)| {
                windows.for_each(|i| give(i, i));
            };
            let on_window = &mut |_| {
                asked += 1;
                false
            };
            let found = each_window(&replicas(count), 1000, score, on_window).unwrap();
            assert_eq!(asked, 1);
            assert!(count > 1 || found.is_none());
        }
    }

    #[test]
    fn of_several_lost_devices_the_first_is_named() {
        let work = |i: usize, _: Replica<usize>| assert!(i == 0, "gone");
        let error = on_each(replicas(3), work, || ()).unwrap_err();
        assert_eq!(error.to_string(), "device 'number 1' is lost: gone");
        assert_eq!(
            on_each(replicas(2), |i, r| i + r.model, || ()),
            Ok(vec![0, 2])
        );
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
