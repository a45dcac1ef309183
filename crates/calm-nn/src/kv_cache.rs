//! A preallocated cache of keys and values.

use burn::tensor::{Device, Tensor};

use crate::StepCache;

/// Keys and values of one layer, `[batch, kv_heads, capacity, head_dim]`, written in place.
///
/// Burn's own cache grows by concatenation, which copies all of it at every step.
#[derive(Clone, Debug)]
pub struct LayerCache {
    keys: Option<Tensor<4>>,
    values: Option<Tensor<4>>,
    len: usize,
}

impl LayerCache {
    fn new(shape: [usize; 4], device: &Device) -> Self {
        Self {
            keys: Some(Tensor::zeros(shape, device)),
            values: Some(Tensor::zeros(shape, device)),
            len: 0,
        }
    }

    /// Appends the keys and values of new positions and returns the whole buffers, filled up to
    /// [`LayerCache::len`].
    ///
    /// # Shapes
    /// - k, v: `[batch, kv_heads, new, head_dim]`
    /// - output: twice `[batch, kv_heads, capacity, head_dim]`
    ///
    /// # Panics
    /// Where the capacity is exceeded; [`KvCache::room`] tells.
    pub(crate) fn append(&mut self, k: Tensor<4>, v: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let [batch, heads, new, width] = k.dims();
        let end = self.len + new;
        let write = |slot: &mut Option<Tensor<4>>, values: Tensor<4>| {
            // Taken out of its slot, the buffer has one owner and is written in place.
            let buffer = slot.take().expect("the cache buffer");
            let capacity = buffer.dims()[2];
            assert!(
                end <= capacity,
                "a cache of {capacity} positions was given {end}"
            );
            let buffer = buffer.slice_assign([0..batch, 0..heads, self.len..end, 0..width], values);
            *slot = Some(buffer.clone());
            buffer
        };
        let both = (write(&mut self.keys, k), write(&mut self.values, v));
        self.len = end;
        both
    }

    /// Positions held.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What is held: twice `[batch, kv_heads, len, head_dim]`.
    pub(crate) fn held(&self) -> (Tensor<4>, Tensor<4>) {
        let read = |slot: &Option<Tensor<4>>| {
            slot.as_ref()
                .expect("the cache buffer")
                .clone()
                .narrow(2, 0, self.len)
        };
        (read(&self.keys), read(&self.values))
    }
}

/// The cache of a whole transformer.
#[derive(Clone, Debug)]
pub struct KvCache {
    pub(crate) layers: Vec<LayerCache>,
    capacity: usize,
    /// Positions held; a stack without layers holds them too.
    len: usize,
}

impl KvCache {
    pub(crate) fn new(layers: usize, shape: [usize; 4], device: &Device) -> Self {
        Self {
            layers: (0..layers)
                .map(|_| LayerCache::new(shape, device))
                .collect(),
            capacity: shape[2],
            len: 0,
        }
    }

    /// Counts positions that every layer has appended.
    pub(crate) fn grow(&mut self, new: usize) {
        self.len += new;
    }
}

impl StepCache for KvCache {
    fn len(&self) -> usize {
        self.len
    }

    fn room(&self) -> usize {
        self.capacity - self.len
    }

    fn truncate(&mut self, len: usize) -> usize {
        self.len = self.len.min(len);
        for layer in &mut self.layers {
            layer.len = self.len;
        }
        self.len
    }
}
