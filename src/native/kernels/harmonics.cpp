// Cosines and sines of the multiples of many angles, and sums over them (representations/splatting/separable.py).
#include "kernels.h"
#include "lanes.h"

namespace hoarfrost::HOARFROST_INSTRUCTIONS {

namespace {

// Registers of angles that are worked on together: rows lie far apart in memory, and little of each is touched at a time.
constexpr int REGISTERS = 4;

// Rows k and harmonics + k of `rows`: cosine and sine of k times the angle, each a turn on from the last.
template <typename Real, int registers>
void turn(const float* cosines, const float* sines, const float* envelope, std::int64_t harmonics, std::int64_t count,
          float* rows) {
    constexpr int width = sizeof(Real) / sizeof(float);
    Real step_cosine[registers], step_sine[registers], cosine[registers], sine[registers];
    for (int u = 0; u < registers; ++u) {
        step_cosine[u] = load<Real>(cosines + u * width), step_sine[u] = load<Real>(sines + u * width);
        cosine[u] = Real{} + 1.f, sine[u] = Real{};
    }
    float* sine_rows = rows + harmonics * count;
    for (std::int64_t k = 0; k < harmonics; ++k) {
        for (int u = 0; u < registers; ++u) {
            const std::int64_t place = k * count + u * width;
            const Real height = load<Real>(envelope + place), c = cosine[u], s = sine[u];
            store(c * height, rows + place);
            store(s * height, sine_rows + place);
            cosine[u] = c * step_cosine[u] - s * step_sine[u];
            sine[u] = s * step_cosine[u] + c * step_sine[u];
        }
    }
}

// Sums over the rows of gradient times row, of k times gradient times the row turned by a right angle, and of k^2 times
// the first.
template <typename Real, int registers>
void add_up(const float* rows, const float* gradient, std::int64_t harmonics, std::int64_t count, float* sums) {
    constexpr int width = sizeof(Real) / sizeof(float);
    Real plain[registers] = {}, turned[registers] = {}, curved[registers] = {};
    const std::int64_t sine = harmonics * count;
    for (std::int64_t k = 0; k < harmonics; ++k) {
        const auto factor = static_cast<float>(k);
        for (int u = 0; u < registers; ++u) {
            const std::int64_t place = k * count + u * width;
            const Real c = load<Real>(rows + place), s = load<Real>(rows + sine + place);
            const Real by_c = load<Real>(gradient + place), by_s = load<Real>(gradient + sine + place);
            const Real along = by_c * c + by_s * s;
            plain[u] += along;
            turned[u] += factor * (by_s * c - by_c * s);
            curved[u] += (factor * factor) * along;
        }
    }
    for (int u = 0; u < registers; ++u) {
        store(plain[u], sums + u * width);
        store(turned[u], sums + count + u * width);
        store(curved[u], sums + 2 * count + u * width);
    }
}

}  // namespace

// For every image, cosines, then sines, of 0 ... harmonics - 1 times `count` angles of which cosine and sine are given,
// each times the envelope: rows of `count` numbers.
void harmonic_rows(const float* cosines, const float* sines, const float* envelope, std::int64_t images,
                   std::int64_t harmonics, std::int64_t count, float* rows) {
    for (; images > 0; --images, cosines += count, sines += count, rows += 2 * harmonics * count) {
        std::int64_t i = 0;
        for (; i + REGISTERS * LANES <= count; i += REGISTERS * LANES)
            turn<Lanes, REGISTERS>(cosines + i, sines + i, envelope + i, harmonics, count, rows + i);
        for (; i < count; ++i) turn<float, 1>(cosines + i, sines + i, envelope + i, harmonics, count, rows + i);
    }
}

// For every image, three rows of sums.
void harmonic_sums(const float* rows, const float* gradient, std::int64_t images, std::int64_t harmonics,
                   std::int64_t count, float* sums) {
    for (; images > 0; --images, rows += 2 * harmonics * count, gradient += 2 * harmonics * count, sums += 3 * count) {
        std::int64_t i = 0;
        for (; i + REGISTERS * LANES <= count; i += REGISTERS * LANES)
            add_up<Lanes, REGISTERS>(rows + i, gradient + i, harmonics, count, sums + i);
        for (; i < count; ++i) add_up<float, 1>(rows + i, gradient + i, harmonics, count, sums + i);
    }
}

}  // namespace hoarfrost::HOARFROST_INSTRUCTIONS
