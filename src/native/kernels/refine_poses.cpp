// Gauss-Newton on rotation and shift (poses/gauss_newton.py): all iterations of an image while its slice is in cache.
//
// With q = R^T M k, the transform Y of the map and i times its gradient (the moments m), the derivatives of the model
// C Y exp(-2 pi i k.t) are i C (q x m) by the turn and -2 pi i (k / D) C Y by the shift. The factor i, common to all
// five, is left out of them here and put into the residual.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels.h"
#include "trilinear.h"

namespace hoarfrost::HOARFROST_INSTRUCTIONS {

namespace {

#if defined(__AVX512F__)
constexpr int WIDTH = 16;
#elif defined(__AVX2__)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif
typedef float Floats __attribute__((vector_size(4 * WIDTH)));

inline Floats load(const float* from) {
    Floats values;
    std::memcpy(&values, from, sizeof values);
    return values;
}

inline double total(Floats values) {
    double sum = 0;
    for (int i = 0; i < WIDTH; ++i) sum += values[i];
    return sum;
}

constexpr double TAU = 6.283185307179586476925286766559;
constexpr int PARAMETERS = 5, PRODUCTS = PARAMETERS * (PARAMETERS + 1) / 2;

struct alignas(64) Line {
    float value[16];
};

// Rows of numbers, each with room for whole blocks; what is not written stays zero.
class Rows {
public:
    Rows(int count, std::int64_t length) : lines((length + BLOCK - 1) / BLOCK * (BLOCK / 16)), storage(count * lines) {}
    float* operator[](int row) { return storage[row * lines].value; }
    const float* operator[](int row) const { return storage[row * lines].value; }

private:
    std::int64_t lines;
    std::vector<Line> storage;
};

struct Pose {
    double rotation[9], shift[2];
};

// Halved curvature and slope of the log-likelihood, and its value.
struct Equations {
    double curvature[PARAMETERS][PARAMETERS], slope[PARAMETERS], value;
};

// One image on the band: sqrt(v) X (real, imaginary) and sqrt(v) C, beside the band's frequencies.
struct Image {
    const SlicedImages& batch;
    const Rows& band;
    const Rows& data;
    const double* matrix;
    Grid grid;
};

// The slice points q of a block, their cells, and the image moved back by its shift.
struct Block {
    alignas(64) float q[3][BLOCK], data[2][BLOCK], field[8][BLOCK];
    Cells cells;
};

// The object-frame axes of the image, M^T R.
void frame_of(const Image& image, const Pose& pose, float (&frame)[2][3]) {
    for (int axis = 0; axis < 3; ++axis) {
        const double first = pose.rotation[axis], second = pose.rotation[3 + axis];
        const double* m = image.matrix;
        frame[0][axis] = static_cast<float>(m == nullptr ? first : m[0] * first + m[2] * second);
        frame[1][axis] = static_cast<float>(m == nullptr ? second : m[1] * first + m[3] * second);
    }
}

void place(const Image& image, const float (&frame)[2][3], const Pose& pose, std::int64_t start, Block& block) {
    const float *kx = image.band[0] + start, *ky = image.band[1] + start;
    alignas(64) float point[3][BLOCK];
    const auto padding = static_cast<float>(image.batch.padding);
    for (int axis = 0; axis < 3; ++axis) {
        for (int i = 0; i < BLOCK; ++i) {
            block.q[axis][i] = kx[i] * frame[0][axis] + ky[i] * frame[1][axis];
            point[axis][i] = padding * block.q[axis][i];
        }
    }
    locate(image.grid, point[0], point[1], point[2], block.cells);
    const auto turn_x = static_cast<float>(pose.shift[0] / image.batch.box);
    const auto turn_y = static_cast<float>(pose.shift[1] / image.batch.box);
    const float *real = image.data[0] + start, *imaginary = image.data[1] + start;
    for (int i = 0; i < BLOCK; ++i) {
        const float turns = kx[i] * turn_x + ky[i] * turn_y;
        // Adding and taking away 1.5 * 2^23 rounds; half the angle, within a quarter turn, goes into the series.
        const float rounded = (turns + 12582912.f) - 12582912.f;
        const float angle = static_cast<float>(TAU / 2) * (turns - rounded), square = angle * angle;
        const float sine =
            angle * (1.f + square * (-1.f / 6 + square * (1.f / 120 + square * (-1.f / 5040 +
            square * (1.f / 362880 + square * (-1.f / 39916800))))));
        const float cosine =
            1.f + square * (-0.5f + square * (1.f / 24 + square * (-1.f / 720 + square * (1.f / 40320 +
            square * (-1.f / 3628800 + square * (1.f / 479001600))))));
        const float whole_cosine = 1.f - 2.f * sine * sine, whole_sine = 2.f * sine * cosine;
        block.data[0][i] = real[i] * whole_cosine - imaginary[i] * whole_sine;
        block.data[1][i] = real[i] * whole_sine + imaginary[i] * whole_cosine;
    }
}

Equations normal_equations_of(const Image& image, const Pose& pose) {
    Floats product[PRODUCTS] = {}, along[PARAMETERS] = {}, value = {};
    float frame[2][3];
    frame_of(image, pose, frame);
    Block block;
    for (std::int64_t start = 0; start < image.batch.coefficients; start += BLOCK) {
        place(image, frame, pose, start, block);
        fetch<8>(image.grid, image.batch.fields, block.cells);
        read_eight(image.grid, image.batch.fields, block.cells, block.field);
        for (int i = 0; i < BLOCK; i += WIDTH) {
            const Floats transfer = load(image.data[2] + start + i), sign = load(block.cells.sign + i) * transfer;
            const Floats kx = load(image.band[0] + start + i), ky = load(image.band[1] + start + i);
            const Floats qx = load(block.q[0] + i), qy = load(block.q[1] + i), qz = load(block.q[2] + i);
            Floats row[PARAMETERS][2], residual[2];
            for (int part = 0; part < 2; ++part) {
                const Floats factor = part == 0 ? transfer : sign;
                const Floats model = factor * load(block.field[part] + i), data = load(block.data[part] + i);
                const Floats mx = factor * load(block.field[2 + part] + i);
                const Floats my = factor * load(block.field[4 + part] + i);
                const Floats mz = factor * load(block.field[6 + part] + i);
                row[0][part] = qy * mz - qz * my;
                row[1][part] = qz * mx - qx * mz;
                row[2][part] = qx * my - qy * mx;
                row[3][part] = kx * model;
                row[4][part] = ky * model;
                residual[part] = data - model;
                value += model * (data + residual[part]);
            }
            for (int a = 0, entry = 0; a < PARAMETERS; ++a) {
                along[a] += row[a][0] * residual[1] - row[a][1] * residual[0];
                for (int b = 0; b <= a; ++b, ++entry)
                    product[entry] += row[a][0] * row[b][0] + row[a][1] * row[b][1];
            }
        }
    }
    const double ramp = -TAU / image.batch.box, scale[PARAMETERS] = {1, 1, 1, ramp, ramp};
    Equations equations;
    for (int a = 0, entry = 0; a < PARAMETERS; ++a) {
        equations.slope[a] = scale[a] * total(along[a]);
        for (int b = 0; b <= a; ++b, ++entry)
            equations.curvature[a][b] = equations.curvature[b][a] = scale[a] * scale[b] * total(product[entry]);
    }
    equations.value = total(value);
    return equations;
}

double log_likelihood_of(const Image& image, const Pose& pose) {
    Floats value = {};
    float frame[2][3];
    frame_of(image, pose, frame);
    Block block;
    for (std::int64_t start = 0; start < image.batch.coefficients; start += BLOCK) {
        place(image, frame, pose, start, block);
        fetch<2>(image.grid, image.batch.values, block.cells);
        read_two(image.grid, image.batch.values, block.cells, block.field);
        for (int i = 0; i < BLOCK; i += WIDTH) {
            const Floats transfer = load(image.data[2] + start + i), sign = load(block.cells.sign + i);
            const Floats real = transfer * load(block.field[0] + i), imaginary = sign * transfer * load(block.field[1] + i);
            const Floats data_real = load(block.data[0] + i), data_imaginary = load(block.data[1] + i);
            value += real * (data_real + data_real - real) + imaginary * (data_imaginary + data_imaginary - imaginary);
        }
    }
    return total(value);
}

// Solves (curvature + ridge) step = slope by Cholesky's factors. Not-a-number comes out of what has no solution.
void solve(const Equations& equations, double damping, double (&step)[PARAMETERS]) {
    double factor[PARAMETERS][PARAMETERS], largest = 1e-12;
    for (int a = 0; a < PARAMETERS; ++a) largest = std::max(largest, equations.curvature[a][a]);
    for (int a = 0; a < PARAMETERS; ++a) {
        for (int b = 0; b <= a; ++b) {
            double sum = equations.curvature[a][b];
            // A direction without curvature (an empty image) must not make the system singular.
            if (a == b) sum += damping * sum + 1e-6 * largest;
            for (int c = 0; c < b; ++c) sum -= factor[a][c] * factor[b][c];
            factor[a][b] = a == b ? std::sqrt(sum) : sum / factor[b][b];
        }
    }
    for (int a = 0; a < PARAMETERS; ++a) {
        step[a] = equations.slope[a];
        for (int b = 0; b < a; ++b) step[a] -= factor[a][b] * step[b];
        step[a] /= factor[a][a];
    }
    for (int a = PARAMETERS - 1; a >= 0; --a) {
        for (int b = a + 1; b < PARAMETERS; ++b) step[a] -= factor[b][a] * step[b];
        step[a] /= factor[a][a];
    }
}

void multiply(const double* left, const double* right, double* result) {
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j)
            result[3 * i + j] = left[3 * i] * right[j] + left[3 * i + 1] * right[3 + j] + left[3 * i + 2] * right[6 + j];
}

// The nearest rotation to one that is off by rounding: Newton's iteration R (3 - R^T R) / 2, which doubles the digits.
void renormalise(double* rotation) {
    for (int round = 0; round < 2; ++round) {
        double correction[9], result[9];
        for (int i = 0; i < 3; ++i)
            for (int j = 0; j < 3; ++j) {
                double square = 0;
                for (int row = 0; row < 3; ++row) square += rotation[3 * row + i] * rotation[3 * row + j];
                correction[3 * i + j] = (i == j ? 1.5 : 0.0) - 0.5 * square;
            }
        multiply(rotation, correction, result);
        std::copy(result, result + 9, rotation);
    }
}

// The pose R exp([w]), t + s; the whole step is shrunk to turns of at most `largest_turn` radians.
Pose stepped(const Pose& pose, const double (&step)[PARAMETERS], double largest_turn) {
    const double length = std::sqrt(step[0] * step[0] + step[1] * step[1] + step[2] * step[2]);
    const double shrink = std::min(1.0, largest_turn / std::max(length, 1e-12));
    const double x = shrink * step[0], y = shrink * step[1], z = shrink * step[2], square = x * x + y * y + z * z;
    const double angle = std::sqrt(square), half = std::sin(0.5 * angle);
    const double sine = angle > 1e-8 ? std::sin(angle) / angle : 1.0;
    const double versine = angle > 1e-8 ? 2 * half * half / square : 0.5;
    const double turn[9] = {
        1 - versine * (y * y + z * z), versine * x * y - sine * z, versine * x * z + sine * y,
        versine * x * y + sine * z, 1 - versine * (x * x + z * z), versine * y * z - sine * x,
        versine * x * z - sine * y, versine * y * z + sine * x, 1 - versine * (x * x + y * y),
    };
    Pose result;
    multiply(pose.rotation, turn, result.rotation);
    renormalise(result.rotation);
    for (int axis = 0; axis < 2; ++axis) result.shift[axis] = pose.shift[axis] + shrink * step[3 + axis];
    return result;
}

double refine(const Image& image, Pose& pose, int iterations, double largest_turn) {
    Equations equations = normal_equations_of(image, pose);
    double damping = 1e-2;
    for (int iteration = 0; iteration < iterations; ++iteration) {
        double step[PARAMETERS];
        solve(equations, damping, step);
        const Pose trial = stepped(pose, step, largest_turn);
        if (iteration + 1 == iterations) {
            const double value = log_likelihood_of(image, trial);
            if (value > equations.value) pose = trial, equations.value = value;
        } else {
            const Equations there = normal_equations_of(image, trial);
            const bool better = there.value > equations.value;
            if (better) pose = trial, equations = there;
            damping *= better ? 0.2 : 10;
        }
    }
    return equations.value;
}

// Calls `work(image, pose, n)` for every image of a batch.
template <typename Work>
void for_each_image(const SlicedImages& batch, const double* rotations, const double* shifts, Work work) {
    const std::int64_t length = batch.coefficients;
    Rows band(2, length), data(3, length);
    for (std::int64_t i = 0; i < length; ++i) {
        band[0][i] = static_cast<float>(batch.k[2 * i]);
        band[1][i] = static_cast<float>(batch.k[2 * i + 1]);
    }
    const Grid grid{static_cast<std::int32_t>(batch.centre)};
    for (std::int64_t n = 0; n < batch.images; ++n) {
        const float *vector = batch.vectors + 2 * n * length, *transfer = batch.transfer + n * length;
        float *real = data[0], *imaginary = data[1], *weighted = data[2];
        for (std::int64_t i = 0; i < length; ++i) {
            real[i] = batch.root_weight[i] * vector[2 * i];
            imaginary[i] = batch.root_weight[i] * vector[2 * i + 1];
            weighted[i] = batch.root_weight[i] * transfer[i];
        }
        Pose pose;
        std::copy(rotations + 9 * n, rotations + 9 * (n + 1), pose.rotation);
        std::copy(shifts + 2 * n, shifts + 2 * (n + 1), pose.shift);
        work(Image{batch, band, data, batch.matrices == nullptr ? nullptr : batch.matrices + 4 * n, grid}, pose, n);
    }
}

}  // namespace

void normal_equations(const SlicedImages& batch, const double* rotations, const double* shifts, double* curvature,
                      double* slope, double* likelihood) {
    for_each_image(batch, rotations, shifts, [&](const Image& image, const Pose& pose, std::int64_t n) {
        const Equations equations = normal_equations_of(image, pose);
        std::copy(&equations.curvature[0][0], &equations.curvature[0][0] + 25, curvature + 25 * n);
        std::copy(equations.slope, equations.slope + PARAMETERS, slope + PARAMETERS * n);
        likelihood[n] = equations.value;
    });
}

void log_likelihood(const SlicedImages& batch, const double* rotations, const double* shifts, double* likelihood) {
    for_each_image(batch, rotations, shifts, [&](const Image& image, const Pose& pose, std::int64_t n) {
        likelihood[n] = log_likelihood_of(image, pose);
    });
}

void refine_poses(const SlicedImages& batch, std::int64_t iterations, double largest_turn, double* rotations,
                  double* shifts, double* likelihood) {
    for_each_image(batch, rotations, shifts, [&](const Image& image, Pose& pose, std::int64_t n) {
        likelihood[n] = refine(image, pose, static_cast<int>(iterations), largest_turn);
        std::copy(pose.rotation, pose.rotation + 9, rotations + 9 * n);
        std::copy(pose.shift, pose.shift + 2, shifts + 2 * n);
    });
}

}  // namespace hoarfrost::HOARFROST_INSTRUCTIONS
