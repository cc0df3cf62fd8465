// A mixture of windowed Gaussians on a grid, and the moments of a grid under each of them: the two directions of
// representations/splatting/windowed_sum.py.
//
// A Gaussian of a voxel's width covers a row of the grid with a single register, so that rows are the unit of work.
// Slabs of planes are filled side by side, each by all Gaussians that reach it in one order: what comes out does not
// depend on who fills which. The moments of a Gaussian are summed lane by lane, and only in the end over the lanes.
#include "kernels.h"
#include "windowed_gaussian.h"

namespace hoarfrost::HOARFROST_INSTRUCTIONS {

namespace {

struct Gaussian {
    float x, y, z, xx, yy, zz, xy, xz, yz;  // centre and precision
    float reach[3];
    Gaussian(const WindowedGaussians& mixture, std::int64_t i)
        : x(mixture.centres[3 * i]), y(mixture.centres[3 * i + 1]), z(mixture.centres[3 * i + 2]) {
        std::copy_n(mixture.reach + 3 * i, 3, reach);
        const float* p = mixture.precisions + (mixture.isotropic ? i : 6 * i);
        xx = p[0], yy = p[mixture.isotropic ? 0 : 1], zz = p[mixture.isotropic ? 0 : 2];
        xy = mixture.isotropic ? 0.f : p[3], xz = mixture.isotropic ? 0.f : p[4], yz = mixture.isotropic ? 0.f : p[5];
    }
};

// What all rows of a chunk have in common.
template <bool isotropic>
struct Columns {
    Lanes dx, q, exponential;
    Columns(const Gaussian& gaussian, std::int32_t first, const Window& window) {
        for (int j = 0; j < LANES; ++j) dx[j] = static_cast<float>(first + j) - gaussian.x;
        q = gaussian.xx * dx * dx;
        if (isotropic) exponential = window.exponential_of(q);
    }
};

// q = constant + linear dx + xx dx^2 along one row.
template <bool isotropic>
struct Row {
    float constant, linear, exponential;
    bool reached;
    Row(const Gaussian& gaussian, float dy, float dz, const Window& window) {
        if (isotropic) {
            constant = gaussian.xx * (dy * dy + dz * dz);
            reached = constant < window.edge;
            if (reached) exponential = window.exponential_of(constant);
        } else {
            constant = gaussian.yy * dy * dy + (2.f * gaussian.yz * dy + gaussian.zz * dz) * dz;
            linear = 2.f * (gaussian.xy * dy + gaussian.xz * dz);
            reached = 4.f * gaussian.xx * (constant - window.edge) < linear * linear;
        }
    }
    void exponent(const Columns<isotropic>& columns, const Window& window, Lanes& q, Lanes& factor) const {
        if (isotropic) {
            q = constant + columns.q;
            factor = exponential * columns.exponential;
        } else {
            q = constant + linear * columns.dx + columns.q;
            factor = window.exponential_of(q);
        }
    }
};

template <bool isotropic>
void fill(const WindowedGaussians& mixture, std::int64_t first, std::int64_t last, std::int64_t first_plane,
          std::int64_t last_plane, float* volume) {
    const Window window(mixture.edge);
    const std::int64_t width = mixture.width, plane = mixture.height * width;
    for (std::int64_t place = first; place < last; ++place) {
        const std::int64_t i = mixture.order[place];
        const Gaussian gaussian(mixture, i);
        const Span z(gaussian.z, gaussian.reach[2], first_plane, last_plane);
        if (z.first > z.last) continue;
        const Span y(gaussian.y, gaussian.reach[1], 0, mixture.height), x(gaussian.x, gaussian.reach[0], 0, width);
        const float amplitude = mixture.amplitudes[i];
        for (std::int32_t start = x.first; start <= x.last; start += LANES) {
            const Chunk chunk(start, x, width);
            const Columns<isotropic> columns(gaussian, chunk.first, window);
            for (std::int32_t iz = z.first; iz <= z.last; ++iz) {
                const float dz = static_cast<float>(iz) - gaussian.z;
                for (std::int32_t iy = y.first; iy <= y.last; ++iy) {
                    const Row<isotropic> row(gaussian, static_cast<float>(iy) - gaussian.y, dz, window);
                    if (!row.reached) continue;
                    Lanes q, factor;
                    row.exponent(columns, window, q, factor);
                    chunk.add(window.value(q, amplitude * factor), volume + iz * plane + iy * width);
                }
            }
        }
    }
}

template <bool isotropic>
void gather(const WindowedGaussians& mixture, const float* volume, std::int64_t first, std::int64_t last, float* moments) {
    const Window window(mixture.edge);
    const std::int64_t width = mixture.width, plane = mixture.height * width;
    for (std::int64_t place = first; place < last; ++place) {
        const std::int64_t i = mixture.order[place];
        const Gaussian gaussian(mixture, i);
        const Span z(gaussian.z, gaussian.reach[2], 0, mixture.depth), y(gaussian.y, gaussian.reach[1], 0, mixture.height),
            x(gaussian.x, gaussian.reach[0], 0, width);
        float* result = moments + 10 * i;
        std::fill_n(result, 10, 0.f);
        for (std::int32_t start = x.first; start <= x.last; start += LANES) {
            const Chunk chunk(start, x, width);
            const Columns<isotropic> columns(gaussian, chunk.first, window);
            // Sums over the rows of g, and of dg/dq times 1, y, z, y^2, z^2, yz.
            Lanes value{}, one{}, by_y{}, by_z{}, by_yy{}, by_zz{}, by_yz{};
            for (std::int32_t iz = z.first; iz <= z.last; ++iz) {
                const float dz = static_cast<float>(iz) - gaussian.z;
                Lanes in_plane{}, in_plane_y{};
                for (std::int32_t iy = y.first; iy <= y.last; ++iy) {
                    const float dy = static_cast<float>(iy) - gaussian.y;
                    const Row<isotropic> row(gaussian, dy, dz, window);
                    if (!row.reached) continue;
                    Lanes q, factor, g, slope;
                    row.exponent(columns, window, q, factor);
                    window.value_and_slope(q, factor * chunk.read(volume + iz * plane + iy * width), g, slope);
                    value += g;
                    in_plane += slope;
                    in_plane_y += slope * dy;
                    by_yy += slope * (dy * dy);
                }
                one += in_plane;
                by_y += in_plane_y;
                by_z += in_plane * dz;
                by_zz += in_plane * (dz * dz);
                by_yz += in_plane_y * dz;
            }
            const Lanes dx = columns.dx;
            const Lanes sums[10] = {value,       one * dx, by_y,      by_z,      one * dx * dx,
                                    by_yy,       by_zz,    by_y * dx, by_z * dx, by_yz};
            for (int c = 0; c < 10; ++c)
                for (int j = 0; j < LANES; ++j) result[c] += sums[c][j];
        }
    }
}

}  // namespace

// Add the Gaussians at the places first ... last - 1 of the order to the planes first_plane ... last_plane - 1.
void add_gaussians(const WindowedGaussians& mixture, std::int64_t first, std::int64_t last, std::int64_t first_plane,
                   std::int64_t last_plane, float* volume) {
    mixture.isotropic ? fill<true>(mixture, first, last, first_plane, last_plane, volume)
                      : fill<false>(mixture, first, last, first_plane, last_plane, volume);
}

// Moments of a volume under each of the Gaussians at the places first ... last - 1 of the order.
void gaussian_moments(const WindowedGaussians& mixture, const float* volume, std::int64_t first, std::int64_t last,
                      float* moments) {
    mixture.isotropic ? gather<true>(mixture, volume, first, last, moments)
                      : gather<false>(mixture, volume, first, last, moments);
}

}  // namespace hoarfrost::HOARFROST_INSTRUCTIONS
