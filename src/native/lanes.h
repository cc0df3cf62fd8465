// Numbers that one register holds, and what is done with them, written as with one number.
#pragma once

#include <cstdint>
#include <cstring>

namespace hoarfrost::HOARFROST_INSTRUCTIONS {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef std::int32_t Integers __attribute__((vector_size(4 * LANES)));

inline Lanes smaller(Lanes a, Lanes b) { return a < b ? a : b; }
inline float smaller(float a, float b) { return a < b ? a : b; }
inline float larger(float a, float b) { return a > b ? a : b; }

template <typename Real>
inline Real load(const float* from) {
    Real values;
    std::memcpy(&values, from, sizeof values);
    return values;
}
template <typename Real>
inline void store(Real values, float* to) {
    std::memcpy(to, &values, sizeof values);
}

inline float power_of_two(float whole) {
    const std::int32_t bits = (static_cast<std::int32_t>(whole) + 127) << 23;
    return load<float>(reinterpret_cast<const float*>(&bits));
}
inline Lanes power_of_two(Lanes whole) {
    const Integers bits = (__builtin_convertvector(whole, Integers) + 127) << 23;
    return load<Lanes>(reinterpret_cast<const float*>(&bits));
}

// exp(x) to rounding for -80 < x <= 0: a power of two times the series of Cephes for |rest| < log(2) / 2.
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

}  // namespace hoarfrost::HOARFROST_INSTRUCTIONS
