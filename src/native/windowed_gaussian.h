// The windowed Gaussian of representations/splatting/window.py at many points, and the grid points that it covers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "lanes.h"

namespace hoarfrost::HOARFROST_INSTRUCTIONS {

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
        const Lanes u = smaller(q * inverse_edge, Lanes{} + 1.f), u2 = u * u, u4 = u2 * u2, u8 = u4 * u4, w = 1.f - u8 * u8;
        return exponential * w * w;
    }
    // g and dg/dq.
    void value_and_slope(Lanes q, Lanes exponential, Lanes& value, Lanes& slope) const {
        const Lanes u = smaller(q * inverse_edge, Lanes{} + 1.f), u2 = u * u, u4 = u2 * u2, u8 = u4 * u4, w = 1.f - u8 * u8;
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
        if (count == LANES) return load<Lanes>(row + first);
        Lanes values{};
        for (int j = 0; j < count; ++j) values[j] = row[first + j];
        return values;
    }
    void add(Lanes values, float* row) const {
        if (count == LANES) return store(load<Lanes>(row + first) + values, row + first);
        for (int j = 0; j < count; ++j) row[first + j] += values[j];
    }
};

}  // namespace hoarfrost::HOARFROST_INSTRUCTIONS
