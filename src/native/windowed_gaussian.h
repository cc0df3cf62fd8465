// The windowed Gaussian of representations/splatting/window.py at many points, and the grid points that it covers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace hoarfrost::HOARFROST_INSTRUCTIONS {

// Neighbours along x that are worked on together: what one register holds.
#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef std::int32_t Integers __attribute__((vector_size(4 * LANES)));

inline Lanes all(float value) { return Lanes{} + value; }
inline Lanes smaller(Lanes a, Lanes b) { return a < b ? a : b; }
inline float smaller(float a, float b) { return a < b ? a : b; }
inline float larger(float a, float b) { return a > b ? a : b; }

inline Lanes load(const float* from) {
    Lanes values;
    std::memcpy(&values, from, sizeof values);
    return values;
}
inline void store(Lanes values, float* to) { std::memcpy(to, &values, sizeof values); }

inline float power_of_two(float whole) {
    const std::int32_t bits = (static_cast<std::int32_t>(whole) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return power;
}
inline Lanes power_of_two(Lanes whole) {
    const Integers bits = (__builtin_convertvector(whole, Integers) + 127) << 23;
    Lanes power;
    std::memcpy(&power, &bits, sizeof power);
    return power;
}

// exp(x) to rounding for -80 < x <= 0: a power of two times the Taylor-like series of Cephes for |rest| < log(2) / 2.
template <typename Real>
inline Real exponential(Real x) {
    constexpr float round = 12582912.f;  // 1.5 * 2^23: adding it leaves no digit behind the point
    const Real whole = (x * 1.44269504f + round) - round;
    const Real rest = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    Real series = 1.9875691500e-4f * rest + 1.3981999507e-3f;
    series = series * rest + 8.3334519073e-3f;
    series = series * rest + 4.1665795894e-2f;
    series = series * rest + 1.6666665459e-1f;
    series = series * rest + 5.0000001201e-1f;
    return (series * rest * rest + rest + 1.f) * power_of_two(whole);
}

// g(q) = exp(-q / 2) w^2 with w = 1 - (q / edge)^16, zero beyond the edge.
struct Window {
    float edge, inverse_edge;
    explicit Window(float edge) : edge(edge), inverse_edge(1.f / edge) {}

    // exp(-q / 2), and something harmless beyond the edge.
    template <typename Real>
    Real exponential_of(Real q) const {
        return exponential(-0.5f * smaller(q, Real{} + 1.5f * edge));
    }
    // g, given the exponential.
    Lanes value(Lanes q, Lanes exponential) const {
        const Lanes u = smaller(q * inverse_edge, all(1.f)), u2 = u * u, u4 = u2 * u2, u8 = u4 * u4, w = 1.f - u8 * u8;
        return exponential * w * w;
    }
    // g and dg/dq.
    void value_and_slope(Lanes q, Lanes exponential, Lanes& value, Lanes& slope) const {
        const Lanes u = smaller(q * inverse_edge, all(1.f)), u2 = u * u, u4 = u2 * u2, u8 = u4 * u4, w = 1.f - u8 * u8;
        const Lanes once = exponential * w;
        value = once * w;
        slope = -once * (0.5f * w + 32.f * inverse_edge * (u8 * u4 * (u2 * u)));
    }
};

// The points first ... last of one axis, among begin ... end - 1, that lie within reach of a centre.
struct Span {
    std::int32_t first, last;
    Span(float centre, float reach, std::int64_t begin, std::int64_t end) {
        const auto low = static_cast<float>(begin), high = static_cast<float>(end);
        first = static_cast<std::int32_t>(std::ceil(smaller(larger(centre - reach, low), high)));
        last = static_cast<std::int32_t>(std::floor(smaller(larger(centre + reach, low - 1.f), high - 1.f)));
    }
};

// Where neighbours along x are in a row, and how many of them are.
struct Chunk {
    std::int32_t first, count;
    Chunk(std::int32_t x, const Span& span, std::int64_t width) : first(x) {
        const auto end = static_cast<std::int32_t>(width);
        // A lone chunk that sticks out at the end of a row is moved back into it.
        if (x == span.first && span.last - x < LANES && end >= LANES) first = std::min(x, end - LANES);
        count = std::min(LANES, end - first);
    }
    Lanes read(const float* row) const {
        if (count == LANES) return load(row + first);
        Lanes values{};
        for (int j = 0; j < count; ++j) values[j] = row[first + j];
        return values;
    }
    void add(Lanes values, float* row) const {
        if (count == LANES) return store(load(row + first) + values, row + first);
        for (int j = 0; j < count; ++j) row[first + j] += values[j];
    }
};

}  // namespace hoarfrost::HOARFROST_INSTRUCTIONS
