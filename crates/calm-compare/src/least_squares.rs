//! Nonlinear least squares by the method of Levenberg and Marquardt, for a handful of unknowns.

/// The point near `start` of least sum of squares, and that sum.
///
/// Derivatives are central differences. Stops after 200 steps or where none lowers the sum by more
/// than one part in 10^10.
pub(crate) fn minimise<const N: usize>(
    start: &[f64; N],
    residuals: impl Fn(&[f64]) -> Vec<f64>,
) -> ([f64; N], f64) {
    let square = |r: &[f64]| {
        let sum = r.iter().map(|r| r * r).sum::<f64>();
        if sum.is_finite() { sum } else { f64::INFINITY }
    };
    let mut x = *start;
    let mut r = residuals(&x);
    let mut sum = square(&r);
    let mut damping = 1e-2;
    for _ in 0..200 {
        let jacobian: Vec<Vec<f64>> = (0..N)
            .map(|j| {
                let h = 1e-5 * x[j].abs().max(1.0);
                let at = |sign: f64| {
                    let mut moved = x;
                    moved[j] += sign * h;
                    residuals(&moved)
                };
                let (up, down) = (at(1.0), at(-1.0));
                up.iter()
                    .zip(down)
                    .map(|(u, d)| (u - d) / (2.0 * h))
                    .collect()
            })
            .collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let mut improved = false;
        while damping < 1e12 {
            let mut system = [[0.0; N]; N];
            let mut right = [0.0; N];
            for i in 0..N {
                for j in 0..N {
                    system[i][j] = dot(&jacobian[i], &jacobian[j]);
                }
                system[i][i] += damping * system[i][i].max(1e-9);
                right[i] = -dot(&jacobian[i], &r);
            }
            let Some(step) = solve(system, right) else {
                damping *= 10.0;
                continue;
            };
            let moved: [f64; N] = std::array::from_fn(|i| x[i] + step[i].clamp(-1.0, 1.0));
            let new = residuals(&moved);
            let new_sum = square(&new);
            if new_sum < sum {
                improved = sum - new_sum > 1e-10 * sum;
                (x, r, sum) = (moved, new, new_sum);
                damping = (damping / 10.0).max(1e-12);
                break;
            }
            damping *= 10.0;
        }
        if !improved {
            break;
        }
    }
    (x, sum)
}

/// Solves a linear system by Gaussian elimination with pivoting; `None` where it is singular.
fn solve<const N: usize>(mut a: [[f64; N]; N], mut b: [f64; N]) -> Option<[f64; N]> {
    for column in 0..N {
        let pivot =
            (column..N).max_by(|&i, &j| a[i][column].abs().total_cmp(&a[j][column].abs()))?;
        if a[pivot][column].abs() < 1e-300 {
            return None;
        }
        a.swap(column, pivot);
        b.swap(column, pivot);
        for row in column + 1..N {
            let factor = a[row][column] / a[column][column];
            let upper = a[column];
            for (entry, above) in a[row].iter_mut().zip(upper).skip(column) {
                *entry -= factor * above;
            }
            b[row] -= factor * b[column];
        }
    }
    let mut x = [0.0; N];
    for row in (0..N).rev() {
        let rest: f64 = (row + 1..N).map(|k| a[row][k] * x[k]).sum();
        x[row] = (b[row] - rest) / a[row][row];
    }
    x.iter().all(|x| x.is_finite()).then_some(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_systems_are_solved() {
        let x = solve([[0.0, 2.0], [3.0, 1.0]], [4.0, 5.0]).unwrap();
        approx::assert_relative_eq!(x[0], 1.0, max_relative = 1e-12);
        approx::assert_relative_eq!(x[1], 2.0, max_relative = 1e-12);
        assert!(solve([[1.0, 2.0], [2.0, 4.0]], [1.0, 2.0]).is_none());
    }

    #[test]
    fn the_bottom_of_a_curved_valley_is_found() {
        // Rosenbrock's function, from its classic start.
        let (x, sum) = minimise(&[-1.2, 1.0], |x| {
            vec![10.0 * (x[1] - x[0] * x[0]), 1.0 - x[0]]
        });
        assert!(sum < 1e-12, "{sum}");
        assert!(
            (x[0] - 1.0).abs() < 1e-5 && (x[1] - 1.0).abs() < 1e-5,
            "{x:?}"
        );
    }

    #[test]
    fn an_exponential_is_fitted() {
        let truth = [0.7, -1.3];
        let residuals = |p: &[f64]| -> Vec<f64> {
            (0..20)
                .map(|i| {
                    let t = f64::from(i) * 0.1;
                    p[0] * (p[1] * t).exp() - truth[0] * (truth[1] * t).exp()
                })
                .collect()
        };
        let (x, _) = minimise(&[2.0, 0.0], residuals);
        assert!(
            (x[0] - truth[0]).abs() < 1e-6 && (x[1] - truth[1]).abs() < 1e-6,
            "{x:?}"
        );
    }
}
