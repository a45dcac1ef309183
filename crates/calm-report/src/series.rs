//! One curve of a chart, with what is drawn beside it: band, average, dots.

/// One curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
    pub(crate) errors: Vec<f64>,
    pub(crate) smoothing: Option<f64>,
    pub(crate) dots: bool,
}

impl Series {
    /// A curve through `(x, y)` points in drawing order; points that are not finite, or not
    /// positive on a logarithmic axis, leave a gap.
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self {
            name: name.into(),
            points,
            errors: Vec::new(),
            smoothing: None,
            dots: false,
        }
    }

    /// A band of one standard error on either side, one error per point; an upright line at a point
    /// that stands alone.
    pub fn with_errors(self, errors: Vec<f64>) -> Self {
        Self { errors, ..self }
    }

    /// Draws the points faintly and over them their exponential moving average, in which the past
    /// weighs `weight` (0 to 1, exclusive) and the start is corrected for the missing past.
    pub fn smoothed(self, weight: f64) -> Self {
        Self {
            smoothing: Some(weight),
            ..self
        }
    }

    /// Marks each point with a dot that tells its value on hovering, as long as they are few.
    pub fn with_dots(self) -> Self {
        Self { dots: true, ..self }
    }

    /// The values with their errors taken off and added, as far as the limits of the quantity
    /// allow: what the axis must hold.
    pub(crate) fn extent(&self, (low, high): (f64, f64)) -> impl Iterator<Item = f64> {
        self.points
            .iter()
            .enumerate()
            .flat_map(move |(i, &(_, y))| {
                let error = self
                    .errors
                    .get(i)
                    .copied()
                    .filter(|e| e.is_finite())
                    .unwrap_or(0.0);
                [y, (y - error).max(low.min(y)), (y + error).min(high.max(y))]
            })
    }
}
