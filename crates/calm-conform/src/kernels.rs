//! The operations of calm-kernels: values, and where they have them the gradients of all inputs.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{Device, Int, Tensor, TensorData};
use calm_kernels::{
    AdamW, ArgmaxTable, Band, Depth, KeyedDraws, LocalKeys, Projection, normals, reference,
};

use crate::{Error, Outputs};

/// Sizes by name.
pub(crate) struct Sizes<'a> {
    operation: &'a str,
    sizes: &'a BTreeMap<String, usize>,
    /// Those that were asked for.
    known: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Sizes<'a> {
    pub(crate) fn new(operation: &'a str, sizes: &'a BTreeMap<String, usize>) -> Self {
        let known = RefCell::default();
        Self {
            operation,
            sizes,
            known,
        }
    }

    fn get(&self, name: &'static str) -> Result<usize, Error> {
        let missing = || Error::Size {
            operation: self.operation.to_owned(),
            size: name,
        };
        self.known.borrow_mut().insert(name);
        self.sizes.get(name).copied().ok_or_else(missing)
    }

    /// A size that nothing asked for is a mistake.
    fn check(&self) -> Result<(), Error> {
        let known = self.known.borrow();
        match self
            .sizes
            .keys()
            .find(|size| !known.contains(size.as_str()))
        {
            None => Ok(()),
            Some(size) => Err(Error::UnknownSize {
                operation: self.operation.to_owned(),
                size: size.clone(),
            }),
        }
    }
}

/// Numbers of about the size of activations.
fn numbers<const D: usize>(shape: [usize; D], seed: u64) -> TensorData {
    TensorData::new(normals(seed, shape.iter().product()), shape)
}

fn ids<const D: usize>(shape: [usize; D], below: usize, device: &Device) -> Tensor<D, Int> {
    let n: usize = shape.iter().product();
    let ids: Vec<i32> = (0..n).map(|i| (i * 7 % below) as i32).collect();
    Tensor::from_data(TensorData::new(ids, shape), device)
}

/// The value of an expression of leaves, without autodiff and with it, and their gradients for one
/// random upstream gradient.
macro_rules! measured {
    ($device:expr, [$($name:ident: $rank:literal = $data:expr),* $(,)?], $value:expr) => {{
        let mut outputs = Outputs::default();
        {
            $(let $name = Tensor::<$rank>::from_data($data, $device);)*
            outputs.add_tensor("value", $value);
        }
        let autodiff = $device.clone().autodiff();
        $(let $name = Tensor::<$rank>::from_data($data, &autodiff).require_grad();)*
        let y = $value;
        let upstream = Tensor::from_data(numbers(y.dims(), 99), &y.device());
        let gradients = (y.clone() * upstream).sum().backward();
        outputs.add_tensor("value under autodiff", y);
        $(
            let gradient = $name.grad(&gradients).expect("the graph reaches every input");
            outputs.add_tensor(concat!("gradient of ", stringify!($name)), gradient);
        )*
        outputs
    }};
}

/// An operation on `device`; `plain`, in tensor operations.
pub(crate) fn run(sizes: &Sizes<'_>, device: &Device, plain: bool) -> Result<Outputs, Error> {
    let outputs = measure(sizes, device, plain)?;
    sizes.check()?;
    Ok(outputs)
}

fn measure(sizes: &Sizes<'_>, device: &Device, plain: bool) -> Result<Outputs, Error> {
    let size = |name| sizes.get(name);
    Ok(match sizes.operation {
        "linear" => {
            let [rows, d, out] = [size("rows")?, size("in")?, size("out")?];
            measured!(
                device,
                [
                    x: 2 = numbers([rows, d], 1),
                    w: 2 = numbers([d, out], 2),
                    b: 1 = numbers([out], 3),
                ],
                match plain {
                    true => reference::linear(x.clone(), w.clone(), Some(b.clone())),
                    false => calm_kernels::linear(x.clone(), w.clone(), Some(b.clone())),
                }
            )
        }
        "linear_by_table" => {
            let [rows, d, vocab] = [size("rows")?, size("in")?, size("out")?];
            measured!(
                device,
                [x: 2 = numbers([rows, d], 1), table: 2 = numbers([vocab, d], 2)],
                match plain {
                    true => x.clone().matmul(table.clone().transpose()),
                    false => calm_kernels::linear_by_table(x.clone(), table.clone()),
                }
            )
        }
        "rms_norm" => {
            let [rows, d] = [size("rows")?, size("width")?];
            measured!(
                device,
                [x: 2 = numbers([rows, d], 1), w: 1 = numbers([d], 2)],
                match plain {
                    true => reference::rms_norm(x.clone(), w.clone(), 1e-6),
                    false => calm_kernels::rms_norm(x.clone(), w.clone(), 1e-6),
                }
            )
        }
        "layer_norm" => {
            let [rows, d] = [size("rows")?, size("width")?];
            measured!(
                device,
                [x: 2 = numbers([rows, d], 1), w: 1 = numbers([d], 2), b: 1 = numbers([d], 3)],
                match plain {
                    true => reference::layer_norm(x.clone(), w.clone(), b.clone(), 1e-6),
                    false => calm_kernels::layer_norm(x.clone(), w.clone(), b.clone(), 1e-6),
                }
            )
        }
        "silu" => {
            let [rows, d] = [size("rows")?, size("width")?];
            measured!(
                device,
                [x: 2 = numbers([rows, d], 1)],
                match plain {
                    true => burn::tensor::activation::silu(x.clone()),
                    false => calm_kernels::silu(x.clone()),
                }
            )
        }
        "silu_add" => {
            let [copies, rows, d] = [size("copies")?, size("rows")?, size("width")?];
            measured!(
                device,
                [x: 3 = numbers([copies, rows, d], 1), y: 2 = numbers([rows, d], 2)],
                match plain {
                    true => reference::silu_add(x.clone(), y.clone()),
                    false => calm_kernels::silu_add(x.clone(), y.clone()),
                }
            )
        }
        "silu_gate" => {
            let [rows, d] = [size("rows")?, size("width")?];
            measured!(
                device,
                [gate: 2 = numbers([rows, d], 1), up: 2 = numbers([rows, d], 2)],
                match plain {
                    true => reference::silu_gate(gate.clone(), up.clone()),
                    false => calm_kernels::silu_gate(gate.clone(), up.clone()),
                }
            )
        }
        "silu_gate_packed" => {
            let [rows, d] = [size("rows")?, size("width")?];
            measured!(
                device,
                [both: 2 = numbers([rows, 2 * d], 1)],
                match plain {
                    true => reference::silu_gate_packed(both.clone()),
                    false => calm_kernels::silu_gate_packed(both.clone()),
                }
            )
        }
        "rope" => {
            let [positions, heads, half] = [size("positions")?, size("heads")?, size("half")?];
            let table = |seed, like: &Tensor<3>| {
                Tensor::<2>::from_data(numbers([positions, half], seed), &like.device())
            };
            measured!(
                device,
                [x: 3 = numbers([2, positions, 2 * half * heads], 1)],
                {
                    let (cos, sin) = (table(2, &x), table(3, &x));
                    match plain {
                        true => reference::rope(x.clone(), cos, sin),
                        false => calm_kernels::rope(x.clone(), cos, sin),
                    }
                }
            )
        }
        "causal_attention" => {
            let [positions, width] = [size("positions")?, size("width")?];
            let [heads, kv_heads] = [size("heads")?, size("kv_heads")?];
            let kv = kv_heads * width;
            measured!(
                device,
                [
                    q: 3 = numbers([2, positions, heads * width], 1),
                    k: 3 = numbers([2, positions, kv], 2),
                    v: 3 = numbers([2, positions, kv], 3),
                ],
                {
                    let (q, k, v) = (q.clone(), k.clone(), v.clone());
                    match plain {
                        true => reference::causal_attention(q, k, v, heads, kv_heads),
                        false => calm_kernels::causal_attention(q, k, v, heads, kv_heads),
                    }
                }
            )
        }
        "local_attention" => {
            let [positions, width] = [size("positions")?, size("width")?];
            let [heads, kv_heads] = [size("heads")?, size("kv_heads")?];
            let (window, chunk) = (size("window")?, size("chunk")?);
            let (kv, band) = (kv_heads * width, Band { window, chunk });
            let memories = positions / chunk;
            measured!(
                device,
                [
                    q: 3 = numbers([2, positions, heads * width], 1),
                    k: 3 = numbers([2, positions, kv], 2),
                    v: 3 = numbers([2, positions, kv], 3),
                    mk: 3 = numbers([2, memories, kv], 4),
                    mv: 3 = numbers([2, memories, kv], 5),
                ],
                {
                    let (q, k, v) = (q.clone(), k.clone(), v.clone());
                    let memory = Some((mk.clone(), mv.clone()));
                    match plain {
                        true => {
                            reference::local_attention(q, k, v, memory, heads, kv_heads, band)
                        }
                        false => {
                            calm_kernels::local_attention(q, k, v, memory, heads, kv_heads, band)
                        }
                    }
                }
            )
        }
        "cross_entropy" | "cross_entropy_tied" => {
            let [rows, d, vocab] = [size("rows")?, size("width")?, size("vocab")?];
            let tied = sizes.operation == "cross_entropy_tied";
            let shape = if tied { [vocab, d] } else { [d, vocab] };
            measured!(
                device,
                [x: 2 = numbers([rows, d], 1), w: 2 = numbers(shape, 2)],
                {
                    let projection = match tied {
                        true => Projection::Embedding(w.clone()),
                        false => Projection::Output(w.clone()),
                    };
                    let targets = ids([rows], vocab, &x.device());
                    match plain {
                        true => reference::cross_entropy(x.clone(), projection, targets),
                        false => calm_kernels::cross_entropy(x.clone(), projection, targets),
                    }
                }
            )
        }
        "gaussian_energy" => {
            let [samples, rows, l] = [size("samples")?, size("rows")?, size("width")?];
            let draws = KeyedDraws {
                count: size("draws")?,
                key: 11,
                antithetic: size("antithetic")? > 0,
            };
            let on = |seed, like: &Tensor<3>| {
                Tensor::<2>::from_data(numbers([rows, l], seed), &like.device()) * 0.5
            };
            measured!(device, [x: 3 = numbers([samples, rows, l], 1)], {
                let (mean, log_std) = (on(2, &x), on(3, &x));
                let (attraction, repulsion) = match plain {
                    true => reference::gaussian_energy(x.clone(), mean, log_std, draws, 1.0),
                    false => calm_kernels::gaussian_energy(x.clone(), mean, log_std, draws, 1.0),
                };
                Tensor::<1>::stack::<2>(vec![attraction, repulsion], 0)
            })
        }
        "adamw" => adamw(size("numbers")?, device, plain),
        "cached_attention" => {
            let [new, held, width] = [size("new")?, size("held")?, size("width")?];
            let [heads, kv_heads] = [size("heads")?, size("kv_heads")?];
            let at = |seed| {
                let data = numbers([2, kv_heads, held + 5, width], seed);
                Tensor::<4>::from_data(data, device)
            };
            let q = Tensor::<3>::from_data(numbers([2, new, heads * width], 1), device);
            let fillers = [held - new, 0];
            let context = match plain {
                true => reference::cached_attention(q, at(2), at(3), held, &fillers),
                false => calm_kernels::cached_attention(q, at(2), at(3), held, &fillers),
            };
            one("value", context)
        }
        "cached_local_attention" => {
            let [new, held, width] = [size("new")?, size("held")?, size("width")?];
            let [heads, kv_heads] = [size("heads")?, size("kv_heads")?];
            let (window, chunk) = (size("window")?, size("chunk")?);
            let at = |rows, seed| {
                Tensor::<4>::from_data(numbers([2, kv_heads, rows, width], seed), device)
            };
            let keys = LocalKeys {
                tokens: (at(held, 2), at(held, 3)),
                first: 0,
                held,
                memory: Some((at(held / chunk, 4), at(held / chunk, 5))),
            };
            let q = Tensor::<3>::from_data(numbers([2, new, heads * width], 1), device);
            let (fillers, band) = ([0, 0], Band { window, chunk });
            let context = match plain {
                true => reference::cached_local_attention(q, &keys, &fillers, band),
                false => calm_kernels::cached_local_attention(q, &keys, &fillers, band),
            };
            one("value", context)
        }
        "argmax" => {
            let [rows, d, vocab] = [size("rows")?, size("width")?, size("vocab")?];
            let x = Tensor::<2>::from_data(numbers([rows, d], 1), device);
            let table = Tensor::<2>::from_data(numbers([vocab, d], 2), device);
            let found = match plain {
                true => reference::argmax(x, table),
                false => ArgmaxTable::new(table).search(x),
            };
            one("value", found.float())
        }
        "int8" => int8(
            [size("rows")?, size("width")?, size("vocab")?],
            device,
            plain,
        ),
        other => return Err(Error::Operation(other.to_owned())),
    })
}

fn one<const D: usize>(name: &str, x: Tensor<D>) -> Outputs {
    let mut outputs = Outputs::default();
    outputs.add_tensor(name, x);
    outputs
}

/// Three steps, and the sum of squares.
fn adamw(n: usize, device: &Device, plain: bool) -> Outputs {
    let tensor = |seed| Tensor::<1>::from_data(numbers([n], seed), device);
    let zeros = || Tensor::<1>::zeros([n], device);
    let mut state = (tensor(1), zeros(), zeros());
    for time in 1..=3 {
        let step = AdamW {
            lr: 0.01,
            weight_decay: 0.1,
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            time,
        };
        let gradient = tensor(10 + time as u64);
        let (parameter, first, second) = state;
        state = match plain {
            true => step.step_reference(parameter, gradient, first, second),
            false => step.step(parameter, gradient, first, second),
        };
    }
    let mut outputs = Outputs::default();
    let squares = match plain {
        true => state.0.clone().square().sum(),
        false => calm_kernels::sum_of_squares(state.0.clone()),
    };
    outputs.add_tensor("parameter", state.0);
    outputs.add_tensor("first moment", state.1);
    outputs.add_tensor("second moment", state.2);
    outputs.add_tensor("sum of squares", squares);
    outputs
}

/// Weights of 8 bits: a product, rows of a table, the search in it; `plain`, of what they stand for.
fn int8([rows, d, vocab]: [usize; 3], device: &Device, plain: bool) -> Outputs {
    let flex = Device::flex();
    let on_device = |weight: Tensor<2>| -> Tensor<2> {
        // Other devices get what it stands for, as a loaded model does.
        match calm_kernels::reads_short_weights(device) && !plain {
            true => weight,
            false => Tensor::from_data(calm_kernels::wide(weight).into_data(), device),
        }
    };
    let weight = calm_kernels::to_int8(numbers([d, vocab], 1), Depth::Rows, &flex);
    let table = calm_kernels::to_int8(numbers([vocab, d], 2), Depth::Columns, &flex);
    let (weight, table) = (on_device(weight), on_device(table));
    let x = Tensor::<2>::from_data(numbers([rows, d], 3), device);
    let mut outputs = Outputs::default();
    let scores = calm_kernels::linear_by_table(x.clone(), table.clone());
    outputs.add_tensor("product", calm_kernels::linear(x.clone(), weight, None));
    outputs.add_tensor("scores", scores);
    outputs.add_tensor(
        "rows",
        calm_kernels::look_up(table.clone(), ids([2, 9], vocab, device)),
    );
    outputs.add_tensor("search", ArgmaxTable::new(table).search(x).float());
    outputs
}
