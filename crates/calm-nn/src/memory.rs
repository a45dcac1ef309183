//! What a training step holds in memory, told from sizes alone.

/// What a training step holds of one part of a model, in bytes; numbers are f32.
///
/// As for FLOPs ([`crate::Cost`]), configurations say it, so that nothing has to be built. What is kept
/// follows from the backward passes of calm-kernels; it is checked against a counting allocator on the
/// CPU executor (calm-train/tests/memory). What comes and goes beside it is the sum of the tensors that
/// stand at once where that is most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartMemory {
    /// The parameters; their gradients take as much.
    pub parameters: u64,
    /// The largest single parameter.
    pub largest: u64,
    /// Kept of the forward pass for the backward pass.
    pub kept: u64,
    /// Most that the forward pass holds beside what is kept.
    pub forward: u64,
    /// Most that the backward pass holds beside what is kept and the gradients of later parts; the gradient
    /// of a matrix that stands by then is of it.
    pub backward: u64,
}

/// What training holds of a configuration's model in memory, part by part.
pub trait TrainingMemory {
    /// The parts in the order of the forward pass, for `positions` positions in one forward pass, those of
    /// all windows together: of [`crate::Cost::forward_macs`]'s kind. What a part keeps of its input is
    /// its own, and its output is the next part's.
    fn training_memory(&self, positions: usize, checkpointing: bool) -> Vec<PartMemory>;
}

/// Bytes of numbers in f32.
pub fn f32_bytes(numbers: usize) -> u64 {
    (numbers * size_of::<f32>()) as u64
}

/// Bytes of token ids as the CPU executor holds them, in 64 bits.
pub fn id_bytes(tokens: usize) -> u64 {
    (tokens * size_of::<i64>()) as u64
}

impl PartMemory {
    /// The same under gradient checkpointing (`calm_kernels::checkpoint`): of the forward pass its inputs
    /// are kept alone, `inputs` of them by no other part; the backward pass makes the rest again, from an
    /// output of `output` bytes.
    pub fn checkpointed(self, inputs: u64, output: u64) -> Self {
        Self {
            kept: inputs,
            backward: self.kept - inputs + self.backward + output,
            ..self
        }
    }
}

/// What a training step of some parts, in the order of the forward pass, holds at most beside parameters
/// and optimizer, in bytes: what is kept up to a part, with what that part's forward pass takes, or its
/// backward pass and the gradients of all that follow; at its end its own gradients stand and nothing that
/// it kept.
pub fn step_bytes(parts: &[PartMemory]) -> u64 {
    let mut later: u64 = parts.iter().map(|part| part.parameters).sum();
    let (mut kept, mut most) = (0, 0);
    for part in parts {
        most = most.max(kept + later);
        kept += part.kept;
        later -= part.parameters;
        most = most.max(kept + part.forward.max(part.backward + later));
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(parameters: u64, kept: u64, forward: u64, backward: u64) -> PartMemory {
        PartMemory {
            parameters,
            largest: parameters,
            kept,
            forward,
            backward,
        }
    }

    #[test]
    fn what_is_kept_goes_as_gradients_come() {
        // In the second part's backward pass: 100 + 10 kept, 5 beside.
        assert_eq!(step_bytes(&[part(5, 100, 0, 2), part(7, 10, 1, 5)]), 115);
        // In the first's: 100 kept, 9 beside, 7 of gradients.
        assert_eq!(step_bytes(&[part(5, 100, 0, 9), part(7, 10, 1, 5)]), 116);
        // A forward pass that takes more than the backward pass.
        assert_eq!(step_bytes(&[part(3, 100, 0, 2), part(7, 10, 90, 5)]), 200);
        // All gradients.
        assert_eq!(step_bytes(&[part(300, 1, 0, 0), part(7, 10, 1, 5)]), 307);
    }

    #[test]
    fn a_checkpointed_part_keeps_its_inputs_and_makes_the_rest_again() {
        let whole = part(7, 100, 1, 5);
        let checkpointed = whole.checkpointed(10, 3);
        assert_eq!((checkpointed.kept, checkpointed.backward), (10, 98));
        assert_eq!(checkpointed.parameters, whole.parameters);
    }
}
